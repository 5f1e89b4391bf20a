"""The initializer under test, and the questions that decide which checks apply to it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_initx._types import Initializer, Layer
from keras_initx.initializers import needs_of

__all__ = [
    "Case",
    "bias_class",
    "config_of",
    "has_own_repr",
    "head_class",
    "holds_seed",
    "law_method",
    "shapes_of",
]

_KERNELS = ((6, 4), (4, 6), (3, 5, 7), (3, 3, 4, 8), (2, 2, 2, 4, 3))
_BIASES = ((6,),)


@dataclasses.dataclass(frozen=True)
class Case:
    """A class of initializers with everything that the checks have to know about it.

    >>> from keras_initx.initializers import HeScaled
    >>> case = Case(HeScaled, {"gain": 2.0})
    >>> case.make(seed=3)
    HeScaled(gain=2.0, seed=3)

    Args:
        cls: The class. Register it with Keras: `@keras.saving.register_keras_serializable(package="mine")`.
        arguments: Arguments of the constructor, in the form in which `get_config` returns them. Choose values
            that differ from the defaults, so that a lost argument shows. Give a law over the model few
            `steps`.
        shapes: Shapes that the class is for. Empty means kernels of 2 to 5 axes, or a bias of 6 units for a
            class with `weight = "bias"`.
        layer: Function that makes a layer without an activation around an initializer. None means a dense
            layer of 6 units, with the initializer as `kernel_initializer` or as `bias_initializer`. Give a
            layer if the class is not for every kernel.
        input_shape: Shape of the input of this layer, without the axis of rows. The checks feed floats.

    Raises:
        ValueError: If `cls` is not a class of Keras initializers.
    """

    cls: type[keras.initializers.Initializer]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shapes: Sequence[tuple[int, ...]] = ()
    layer: Callable[[Initializer], Layer] | None = None
    input_shape: tuple[int, ...] = (4,)

    def __post_init__(self) -> None:
        if not (isinstance(self.cls, type) and issubclass(self.cls, keras.initializers.Initializer)):
            raise ValueError(
                "`cls` must be a class derived from `keras.initializers.Initializer`. "
                f"Received: cls={self.cls!r}."
            )

    def make(self, **more: object) -> Any:
        """Returns an initializer with the arguments of the case.

        Args:
            more: Arguments that are added, or that replace an argument of the case.
        """
        return self.cls(**{**self.arguments, **more})


def bias_class(case: Case) -> bool:
    """Tells whether the class is for biases."""
    return getattr(case.cls, "weight", "kernel") == "bias"


def head_class(case: Case) -> bool:
    """Tells whether the class is for heads alone: for their biases, or for the whole of them."""
    return bias_class(case) or getattr(case.cls, "scope", "") == "head"


def shapes_of(case: Case) -> Sequence[tuple[int, ...]]:
    """Returns the shapes that the class is for."""
    return case.shapes or (_BIASES if bias_class(case) else _KERNELS)


def config_of(case: Case) -> dict[str, Any]:
    """Returns the config of the initializer; empty if it cannot be made, which a check reports."""
    # `checks` runs while a test runner collects. An error here would hide the check that explains it.
    try:
        return dict(case.make().get_config())
    except Exception:
        return {}


def holds_seed(config: object) -> bool:
    """Tells whether a config, or a config within it, has a seed.

    >>> holds_seed({"scale": 2, "initializer": {"config": {"seed": None}}})
    True
    """
    if not isinstance(config, Mapping):
        return False
    return "seed" in config or any(map(holds_seed, config.values()))


def has_own_repr(case: Case) -> bool:
    """Tells whether the class, or a class that it derives from, defines `__repr__`."""
    return case.cls.__repr__ is not object.__repr__


def law_method(case: Case) -> str:
    """Returns the method by which `calibrate` applies a law; empty for a class that is not a law.

    >>> from keras_initx.initializers import LSUV, HeScaled
    >>> law_method(Case(LSUV)), law_method(Case(HeScaled))
    ('rescale', '')
    """
    cls = case.cls
    if not needs_of(cls):  # every law needs something
        return ""
    if cls.scope == "model":
        return "search"
    if cls.draws_from_inputs:
        return "filters"
    if cls.scope in ("adapter", "head"):
        return {"adapter": "start", "head": "solve"}[cls.scope]
    return "means" if cls.weight == "bias" else "rescale"
