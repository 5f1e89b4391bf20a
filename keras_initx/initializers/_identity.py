"""Kernels that pass their input on and draw nothing, and the way from blocks to kernels."""

from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_initx._types import Tensor
from keras_initx.fans import KernelAxes, LayoutLike
from keras_initx.initializers._base import PACKAGE, AxisAware, draw, spread


def split_matrix(initializer: AxisAware, shape: Sequence[int]) -> KernelAxes:
    """Returns the axes of a kernel that has inputs and outputs, or raises ValueError for a vector."""
    if len(shape) < 2:
        raise ValueError(
            f"`shape` must have at least two axes for {type(initializer).__name__}. Received: "
            f"shape={tuple(shape)}. Fill vectors (biases, scales) with `initx>ConstantFill`."
        )
    return initializer.split(shape)


def join_blocks(blocks: Tensor, axes: KernelAxes, shape: Sequence[int], inputs_first: bool = False) -> Tensor:
    """Lays an array of blocks out as the kernel that they belong to.

    Args:
        blocks: Elements in the order batch, field, inputs, outputs. The shape does not matter.
        axes: The roles of the kernel's axes.
        shape: Shape of the kernel.
        inputs_first: Whether the inputs come before the field, as in PyTorch's kernels.
    """
    rows = axes.inputs + axes.field if inputs_first else axes.field + axes.inputs
    order = axes.batch + rows + axes.outputs
    blocks = ops.reshape(blocks, [axes.shape[axis] for axis in order])
    # Transposing by the inverse of `order` puts each axis where the kernel has it. The last reshape joins the
    # axes that `axes.shape` holds apart, such as gates and units.
    return ops.reshape(ops.transpose(blocks, [order.index(axis) for axis in range(len(order))]), tuple(shape))


