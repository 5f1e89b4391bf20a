"""Statistics of single tensors: tensors again where there are no values, as while JAX differentiates."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

__all__ = ["agreement", "dead_fraction", "saturated_fraction", "signal", "tapped"]

# What bounded activations tend to on both sides.
_BOUNDS = {
    "hard_sigmoid": (0.0, 1.0),
    "hard_tanh": (-1.0, 1.0),
    "sigmoid": (0.0, 1.0),
    "softsign": (-1.0, 1.0),
    "tanh": (-1.0, 1.0),
}
_MARGIN = 0.025  # of the range between the bounds: tanh beyond 0.95, where its slope is below 0.1


def signal(tensor: Any) -> Any:
    """Returns mean, second moment and the fraction of NaN and Inf; float32 of shape (3,).

    >>> signal(ops.convert_to_tensor([1.0, 3.0])).tolist()
    [2.0, 5.0, 0.0]
    """
    values, library = _readable(tensor)
    flat = library.reshape(values, (-1,))
    with np.errstate(over="ignore", invalid="ignore"):
        mean, square = library.mean(flat), library.vdot(flat, flat) / flat.shape[0]
    if library is np and np.isfinite(square):  # a pass less
        return np.array([mean, square, 0.0], "float32")
    finite = library.isfinite(flat)
    infinite = 1.0 - library.mean(finite if library is np else ops.cast(finite, "float32"))
    return library.stack([mean, square, infinite])


def agreement(tensor: Any) -> Any:
    """Returns the mean cosine of the angle between what two rows of a batch have become.

    >>> float(agreement(ops.convert_to_tensor([[1.0, 0.0], [0.0, 1.0]])))
    0.0
    """
    values, library = _readable(tensor)
    count = values.shape[0]
    rows = library.reshape(values, (count, -1))
    lengths = library.sqrt(library.einsum("ij,ij->i", rows, rows))
    weights = library.where(lengths > 0, 1.0 / library.where(lengths > 0, lengths, 1.0), 0.0)
    # The squared length of the sum of unit vectors is the sum of all cosines, a row with itself included.
    total = library.sum(library.square(library.matmul(library.reshape(weights, (1, count)), rows)))
    seen = library.sum(library.where(lengths > 0, 1.0, 0.0))
    return (total - seen) / library.maximum(seen * (seen - 1), 1.0)


def dead_fraction(tensor: Any, axes: Sequence[int]) -> Any:
    """Returns the fraction of units that are 0 wherever they appear.

    >>> float(dead_fraction(ops.convert_to_tensor([[0.0, 1.0], [0.0, 0.0]]), (-1,)))
    0.5

    Args:
        tensor: An activation.
        axes: The axes that index the units.
    """
    values, library = _readable(tensor)
    units = {axis % len(values.shape) for axis in axes}
    others = tuple(axis for axis in range(len(values.shape)) if axis not in units)
    lives = library.any(values != 0, axis=others)
    return 1.0 - library.mean(lives if library is np else ops.cast(lives, "float32"))


def saturated_fraction(tensor: Any, activation: Any) -> Any:
    """Returns the fraction near the bounds of a bounded activation; None for all others.

    >>> float(saturated_fraction(ops.convert_to_tensor([0.99, -0.99, 0.5, 0.0]), "tanh"))
    0.5
    """
    if not isinstance(activation, str) or activation not in _BOUNDS:
        return None
    low, high = _BOUNDS[activation]
    values, library = _readable(tensor)
    near = library.abs(values - (low + high) / 2) > (0.5 - _MARGIN) * (high - low)
    return library.mean(near if library is np else ops.cast(near, "float32"))


def tapped(tensor: Any, probe: Any) -> Any:
    """Returns the tensor; the gradient that comes back through it leaves its squared length at the probe.

    Gradients of what lies within a model cannot be asked for on all backends, but the gradient with respect
    to `probe`, a float32 scalar tensor that changes nothing, can be said to be anything.

    >>> from keras_initx.gradients import value_and_gradients
    >>> ones, zero = ops.ones((3,)), ops.zeros(())
    >>> _, (_, found) = value_and_gradients(lambda v: ops.sum(2 * tapped(v[0], v[1])), [ones, zero])
    >>> float(found)
    12.0
    """

    @ops.custom_gradient
    def identity(values: Any, _: Any) -> Any:
        def gradient(*arguments: Any, upstream: Any = None) -> Any:
            upstream = arguments[0] if upstream is None else upstream  # torch names it
            values, library = _readable(upstream)
            flat = library.reshape(values, (-1,))
            return upstream, ops.convert_to_tensor(library.vdot(flat, flat), "float32")

        return values, gradient

    return identity(tensor, probe)


def _readable(tensor: Any) -> tuple[Any, Any]:
    """Returns a tensor, no gradients kept, in float32 or better, and the library that computes on it.

    NumPy reads the buffer of a tensor on the CPU in place, and takes less time than eager operations.
    """
    tensor = ops.stop_gradient(tensor)
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    tensor = tensor if dtype in ("float32", "float64") else ops.cast(tensor, "float32")
    if "Tracer" in type(tensor).__name__ or "cpu" not in str(tensor.device).lower():
        return tensor, ops
    return np.asarray(tensor), np
