"""The orthogonal family: kernels whose rows or columns are orthonormal."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_initx.fans import split_axes
from keras_initx.initializers._base import PACKAGE, AxisAware, draw


@keras.saving.register_keras_serializable(package=PACKAGE)
class OrthogonalScaled(AxisAware):
    """A uniformly (Haar) distributed semi-orthogonal matrix times a gain.

    Law: the kernel as a matrix of fan_in rows and fan_out columns has all singular values equal to gain.
    A contracting or square layer (fan_in >= fan_out) therefore gives unit-variance inputs the variance
    gain^2, an expanding one gain^2 * fan_in / fan_out. Choose it for deep plain nets, where it keeps the
    whole spectrum of the Jacobian near one instead of only its mean; it costs a QR decomposition.

    Without axes the last axis holds the outputs and all others the inputs, as in Keras. With axes
    (EinsumDense and attention give them) the matrix has the true inputs and outputs, and an axis in neither
    is a batch axis: each head or expert gets a matrix of its own.

    >>> kernel = OrthogonalScaled(gain=2.0, seed=1)((64, 32))
    >>> gram = ops.transpose(kernel) @ kernel
    >>> bool(ops.max(ops.abs(gram - 4.0 * ops.eye(32))) < 1e-5)
    True

    Args:
        gain: Positive value of all singular values.
        seed: None, an int or a `keras.random.SeedGenerator`; None draws afresh at each call and follows
            `keras.utils.set_random_seed`.
        input_axes: Axes that an output sums over; EinsumDense and the attention layers set them.
        output_axes: Axes that index the outputs; set together with `input_axes`.

    Raises:
        ValueError: If `gain` is not positive; on a call, if the shape has fewer than two axes or `dtype` is
            not a float.

    Reference:
        Saxe, McClelland and Ganguli, 2014 (https://arxiv.org/abs/1312.6120); Mezzadri, 2007, section 5, for
        the signs that make the QR factor Haar distributed (https://arxiv.org/abs/math-ph/0609050). Half
        precision is computed in float32.
    """

    def __init__(
        self,
        gain: float = 1.0,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gain, seed, input_axes, output_axes)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Draws a kernel of the given shape and float dtype (Keras' floatx when None)."""
        return draw_orthogonal(self, tuple(shape), dtype)


def draw_orthogonal(initializer: AxisAware, shape: tuple[int, ...], dtype: Any) -> Any:
    """Draws a scaled semi-orthogonal kernel with the gain, seed and axes of `initializer`.

    Args:
        initializer: Where gain, seed and axes come from.
        shape: Shape of the kernel, at least two axes.
        dtype: A float dtype, or None for Keras' floatx.

    Returns:
        The kernel.

    Raises:
        ValueError: If the shape has fewer than two axes.
    """
    if len(shape) < 2:
        raise ValueError(
            f"An orthogonal kernel must have at least two axes. Received: shape={shape}. "
            "Draw vectors (biases, scales) with `initx>RandomScaled` or `initx>ConstantFill`."
        )
    if initializer.input_axes is None or initializer.output_axes is None:
        axes = tuple(range(len(shape)))
        inputs, outputs = axes[:-1], axes[-1:]
    else:
        inputs, outputs = split_axes(len(shape), initializer.input_axes, initializer.output_axes)
    batch = tuple(axis for axis in range(len(shape)) if axis not in inputs + outputs)
    order = batch + inputs + outputs
    ordered = [shape[axis] for axis in order]
    rows, columns = math.prod(shape[a] for a in inputs), math.prod(shape[a] for a in outputs)
    blocks = [shape[axis] for axis in batch]
    seed = initializer.call_seed()

    def sample(dtype: str) -> Any:
        if 0 in shape:
            return ops.zeros(shape, dtype)
        matrix = initializer.gain * _haar(blocks, rows, columns, dtype, seed)
        return ops.transpose(ops.reshape(matrix, ordered), [order.index(axis) for axis in range(len(shape))])

    return draw(sample, dtype)


def _haar(blocks: list[int], rows: int, columns: int, dtype: str, seed: Any) -> Any:
    """Draws semi-orthogonal matrices of shape (*blocks, rows, columns)."""
    tall = (*blocks, max(rows, columns), min(rows, columns))
    q, r = ops.qr(keras.random.normal(tall, dtype=dtype, seed=seed))
    signs = ops.where(ops.diagonal(r, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
    q = q * ops.expand_dims(ops.cast(signs, dtype), -2)
    return ops.swapaxes(q, -2, -1) if rows < columns else q
