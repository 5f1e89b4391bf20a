"""One cure: a call of `initialize` or `calibrate`, which `diagnose` both runs and prints as code."""

import dataclasses
from collections.abc import Callable

from keras_initx._types import Batch, Initializer, Model
from keras_initx.calibration import calibrate
from keras_initx.diagnostics._rates import set_rate
from keras_initx.initializers import LSUV
from keras_initx.strategies import LoRA, initialize

__all__ = ["CENTERED", "Cure", "Options"]

# The arguments of a call by name. Lists are tuples here, so that a cure can be the key of a dict.
Options = tuple[tuple[str, object], ...]

CENTERED = "initx.initializers.LSUV(remove_mean=True)"

# The code of a law, and the law itself. Both stand here, so that the printed cure is the cure that was tried.
_LAWS: dict[str, Callable[[], Initializer | None]] = {
    "None": lambda: None,
    '"by_role"': lambda: "by_role",
    '"initx>LSUV"': lambda: "initx>LSUV",
    '"initx>WithinLayer"': lambda: "initx>WithinLayer",
    CENTERED: lambda: LSUV(remove_mean=True),
    '"LoRA"': lambda: "LoRA",
}
_ALPHA = "initx.strategies.LoRA(alpha="


@dataclasses.dataclass(frozen=True)
class Cure:
    """A call that changes weights, and after it a smaller learning rate, where the new signal needs one.

    Attributes:
        law: The law, as code.
        options: The keyword arguments of the call.
        rate: The learning rate to set after the call; None to keep the model's own.
        note: A comment behind the call.
    """

    law: str
    options: Options = ()
    rate: float | None = None
    note: str = ""

    @property
    def draws(self) -> bool:
        """Whether the call is `initialize`, which needs no data."""
        return self.law in ("None", '"by_role"', '"LoRA"') or self.law.startswith(_ALPHA)

    def apply(self, model: Model, batch: Batch) -> None:
        """Makes the call, without the learning rate."""
        options, made = dict(self.options), self.law.removeprefix(_ALPHA)
        law = _LAWS[self.law]() if made == self.law else LoRA(alpha=float(made.removesuffix(")")))
        if self.draws:
            initialize(model, law, **options)  # type: ignore[arg-type]
        else:
            calibrate(model, batch, law, **options)  # type: ignore[arg-type]

    def __str__(self) -> str:
        """Formats the cure as code over `initx`, `model` and `data`."""
        verb, data = ("initialize", "") if self.draws else ("calibrate", "data, ")
        options = "".join(f", {name}={_code(value)}" for name, value in self.options)
        call = f"initx.{verb}(model, {data}{self.law}{options})"
        return call + self.note if self.rate is None else f"{call}; {set_rate(self.rate)}"


def _code(value: object) -> str:
    """Formats a value as code.

    >>> print(_code("a"), _code(("a", "b")), _code(True))
    "a" ["a", "b"] True
    """
    if isinstance(value, str):
        # `repr` would take single quotes, and the code in the documentation has double quotes.
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"[{', '.join(map(_code, value))}]" if isinstance(value, tuple) else repr(value)
