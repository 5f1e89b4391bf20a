"""Statistics of single tensors: numbers as tensors, since JAX has no values while it differentiates."""

from collections.abc import Sequence
from typing import Any

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
    """Returns mean, second moment and the fraction of NaN and Inf; a float32 tensor of shape (3,).

    >>> ops.convert_to_numpy(signal(ops.convert_to_tensor([1.0, 3.0]))).tolist()
    [2.0, 5.0, 0.0]
    """
    values = ops.cast(ops.stop_gradient(tensor), "float32")
    finite = ops.mean(ops.cast(ops.isfinite(values), "float32"))
    return ops.stack([ops.mean(values), ops.mean(ops.square(values)), 1.0 - finite])


def agreement(tensor: Any) -> Any:
    """Returns the mean cosine of the angle between what two rows of a batch have become.

    >>> float(agreement(ops.convert_to_tensor([[1.0, 0.0], [0.0, 1.0]])))
    0.0
    """
    rows = ops.cast(ops.stop_gradient(tensor), "float32")
    count = rows.shape[0]
    rows = ops.reshape(rows, (count, -1))
    lengths = ops.sqrt(ops.sum(ops.square(rows), axis=1))
    weights = ops.where(lengths > 0, 1.0 / ops.where(lengths > 0, lengths, 1.0), 0.0)
    # The squared length of the sum of unit vectors is the sum of all cosines, a row with itself included.
    total = ops.sum(ops.square(ops.matmul(ops.reshape(weights, (1, count)), rows)))
    return (total - count) / max(count * (count - 1), 1)


def dead_fraction(tensor: Any, axes: Sequence[int]) -> Any:
    """Returns the fraction of units that are 0 wherever they appear.

    >>> float(dead_fraction(ops.convert_to_tensor([[0.0, 1.0], [0.0, 0.0]]), (-1,)))
    0.5

    Args:
        tensor: An activation.
        axes: The axes that index the units.
    """
    values = ops.stop_gradient(tensor)
    units = {axis % len(values.shape) for axis in axes}
    others = tuple(axis for axis in range(len(values.shape)) if axis not in units)
    return ops.mean(ops.cast(ops.max(ops.abs(values), axis=others) == 0, "float32"))


def saturated_fraction(tensor: Any, activation: Any) -> Any:
    """Returns the fraction near the bounds of a bounded activation; None for all others.

    >>> float(saturated_fraction(ops.convert_to_tensor([0.99, -0.99, 0.5, 0.0]), "tanh"))
    0.5
    """
    if not isinstance(activation, str) or activation not in _BOUNDS:
        return None
    low, high = _BOUNDS[activation]
    distance = ops.abs(ops.stop_gradient(tensor) - (low + high) / 2)
    return ops.mean(ops.cast(distance > (0.5 - _MARGIN) * (high - low), "float32"))


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
            return upstream, ops.sum(ops.square(ops.cast(upstream, "float32")))

        return values, gradient

    return identity(tensor, probe)
