"""Statistics of single tensors, as tensors or NumPy arrays.

While JAX differentiates, tensors are tracers without values, and statistics are tracers, too.
"""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initx._types import Activation, Tensor
from keras_initx.uses import Taken, gradient_at_operand

__all__ = [
    "agreement",
    "dead_fraction",
    "saturated_fraction",
    "signal",
    "squared_length",
    "tapped",
    "tapped_through",
]

# The limits of bounded activations on both sides.
_BOUNDS = {
    "hard_sigmoid": (0.0, 1.0),
    "hard_tanh": (-1.0, 1.0),
    "sigmoid": (0.0, 1.0),
    "softsign": (-1.0, 1.0),
    "tanh": (-1.0, 1.0),
}
_MARGIN = 0.025  # share of the range: for tanh beyond 0.95, where its slope is below 0.1


def signal(tensor: Tensor) -> Tensor:
    """Returns the mean, the second moment and the fraction of NaN and Inf, as float32 of shape (3,).

    >>> signal(ops.convert_to_tensor([1.0, 3.0])).tolist()
    [2.0, 5.0, 0.0]
    """
    values, library = _readable(tensor)
    flat = library.reshape(values, (-1,))
    with np.errstate(over="ignore", invalid="ignore"):
        mean, square = library.mean(flat), library.vdot(flat, flat) / flat.shape[0]
    # A finite square says that all values are finite, which saves a pass over the tensor.
    if library is np and np.isfinite(square):
        return np.array([mean, square, 0.0], "float32")
    finite = library.isfinite(flat)
    infinite = 1.0 - library.mean(finite if library is np else ops.cast(finite, "float32"))
    return library.stack([mean, square, infinite])


def agreement(tensor: Tensor) -> Tensor:
    """Returns the mean cosine of the angle between two rows of a batch, over all pairs of rows.

    Rows of zeros are left out.

    >>> float(agreement(ops.convert_to_tensor([[1.0, 0.0], [0.0, 1.0]])))
    0.0
    """
    values, library = _readable(tensor)
    count = values.shape[0]
    rows = library.reshape(values, (count, -1))
    lengths = library.sqrt(library.einsum("ij,ij->i", rows, rows))
    weights = library.where(lengths > 0, 1.0 / library.where(lengths > 0, lengths, 1.0), 0.0)
    # For unit vectors u_i, |sum of u_i|^2 is the sum of all u_i . u_j. The pairs i = j add 1 each. So the sum
    # over pairs takes time linear in the rows, not quadratic.
    total = library.sum(library.square(library.matmul(library.reshape(weights, (1, count)), rows)))
    seen = library.sum(library.where(lengths > 0, 1.0, 0.0))
    return (total - seen) / library.maximum(seen * (seen - 1), 1.0)


def dead_fraction(tensor: Tensor, axes: Sequence[int]) -> Tensor:
    """Returns the fraction of units that are 0 on all rows and positions.

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


def saturated_fraction(tensor: Tensor, activation: Activation) -> Tensor | None:
    """Returns the fraction of an activation that is near its bounds. None for an activation without bounds.

    >>> float(saturated_fraction(ops.convert_to_tensor([0.99, -0.99, 0.5, 0.0]), "tanh"))
    0.5

    Args:
        tensor: The output of the activation.
        activation: The activation. Only names are known; a function has no bounds that can be looked up.
    """
    if not isinstance(activation, str) or activation not in _BOUNDS:
        return None
    low, high = _BOUNDS[activation]
    values, library = _readable(tensor)
    near = library.abs(values - (low + high) / 2) > (0.5 - _MARGIN) * (high - low)
    return library.mean(near if library is np else ops.cast(near, "float32"))


def squared_length(tensor: Tensor) -> Any:
    """Returns the sum of the squares of all entries.

    >>> float(squared_length(ops.convert_to_tensor([3.0, 4.0])))
    25.0
    """
    values, library = _readable(tensor)
    flat = library.reshape(values, (-1,))
    return library.vdot(flat, flat)


def tapped(tensor: Tensor, probe: Tensor) -> Tensor:
    """Returns the tensor. The gradient that comes back through it leaves its squared length at the probe.

    Not all backends give gradients with respect to a tensor inside a model. They all give gradients with
    respect to `probe`, a scalar that is passed in and changes nothing, and they all let a function define its
    own gradient. So the gradient "with respect to the probe" is defined as the squared length of the gradient
    at the tensor.

    >>> from keras_initx.gradients import value_and_gradients
    >>> ones, zero = ops.ones((3,)), ops.zeros(())
    >>> _, (_, found) = value_and_gradients(lambda v: ops.sum(2 * tapped(v[0], v[1])), [ones, zero])
    >>> float(found)
    12.0

    Args:
        tensor: A float tensor inside a model.
        probe: A float32 scalar tensor.
    """

    @ops.custom_gradient
    def identity(values: Tensor, _: Tensor) -> tuple[Tensor, Callable[..., Any]]:
        def gradient(*arguments: Tensor, upstream: Tensor | None = None) -> tuple[Tensor, Tensor]:
            # Keras passes the gradient by name on torch, and by position on the other backends.
            upstream = arguments[0] if upstream is None else upstream
            return upstream, ops.convert_to_tensor(squared_length(upstream), "float32")

        return values, gradient

    return identity(tensor, probe)


def tapped_through(taken: Taken, before: Tensor, after: Tensor) -> Tensor:
    """Returns the output of an operation, and taps its gradient and the gradient at its signal, on JAX.

    Args:
        taken: An operation that took a weight.
        before: The probe of the signal.
        after: The probe of the output.
    """

    # JAX wants all tensors that the gradient is made of as arguments.
    @ops.custom_gradient
    def identity(values: Tensor, _: Tensor, __: Tensor, kernel: Tensor) -> tuple[Tensor, Callable[..., Any]]:
        def gradient(upstream: Tensor) -> tuple[Tensor, ...]:
            found = gradient_at_operand(taken, upstream, kernel)
            square = ops.zeros((), "float32") if found is None else squared_length(found)
            return upstream, square, squared_length(upstream), ops.zeros_like(kernel)

        return values, gradient

    return identity(taken.output, before, after, taken.operation.inputs[taken.kernel])


def _readable(tensor: Tensor) -> tuple[Tensor, ModuleType]:
    """Returns the values in float32 or float64, without gradients, and the library that computes on them.

    On the CPU this is NumPy, which reads the memory of a tensor in place, and takes less time than eager
    operations of a backend.
    """
    tensor = ops.stop_gradient(tensor)
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    tensor = tensor if dtype in ("float32", "float64") else ops.cast(tensor, "float32")
    if "Tracer" in type(tensor).__name__ or "cpu" not in str(tensor.device).lower():
        return tensor, ops
    return np.asarray(tensor), np
