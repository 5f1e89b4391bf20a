"""The optimizers whose steps are known: how the size of a step follows from the gradient and the weights."""

import dataclasses

import keras

from keras_initx._keras_optimizers import leaves_to_adamw
from keras_initx._types import Optimizer, Variable

__all__ = ["KNOWN", "Law", "epsilon_power", "law_of"]

# Keras' class, how it steps, and the power of epsilon: 1 where epsilon is added to the root of the mean
# squared gradient, 2 where it is added before the root, 0 where there is none or it has another meaning.
_TABLE = {
    "Adafactor": ("adafactor", 0),
    "Adagrad": ("adam", 2),
    "Adam": ("adam", 1),
    "AdamW": ("adam", 1),
    "Adamax": ("adam", 1),
    "Lion": ("adam", 0),
    "Muon": ("muon", 1),
    "Nadam": ("adam", 1),
    "RMSprop": ("adam", 2),
    "SGD": ("sgd", 0),
    "ScheduleFreeAdamW": ("adam", 1),
}
KNOWN = tuple(sorted(name.lower() for name in _TABLE))


@dataclasses.dataclass(frozen=True)
class Law:
    """How an optimizer steps.

    Attributes:
        kind: `"adam"` for steps whose entries have the size of the learning rate; `"sgd"` for steps that are
            the gradient times the learning rate, with or without momentum; `"adafactor"` for steps relative
            to the size of the weights; `"muon"` for steps with equal singular values.
        by_shape: Of Muon, whether it multiplies its step by the root of the larger side of the kernel.
        excluded: Of Muon, the layers that it leaves to AdamW.
        embeddings: Of Muon, whether it steps embeddings itself.
    """

    kind: str
    by_shape: bool = False
    excluded: tuple[str, ...] = ()
    embeddings: bool = False

    def is_muon(self, variable: Variable) -> bool:
        """Whether the step of a variable is Muon's own, not that of the AdamW within it."""
        return self.kind == "muon" and not leaves_to_adamw(variable, self.excluded, not self.embeddings)


def law_of(optimizer: "str | Optimizer | type[Optimizer]") -> Law:
    """Returns how an optimizer steps.

    >>> law_of("adamw").kind, law_of(keras.optimizers.SGD(momentum=0.9)).kind
    ('adam', 'sgd')

    Args:
        optimizer: A name of Keras in any case, an optimizer, or the class of one. A subclass of one of Keras'
            classes is taken for that class.

    Raises:
        ValueError: If the optimizer is not known.
    """
    name = optimizer.lower() if isinstance(optimizer, str) else ""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return law_of(optimizer.inner_optimizer)
    cls = optimizer if isinstance(optimizer, type) else type(optimizer)
    found = next((known for known in _TABLE if known.lower() == name), "") or _class_name(cls)
    if not found:
        raise ValueError(
            f"`optimizer` must be one of {list(KNOWN)}, by name, class or object, or of a subclass. "
            f"Received: optimizer={optimizer!r}. For an optimizer of your own that divides each gradient by "
            'its size, as Adam does, pass "adam"; for one that does not, "sgd".'
        )
    if found != "Muon":
        return Law(_TABLE[found][0])
    muon = optimizer if isinstance(optimizer, keras.optimizers.Muon) else keras.optimizers.Muon()
    return Law("muon", muon.rms_rate is not None, tuple(muon.exclude_layers), not muon.exclude_embeddings)


def epsilon_power(cls: type) -> int:
    """Returns the power of a gradient's size that an epsilon of a class has; 0 if the class has none."""
    return _TABLE.get(_class_name(cls), ("", 0))[1]


def _class_name(cls: type) -> str:
    return next(
        (
            c.__name__
            for c in cls.__mro__
            if getattr(keras.optimizers, c.__name__, None) is c and c.__name__ in _TABLE
        ),
        "",
    )
