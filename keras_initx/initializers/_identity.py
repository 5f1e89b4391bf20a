"""Kernels that pass their input on and draw nothing, and how blocks become kernels."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initx.fans import KernelAxes, Layout
from keras_initx.initializers._base import PACKAGE, AxisAware, draw, spread


def split_matrix(initializer: AxisAware, shape: Sequence[int]) -> KernelAxes:
    """Returns the axes of a kernel that has inputs and outputs, or raises for a vector."""
    if len(shape) < 2:
        raise ValueError(
            f"`shape` must have at least two axes for {type(initializer).__name__}. Received: "
            f"shape={tuple(shape)}. Fill vectors (biases, scales) with `initx>ConstantFill`."
        )
    return initializer.split(shape)


def join_blocks(blocks: Any, axes: KernelAxes, shape: Sequence[int], inputs_first: bool = False) -> Any:
    """Lays an array of blocks out as the kernel that they belong to.

    Args:
        blocks: Elements ordered by batch, field, inputs and outputs, whatever the shape.
        axes: The parts that the kernel's axes play.
        shape: Shape of the kernel.
        inputs_first: Whether the inputs come before the field, as in PyTorch's kernels.
    """
    rows = axes.inputs + axes.field if inputs_first else axes.field + axes.inputs
    order = axes.batch + rows + axes.outputs
    blocks = ops.reshape(blocks, [axes.shape[axis] for axis in order])
    return ops.reshape(ops.transpose(blocks, [order.index(axis) for axis in range(len(order))]), tuple(shape))


def at_centre(matrices: Any, axes: KernelAxes, shape: Sequence[int]) -> Any:
    """Lays matrices (*batch, inputs, outputs) out as a kernel that is zero but at the field's centre.

    One matrix without batch axes serves all blocks. The centre is the tap that Keras' padding "same" puts on
    the input at hand.
    """
    taps = np.zeros([axes.shape[axis] for axis in axes.field])
    taps[tuple((size - 1) // 2 for size in taps.shape)] = 1
    taps = ops.cast(ops.reshape(taps, (-1, 1, 1)), keras.backend.standardize_dtype(matrices.dtype))
    batch = [axes.shape[axis] for axis in axes.batch]
    rows, columns = axes.size(axes.field + axes.inputs), axes.size(axes.outputs)
    kernel = ops.reshape(taps * ops.expand_dims(matrices, -3), (*matrices.shape[:-2], rows, columns))
    return join_blocks(spread(kernel, (*batch, rows, columns)), axes, shape)


def fill_centre(matrix: Any, axes: KernelAxes, shape: Sequence[int], dtype: Any) -> Any:
    """Returns the kernel with a NumPy matrix (inputs, outputs) at the centre of each block."""

    def sample(dtype: str) -> Any:
        if 0 in shape:
            return ops.zeros(shape, dtype)
        return at_centre(ops.convert_to_tensor(matrix, dtype), axes, shape)

    return draw(sample, dtype)


class Deterministic(AxisAware):
    """Base of the initializers that know axes and draw nothing.

    EinsumDense hands a seed over whether or not the config has one.

    Args:
        gain: As in `AxisAware`.
        layout: As in `AxisAware`.
        input_axes: As in `AxisAware`.
        output_axes: As in `AxisAware`.
    """

    def __init__(
        self,
        gain: float = 1.0,
        layout: str | Mapping[str, Any] | Layout | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gain, layout, None, input_axes, output_axes)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {name: value for name, value in super().get_config().items() if name != "seed"}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Builds the initializer of a config, whose seed is of no effect."""
        return cls(**{name: value for name, value in config.items() if name != "seed"})


@keras.saving.register_keras_serializable(package=PACKAGE)
class IdentityScaled(Deterministic):
    """The identity matrix times a gain.

    Law: W = gain * I; where inputs and outputs differ in number, ones stand on the main diagonal and the rest
    is zero. Each gate, head or expert gets an identity of its own. Choose it for the recurrent kernel of a
    ReLU RNN (IRNN), which then remembers until it learns otherwise, and for layers that should begin as a
    copy. Do not choose it where outputs outnumber inputs: the surplus units start at zero, all alike.

    >>> kernel = IdentityScaled(gain=0.5)((4, 4))
    >>> bool(ops.all(kernel == 0.5 * ops.eye(4)))
    True

    Args:
        gain: Positive value on the diagonal.
        layout: As in `RandomScaled`.
        input_axes: Axes that an output sums over; EinsumDense and the attention layers set them.
        output_axes: Axes that index the outputs; set together with `input_axes`.

    Raises:
        ValueError: If `gain` is not positive; on a call, if the kernel is a vector or has a receptive field.

    Reference:
        Le, Jaitly and Hinton, 2015, "A simple way to initialize recurrent networks of rectified linear
        units" (https://arxiv.org/abs/1504.00941). The gain and the rectangular form are Keras'.
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Builds a kernel of the given shape and float dtype (Keras' floatx when None)."""
        axes = split_matrix(self, shape)
        if axes.field:
            raise ValueError(
                "`shape` must be that of a kernel without a receptive field for IdentityScaled. Received: "
                f"shape={tuple(shape)}. Take `initx>Dirac` for convolutions, or name the `layout`."
            )
        matrix = self.gain * np.eye(axes.size(axes.inputs), axes.size(axes.outputs))
        return fill_centre(matrix, axes, shape, dtype)


