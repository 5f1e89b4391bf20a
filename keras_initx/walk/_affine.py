"""An activation that numbers scale and shift, as in 1.7 tanh(x) or softplus(x) - log 2."""

import dataclasses
from typing import Any

import keras

from keras_initx._types import Tensor

__all__ = ["Affine", "bare", "with_numbers"]


@dataclasses.dataclass(frozen=True, slots=True)
class Affine:
    """The activation scale * activation(x) + shift.

    >>> print(keras.ops.convert_to_numpy(Affine("relu", 2.0, -1.0)(keras.ops.array([-1.0, 3.0]))))
    [-1.  5.]

    Attributes:
        activation: Keras' name of an activation, or a callable.
        scale: The number that it is multiplied by.
        shift: The number that is added then.
    """

    activation: Any
    scale: float
    shift: float

    def __call__(self, x: Tensor) -> Tensor:
        return self.scale * keras.activations.get(self.activation)(x) + self.shift


def with_numbers(activation: Any, scale: float, shift: float) -> Any:
    """Returns the activation that numbers make of another one; a linear signal stays linear.

    Args:
        activation: Name or callable; None if linear. A softmax stays as it is.
        scale: The number that multiplies it.
        shift: The number that is added then.
    """
    if isinstance(activation, Affine):
        scale, shift = scale * activation.scale, scale * activation.shift + shift
        activation = activation.activation
    plain = isinstance(activation, str) or (callable(activation) and not _mixes(activation))
    if not plain or (scale, shift) == (1.0, 0.0):
        return activation
    return Affine(activation, scale, shift)


def bare(activation: Any) -> Any:
    """Returns an activation without the numbers that scale and shift it."""
    return activation.activation if isinstance(activation, Affine) else activation


def _mixes(activation: Any) -> bool:
    return "softmax" in type(activation).__name__.lower()
