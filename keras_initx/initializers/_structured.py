"""Kernels whose parts repeat or mirror each other: looks-linear, sinusoidal, sub-pixel."""

import math
from collections.abc import Sequence
from typing import Any, Unpack

import keras
import numpy as np
from keras import ops

from keras_initx._types import Initializer, Tensor
from keras_initx.checks import check_choice, check_count
from keras_initx.fans import KernelAxes
from keras_initx.initializers._base import PACKAGE, AxisAware, KernelOptions, Shown, call_seed, draw, spread
from keras_initx.initializers._haar import draw_haar
from keras_initx.initializers._identity import Deterministic, at_centre, join_blocks, split_matrix

_POSITIONS = ("first", "hidden", "last")


@keras.saving.register_keras_serializable(package=PACKAGE)
class LooksLinear(AxisAware):
    """Mirrored weights that make a deep ReLU net begin as a linear net.

    Law: W0 is a matrix of half the size. A first layer has W = (W0, -W0) side by side, a hidden layer
    W = [[W0, -W0], [-W0, W0]], and a last layer W = (W0; -W0) one above the other. relu(z) - relu(-z) = z, so
    a net of such layers with biases 0 is exactly the product of its W0, which is linear. With orthogonal W0
    of equal widths, all singular values of its Jacobian are the product of the gains, at any depth. A
    convolution has the matrix at the centre of its field.

    Choose it for deep plain ReLU nets. Do not choose it for other activations, nor behind layers that break
    the mirror symmetry (max pooling, normalization of single channels).

    >>> first = LooksLinear(position="first", seed=1)((4, 8))
    >>> last = LooksLinear(position="last", seed=2)((8, 4))
    >>> x = ops.ones((1, 4))
    >>> y, mirrored = ops.relu(x @ first) @ last, ops.relu(-x @ first) @ last
    >>> bool(ops.max(ops.abs(y + mirrored)) < 1e-6)
    True

    Args:
        gain: Positive factor of the singular values, or of the normal's standard deviation.
        position: Place of the layer in the net: `"first"`, `"hidden"` or `"last"`.
        distribution: Distribution of W0: `"orthogonal"` (semi-orthogonal, Haar), or `"normal"` with variance
            1 / rows.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If an argument is outside its range or the layout is unknown; on a call, if a side that
            must be halved is odd, the shape has fewer than two axes or does not fit the layout, or `dtype` is
            not a float.

    Reference:
        Balduzzi et al., 2017, "The shattered gradients problem: if resnets are the answer, then what is the
        question?" (https://arxiv.org/abs/1702.08591), for concatenated ReLUs; Burkholz and
        Dubatovka, 2019, "Initialization of ReLUs for dynamical isometry" (https://arxiv.org/abs/1806.06362),
        for the mirrored block of plain ReLUs. Deviation: the forms for the first and the last layer are
        derived here, from the same identity.
    """

    def __init__(
        self,
        gain: float = 1.0,
        position: str = "hidden",
        distribution: str = "orthogonal",
        **kernel: Unpack[KernelOptions],
    ) -> None:
        super().__init__(gain, **kernel)
        self.position = check_choice("position", position, _POSITIONS)
        self.distribution = check_choice("distribution", distribution, ("normal", "orthogonal"))

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws a kernel and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        axes = split_matrix(self, shape)
        rows, columns = self._halves(axes, shape)

        def sample(dtype: str) -> Tensor:
            if 0 in shape:
                return ops.zeros(shape, dtype)
            matrix = self._draw_block(axes, rows, columns, shape, dtype)
            # A first layer has real inputs and mirrored outputs, a last layer the other way round.
            if self.position != "last":
                matrix = ops.concatenate([matrix, -matrix], -1)
            if self.position != "first":
                matrix = ops.concatenate([matrix, -matrix], -2)
            return at_centre(matrix, axes, shape)

        return draw(sample, dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"position": self.position, "distribution": self.distribution}

    def _halves(self, axes: KernelAxes, shape: Sequence[int]) -> tuple[int, int]:
        rows, columns = axes.size(axes.inputs), axes.size(axes.outputs)
        odd_rows, odd_columns = self.position != "first" and rows % 2, self.position != "last" and columns % 2
        if odd_rows or odd_columns:
            raise ValueError(
                f"`shape` must have an even number of {'inputs' if odd_rows else 'outputs'} for a "
                f"LooksLinear layer in position {self.position!r}. Received: shape={tuple(shape)}. "
                "Give the layer an even number of units, or say which `position` it has."
            )
        return (
            rows // 2 if self.position != "first" else rows,
            columns // 2 if self.position != "last" else columns,
        )

    def _draw_block(
        self, axes: KernelAxes, rows: int, columns: int, shape: Sequence[int], dtype: str
    ) -> Tensor:
        blocks = [axes.shape[axis] for axis in axes.batch]
        if self.distribution == "normal":
            stddev = self.gain / math.sqrt(rows)
            return keras.random.normal(
                (*blocks, rows, columns), 0.0, stddev, dtype, call_seed(self.seed, shape)
            )
        return self.gain * draw_haar(
            blocks, rows, columns, dtype, lambda label: call_seed(self.seed, shape, label)
        )