@keras.saving.register_keras_serializable(package=PACKAGE)
class Dirac(Deterministic):
    """The convolution that copies its input channels, times a gain.

    Law: W = gain * I at the centre of the receptive field, 0 elsewhere, so that a convolution of stride 1
    with padding "same" returns gain * x, channel by channel, as far as there are channels on both sides.
    Groups copy within themselves if the layout tells their number. Choose it for residual-free deep stacks
    and for layers inserted into a trained net. Do not choose it where outputs outnumber inputs: the surplus
    channels start at zero, all alike.

    >>> kernel = Dirac()((3, 3, 2, 2))
    >>> bool(ops.all(kernel[1, 1] == ops.eye(2))), float(ops.sum(kernel))
    (True, 2.0)

    Args:
        gain: Positive value of the entries that are not zero.
        layout: What the axes of the kernel mean where its shape cannot tell: `"depthwise"`, `"transposed"`,
            or `{"kind": "conv", "groups": 4}`.
        input_axes: As in `RandomScaled`; a kernel with axes has no field.
        output_axes: As in `RandomScaled`.

    Raises:
        ValueError: If `gain` is not positive; on a call, if the kernel has no receptive field.

    Reference:
        Zagoruyko and Komodakis, 2017, "DiracNets" (https://arxiv.org/abs/1706.00388), as in
        `torch.nn.init.dirac_`. Along an axis of even size k the tap is (k - 1) // 2, which is the one that
        Keras' padding "same" centres; PyTorch takes k // 2.
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Builds a kernel of the given shape and float dtype (Keras' floatx when None)."""
        axes = split_matrix(self, shape)
        if not axes.field:
            raise ValueError(
                "`shape` must be that of a kernel with a receptive field for Dirac. Received: "
                f"shape={tuple(shape)}. Take `initx>IdentityScaled` for matrices."
            )
        matrix = self.gain * np.eye(axes.size(axes.inputs), axes.size(axes.outputs))
        return fill_centre(matrix, axes, shape, dtype)


@keras.saving.register_keras_serializable(package=PACKAGE)
class ZerO(Deterministic):
    """Identity and Hadamard matrices: an initialization of zeros and ones without randomness.

    Law: with at most as many outputs as inputs W = gain * I, ones on the main diagonal; with more, W is the
    corner of the Hadamard matrix of size p = 2^ceil(log2 outputs), over sqrt(p), times gain: its entries are
    +-1 / sqrt(p), so that unlike with a cut identity no two units begin alike. Convolutions have that matrix
    at the centre of the field. With outputs a power of two the layer is an isometry. Choose it for residual
    networks where runs must be reproducible, with the last layer of each branch at zero; not for plain nets
    of ReLUs, whose units it lets die in the same places at each layer.

    >>> kernel = ZerO()((3, 8))
    >>> bool(ops.max(ops.abs(kernel @ ops.transpose(kernel) - ops.eye(3))) < 1e-6)
    True

    Args:
        gain: Positive factor.
        layout: As in `RandomScaled`.
        input_axes: Axes that an output sums over; EinsumDense and the attention layers set them.
        output_axes: Axes that index the outputs; set together with `input_axes`.

    Raises:
        ValueError: If `gain` is not positive; on a call, if the shape has fewer than two axes.

    Reference:
        Zhao, Schaefer and Anandkumar, 2022, "ZerO initialization: initializing neural networks with only
        zeros and ones", algorithms 1 and 2 (https://arxiv.org/abs/2110.12661). The constant is 2^(-c/2) with
        c = ceil(log2 outputs), as in the authors' code. Along an axis of even size k the centre is (k - 1) //
        2, the tap that Keras' padding "same" centres; public code for convolutions takes k // 2.
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Builds a kernel of the given shape and float dtype (Keras' floatx when None)."""
        axes = split_matrix(self, shape)
        inputs, outputs = axes.size(axes.inputs), axes.size(axes.outputs)
        matrix = np.eye(inputs, outputs) if outputs <= inputs else _hadamard(inputs, outputs)
        return fill_centre(self.gain * matrix, axes, shape, dtype)


def _hadamard(rows: int, columns: int) -> np.ndarray:
    """Returns the corner of the orthonormal Sylvester-Hadamard matrix that has at least `columns` columns."""
    # The sign is the parity of the bits that row and column have in common.
    common = np.arange(rows, dtype=np.int32)[:, None] & np.arange(columns, dtype=np.int32)
    for shift in (16, 8, 4, 2, 1):
        common ^= common >> shift
    return (1 - 2 * (common & 1)) * 2.0 ** (-(columns - 1).bit_length() / 2)
