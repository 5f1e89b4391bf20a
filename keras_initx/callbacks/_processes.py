"""Training in several processes: the first process writes the files, and all processes decide alike.

Keras trains one model in several processes on JAX only, so on other backends there is one process here.
"""

from collections.abc import Callable

import keras
import numpy as np

__all__ = ["Silent", "is_first", "largest", "of_first"]


class Silent:
    """Has every method of an `EventWriter`, and writes nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def is_first() -> bool:
    """Tells whether this process is the first one, or the only one."""
    if keras.backend.backend() != "jax":
        return True
    import jax

    return jax.process_index() == 0


def of_first(value: int) -> int:
    """Returns the number that the first process gives; every process must call this, or all wait."""
    return _gather(value)[0]


def largest(value: int) -> int:
    """Returns the largest number that any process gives; every process must call this, or all wait."""
    return max(_gather(value))


def _gather(value: int) -> list[int]:
    if keras.backend.backend() != "jax":
        return [value]
    import jax

    if jax.process_count() == 1:
        return [value]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.asarray(value, "int32"))).ravel().tolist()
