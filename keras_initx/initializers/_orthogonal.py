"""The orthogonal family: kernels with orthonormal rows or columns."""

import math
from collections.abc import Sequence
from typing import Any, Unpack

import keras
from keras import ops

from keras_initx._types import Tensor
from keras_initx.initializers._base import PACKAGE, AxisAware, KernelOptions, call_seed, draw
from keras_initx.initializers._haar import draw_haar


@keras.saving.register_keras_serializable(package=PACKAGE)
class OrthogonalScaled(AxisAware):
    """A uniformly (Haar) distributed semi-orthogonal matrix times a gain.

    Law: all singular values of the kernel are equal to gain, where the kernel counts as a matrix of fan_in
    rows and fan_out columns. A contracting or square layer (fan_in >= fan_out) therefore gives unit-variance
    inputs the variance gain^2; an expanding layer gives them gain^2 * fan_in / fan_out. With `preserve_norm`
    the kernel is multiplied by the missing factor: the outputs of an expanding layer, and of a strided
    transposed convolution, have variance gain^2, too.

    Choose it for deep plain nets. It keeps the whole spectrum of the Jacobian near one, where independent
    weights keep only its mean. It takes about the time of a matrix product of the kernel with itself. For a
    convolution it makes a matrix orthogonal, not the convolution: take `DeltaOrthogonal` or `ConvOrthogonal`
    for that.

    Without axes and layout the last axis holds the outputs and all other axes the inputs, as in Keras. With
    axes (EinsumDense and attention give them) the matrix has the true inputs and outputs. An axis in neither
    is a batch axis: each head or expert gets its own matrix. So does each gate, group or depthwise channel of
    a `layout`.

    >>> kernel = OrthogonalScaled(gain=2.0, seed=1)((64, 32))
    >>> gram = ops.transpose(kernel) @ kernel
    >>> bool(ops.max(ops.abs(gram - 4.0 * ops.eye(32))) < 1e-5)
    True

    Args:
        gain: Positive value of all singular values.
        preserve_norm: Whether to multiply by max(1, sqrt(columns / rows)) and by the square root of the
            strides of a transposed convolution, which leave each output fewer inputs.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If `gain` is not positive or the layout is unknown; on a call, if the shape has fewer than
            two axes or does not fit the layout, or `dtype` is not a float.

    Reference:
        Saxe, McClelland and Ganguli, 2014 (https://arxiv.org/abs/1312.6120); Mezzadri, 2007, section 5, for
        the signs that make the QR factor Haar distributed (https://arxiv.org/abs/math-ph/0609050); Martens et
        al., 2021, for `preserve_norm` (scaled uniform orthogonal, https://arxiv.org/abs/2110.01765). Half
        precision is computed in float32.
    """

    def __init__(
        self, gain: float = 1.0, preserve_norm: bool = False, **kernel: Unpack[KernelOptions]
    ) -> None:
        super().__init__(gain, **kernel)
        self.preserve_norm = bool(preserve_norm)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws a kernel and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        return draw_orthogonal(self, shape, dtype, self.preserve_norm)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"preserve_norm": self.preserve_norm}


def draw_orthogonal(
    initializer: AxisAware, shape: Sequence[int], dtype: str | None, preserve_norm: bool = False
) -> Tensor:
    """Draws a scaled semi-orthogonal kernel with the gain, seed and axes of `initializer`.

    Args:
        initializer: The initializer with the gain, seed, axes and layout to use.
        shape: Shape of the kernel, at least two axes.
        dtype: A float dtype; None for `keras.config.floatx()`.
        preserve_norm: Whether outputs keep variance gain^2 where there are more outputs than inputs.

    Returns:
        The kernel, in this shape and dtype.

    Raises:
        ValueError: If the shape has fewer than two axes, or `dtype` is not a float.
    """
    shape = tuple(shape)
    if len(shape) < 2:
        raise ValueError(
            f"`shape` must have at least two axes for an orthogonal kernel. Received: shape={shape}. "
            "Draw vectors (biases, scales) with `initx>RandomScaled` or `initx>ConstantFill`."
        )
    axes = initializer.split(shape)
    order = axes.batch + axes.field + axes.inputs + axes.outputs
    rows, columns = axes.size(axes.field + axes.inputs), axes.size(axes.outputs)
    blocks = [axes.shape[axis] for axis in axes.batch]
    gain = initializer.gain
    if preserve_norm and rows:
        # An isometry spreads the norm of `rows` inputs over `columns` outputs. A stride leaves each output of
        # a transposed convolution 1 / stride of the inputs.
        gain *= math.sqrt(max(1, columns / rows) * axes.stride_in)

    def sample(dtype: str) -> Tensor:
        if 0 in shape:
            return ops.zeros(shape, dtype)
        matrix = draw_haar(
            blocks, rows, columns, dtype, lambda label: call_seed(initializer.seed, shape, label)
        )
        # The kernel may be of a gigabyte: no product and no copy that changes nothing.
        if gain != 1:
            matrix = gain * matrix
        # The matrices come as (*batch, *field, *inputs, *outputs). Bring each axis to its place.
        if order != tuple(range(len(order))):
            matrix = ops.reshape(matrix, [axes.shape[axis] for axis in order])
            matrix = ops.transpose(matrix, [order.index(axis) for axis in range(len(order))])
        return ops.reshape(matrix, shape)

    return draw(sample, dtype)
