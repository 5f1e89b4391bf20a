"""The strategies by name."""

from keras_initx.strategies._by_role import ByRole
from keras_initx.strategies._plan import Strategy

__all__ = ["STRATEGIES"]

STRATEGIES: dict[str, type[Strategy]] = {
    "by_role": ByRole,
}