@keras.saving.register_keras_serializable(package=PACKAGE)
class Sinusoidal(Deterministic):
    """Sine waves, one frequency for each output, with the variance of Glorot's law and nothing random.

    Law: W[i, j] = a sin(2 pi i j / n + 2 pi i / m) for output i = 1..m and input j = 0..n-1. The factor a
    makes the sample variance over each block exactly gain^2 * 2 / (fan_in + fan_out). The weights of each
    output sum to zero over the inputs (except at frequencies that are multiples of n), so no unit is biased
    to one side. All blocks (groups, heads, channels) are alike.

    Choose it for reproducible starts in place of Glorot's law. Do not choose it where m is much larger than
    n: frequencies repeat after n outputs.

    >>> kernel = Sinusoidal()((60, 40))
    >>> print(f"{float(keras.ops.var(kernel)) * 2400 / 2399:.4f}")
    0.0200

    Args:
        gain: Positive factor of the standard deviation.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If `gain` is not positive or the layout is unknown; on a call, if the shape has fewer than
            two axes or does not fit the layout, if a block is so small that all its sines are zero, such as
            (1, 1) or (2, 2), or if `dtype` is not a float.

    Reference:
        Fernandez-Hernandez et al., 2025, "Sinusoidal initialization, time for a new start"
        (https://arxiv.org/abs/2505.12909), as in the authors' code, which also gives the order of a
        convolution's inputs: channels slow, field fast. Deviation: the authors count fan_out without the
        field; here fan_out is counted by `keras_initx.fans.compute_fans`, with the field.
    """

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Builds a kernel and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        axes = split_matrix(self, shape)
        if 0 in shape:
            return draw(lambda dtype: ops.zeros(shape, dtype), dtype)
        rows, columns = axes.size(axes.field + axes.inputs), axes.size(axes.outputs)
        sines = _sines(rows, columns)
        # No factor gives a variance to sines that are all zero up to rounding.
        if abs(sines).max() < 1e-9:
            raise ValueError(
                "`shape` must give each block of Sinusoidal at least 3 inputs or outputs. Received: "
                f"shape={tuple(shape)}. Take `initx>GlorotScaled` for layers of one or two units."
            )
        fans = axes.fans
        # The sample variance (ddof=1), as in the authors' code.
        factor = self.gain * math.sqrt(2 / (fans.fan_in + fans.fan_out) / sines.var(ddof=1))
        batch = [axes.shape[axis] for axis in axes.batch]

        def sample(dtype: str) -> Tensor:
            matrix = spread(ops.convert_to_tensor(factor * sines, dtype), (*batch, rows, columns))
            return join_blocks(matrix, axes, shape, inputs_first=True)

        return draw(sample, dtype)