def at_centre(matrices: Tensor, axes: KernelAxes, shape: Sequence[int]) -> Tensor:
    """Lays matrices out as a kernel that is zero except at the centre of the field.

    The centre is the tap that Keras' padding "same" puts on the input at the same position.

    Args:
        matrices: A tensor (*batch, inputs, outputs). Without batch axes one matrix serves all blocks.
        axes: The roles of the kernel's axes.
        shape: Shape of the kernel.
    """
    taps = np.zeros([axes.shape[axis] for axis in axes.field])
    taps[tuple((size - 1) // 2 for size in taps.shape)] = 1
    taps = ops.cast(ops.reshape(taps, (-1, 1, 1)), keras.backend.standardize_dtype(matrices.dtype))
    batch = [axes.shape[axis] for axis in axes.batch]
    rows, columns = axes.size(axes.field + axes.inputs), axes.size(axes.outputs)
    kernel = ops.reshape(taps * ops.expand_dims(matrices, -3), (*matrices.shape[:-2], rows, columns))
    return join_blocks(spread(kernel, (*batch, rows, columns)), axes, shape)


def fill_centre(matrix: np.ndarray, axes: KernelAxes, shape: Sequence[int], dtype: str | None) -> Tensor:
    """Returns the kernel with a NumPy matrix (inputs, outputs) at the centre of each block."""

    def sample(dtype: str) -> Tensor:
        if 0 in shape:
            return ops.zeros(shape, dtype)
        return at_centre(ops.convert_to_tensor(matrix, dtype), axes, shape)

    return draw(sample, dtype)


class Deterministic(AxisAware):
    """Base of the initializers that know axes and draw nothing.

    Args:
        gain: Positive factor; the size of the kernel is proportional to it.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        input_axes: Axes that an output sums over. None reads them off the shape.
        output_axes: Axes that number the outputs. None reads them off the shape.
    """

    def __init__(
        self,
        gain: float = 1.0,
        layout: LayoutLike | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gain, layout, None, input_axes, output_axes)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {name: value for name, value in super().get_config().items() if name != "seed"}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Returns the initializer of a config. A seed in it has no effect."""
        # EinsumDense adds a seed to the config of every `VarianceScaling`, with or without one.
        return cls(**{name: value for name, value in config.items() if name != "seed"})


@keras.saving.register_keras_serializable(package=PACKAGE)
class IdentityScaled(Deterministic):
    """The identity matrix times a gain.

    Law: W = gain * I. With unequal numbers of inputs and outputs, gain stands on the main diagonal and the
    rest is zero. Each gate, head or expert gets its own identity.

    Choose it for the recurrent kernel of a ReLU RNN (see `IRNN`), which then remembers until it learns
    otherwise, and for layers that should begin as a copy. Do not choose it for more outputs than inputs: the
    surplus units start at zero, all alike. Take `ZerO` or `IDInit` there.

    >>> kernel = IdentityScaled(gain=0.5)((4, 4))
    >>> bool(ops.all(kernel == 0.5 * ops.eye(4)))
    True

    Args:
        gain: Positive value on the diagonal.
        layout: Meaning of the axes where the shape does not tell it, such as
            `{"kind": "gates", "gates": 4}`: a kind, a dict or a `keras_initx.fans.Layout`.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If `gain` is not positive or the layout is unknown; on a call, if the kernel is a vector,
            has a receptive field or does not fit the layout, or `dtype` is not a float.

    Reference:
        Le, Jaitly and Hinton, 2015, "A simple way to initialize recurrent networks of rectified linear
        units" (https://arxiv.org/abs/1504.00941). The gain and the rectangular form are Keras'.
    """

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Builds a kernel and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        axes = split_matrix(self, shape)
        if axes.field:
            raise ValueError(
                "`shape` must not have a receptive field for IdentityScaled. Received: "
                f"shape={tuple(shape)}. Take `initx>Dirac` for convolutions, or name the `layout`."
            )
        matrix = self.gain * np.eye(axes.size(axes.inputs), axes.size(axes.outputs))
        return fill_centre(matrix, axes, shape, dtype)


@keras.saving.register_keras_serializable(package=PACKAGE)
class Dirac(Deterministic):
    """The convolution that copies its input channels, times a gain.

    Law: W = gain * I at the centre of the receptive field, 0 elsewhere. A convolution of stride 1 with
    padding "same" then returns gain * x, channel by channel, for as many channels as there are on both sides.
    Groups copy within themselves if the layout tells their number.

    Choose it for deep stacks without residual connections and for layers that are inserted into a trained
    net. Do not choose it for more outputs than inputs: the surplus channels start at zero, all alike. Take
    `ZerO` or `IDInit` there.

    >>> kernel = Dirac()((3, 3, 2, 2))
    >>> bool(ops.all(kernel[1, 1] == ops.eye(2))), float(ops.sum(kernel))
    (True, 2.0)

    Args:
        gain: Positive value of the entries that are not zero.
        layout: Meaning of the axes where the shape does not tell it: `"depthwise"`, `"transposed"`, or
            `{"kind": "conv", "groups": 4}`, also as a `keras_initx.fans.Layout`.
        input_axes: Axes that an output sums over. A kernel with axes has no field and is refused on a call.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If `gain` is not positive or the layout is unknown; on a call, if the kernel has no
            receptive field or does not fit the layout, or `dtype` is not a float.

    Reference:
        Zagoruyko and Komodakis, 2017, "DiracNets" (https://arxiv.org/abs/1706.00388), as in
        `torch.nn.init.dirac_`. Deviation: along an axis of even size k the tap is (k - 1) // 2, which Keras'
        padding "same" centres; PyTorch takes k // 2.
    """

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Builds a kernel and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        axes = split_matrix(self, shape)
        if not axes.field:
            raise ValueError(
                "`shape` must have a receptive field for Dirac. Received: "
                f"shape={tuple(shape)}. Take `initx>IdentityScaled` for matrices."
            )
        matrix = self.gain * np.eye(axes.size(axes.inputs), axes.size(axes.outputs))
        return fill_centre(matrix, axes, shape, dtype)


@keras.saving.register_keras_serializable(package=PACKAGE)
class ZerO(Deterministic):
    """Identity and Hadamard matrices: an initialization of zeros and ones, without randomness.

    Law: with at most as many outputs as inputs, W = gain * I, with gain on the main diagonal. With more
    outputs than inputs, W is gain / sqrt(p) times the corner of the Hadamard matrix of size
    p = 2^ceil(log2 outputs). Its entries are +-gain / sqrt(p). No two units begin alike, as the surplus units
    of a cut identity do. Convolutions have this matrix at the centre of the field. If the number of outputs
    is a power of two, the layer is an isometry (times gain).

    Choose it for residual networks with reproducible runs, with the last layer of each branch at zero. Do not
    choose it for plain ReLU nets: their units die in the same places at each layer.

    >>> kernel = ZerO()((3, 8))
    >>> bool(ops.max(ops.abs(kernel @ ops.transpose(kernel) - ops.eye(3))) < 1e-6)
    True

    Args:
        gain: Positive factor of the kernel.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If `gain` is not positive or the layout is unknown; on a call, if the shape has fewer than
            two axes or does not fit the layout, or `dtype` is not a float.

    Reference:
        Zhao, Schaefer and Anandkumar, 2022, "ZerO initialization: initializing neural networks with only
        zeros and ones", algorithms 1 and 2 (https://arxiv.org/abs/2110.12661). The constant is 2^(-c/2) with
        c = ceil(log2 outputs), as in the authors' code. Deviation: along an axis of even size k the centre is
        (k - 1) // 2, which Keras' padding "same" centres; public code for convolutions takes k // 2.
    """

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Builds a kernel and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        axes = split_matrix(self, shape)
        inputs, outputs = axes.size(axes.inputs), axes.size(axes.outputs)
        matrix = np.eye(inputs, outputs) if outputs <= inputs else _hadamard(inputs, outputs)
        return fill_centre(self.gain * matrix, axes, shape, dtype)


def _hadamard(rows: int, columns: int) -> np.ndarray:
    """Returns the corner of the orthonormal Sylvester-Hadamard matrix that has at least `columns` columns."""
    # The sign of an entry is the parity of the bits that its row and its column have in common. Each shift
    # folds the upper half of the bits onto the lower half, until bit 0 holds the parity.
    common = np.arange(rows, dtype=np.int32)[:, None] & np.arange(columns, dtype=np.int32)
    for shift in (16, 8, 4, 2, 1):
        common ^= common >> shift
    return (1 - 2 * (common & 1)) * 2.0 ** (-(columns - 1).bit_length() / 2)