def _sines(rows: int, columns: int) -> np.ndarray:
    """Returns the waves of an input (row) and output (column) as an array (rows, columns)."""
    # Reduced modulo a full turn in whole numbers: a large product of indices would lose digits in a float.
    row, column = np.arange(rows, dtype=np.int64)[:, None], np.arange(1, columns + 1, dtype=np.int64)
    phase = (row * column % rows) / rows + column / columns
    return np.sin(2 * np.pi * phase)


@keras.saving.register_keras_serializable(package=PACKAGE)
class ICNR(Shown):
    """Sub-pixel convolutions that begin as nearest-neighbour upsampling, free of checkerboards.

    Law: `initializer` draws a kernel with 1 / scale^d of the outputs, d the number of field axes, and this
    kernel is repeated. So all outputs that the pixel shuffle puts into one block of scale^d pixels are equal.
    The channels are in the order of TensorFlow's depth_to_space: the channel within a pixel is fast. With
    `layout="transposed"`, for a transposed convolution with strides equal to scale, each element is repeated
    scale times along each field axis. With padding "valid" the outputs then come in equal blocks.

    Choose it for the upsampling layers of generators and super-resolution nets. Do not choose it before
    PyTorch's pixel shuffle, which has another order of channels.

    >>> kernel = ICNR(scale=2)((3, 3, 8, 12))
    >>> bool(ops.all(kernel[..., :3] == kernel[..., 9:]))
    True

    Args:
        scale: Factor of the upsampling, at least 1.
        initializer: The initializer that draws the smaller kernel: a name, a config or an instance. It counts
            the fans of the smaller kernel, in the layout of a convolution (*field, inputs, outputs), even if
            `layout` is `"transposed"`.
        layout: None for a convolution before a pixel shuffle; `"transposed"` for a transposed convolution.

    Raises:
        ValueError: If an argument is outside its range; on a call, if the kernel has no field, or if scale
            does not divide its outputs (with `"transposed"`: each size of its field).

    Reference:
        Aitken et al., 2017, "Checkerboard artifact free sub-pixel convolution"
        (https://arxiv.org/abs/1707.02937).
    """

    def __init__(
        self, scale: int = 2, initializer: Initializer = "initx>HeScaled", layout: str | None = None
    ) -> None:
        self.scale = check_count("scale", scale)
        self.initializer = keras.initializers.get(initializer)
        if self.initializer is None:
            raise ValueError("`initializer` must not be None. Received: initializer=None. Give a name.")
        self.layout = None if layout is None else check_choice("layout", layout, ("transposed",))

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws a kernel and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        shape = tuple(shape)
        field, copies = shape[:-2], self.scale ** (len(shape) - 2)
        transposed = self.layout == "transposed"
        if (
            len(shape) < 3
            or any(size % self.scale for size in field if transposed)
            or (not transposed and shape[-1] % copies)
        ):
            raise ValueError(
                "`shape` must be a convolution's (at least three axes), with "
                f"{'field sizes' if transposed else 'outputs'} that are multiples of "
                f"{self.scale if transposed else copies}, for ICNR. Received: shape={shape}, "
                f"scale={self.scale}. Change the layer's {'kernel_size' if transposed else 'filters'}."
            )
        if not transposed:
            # `draw` keeps half precision exact for Keras' own initializers, too. Whole copies stand side by
            # side, because depth_to_space takes the channels of one pixel together.
            small = (*shape[:-1], shape[-1] // copies)
            kernel = draw(lambda dtype: self.initializer(small, dtype=dtype), dtype)
            return ops.tile(kernel, [1] * (len(shape) - 1) + [copies])
        # The initializer counts fans as in a convolution: hand it the inputs before the outputs, then swap.
        small = (*(size // self.scale for size in field), shape[-1], shape[-2])
        kernel = ops.swapaxes(draw(lambda dtype: self.initializer(small, dtype=dtype), dtype), -2, -1)
        for axis in range(len(field)):
            kernel = ops.repeat(kernel, self.scale, axis)
        return kernel

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        initializer = keras.saving.serialize_keras_object(self.initializer)
        return {"scale": self.scale, "initializer": initializer, "layout": self.layout}
