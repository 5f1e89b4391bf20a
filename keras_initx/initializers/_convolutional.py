"""Convolution kernels that are orthogonal as convolutions, not only as matrices."""

from collections.abc import Sequence

import keras
from keras import ops

from keras_initx._types import Tensor
from keras_initx.fans import KernelAxes
from keras_initx.initializers._base import PACKAGE, AxisAware, call_seed, draw
from keras_initx.initializers._haar import draw_haar
from keras_initx.initializers._identity import at_centre, join_blocks, split_matrix


@keras.saving.register_keras_serializable(package=PACKAGE)
class DeltaOrthogonal(AxisAware):
    """An orthogonal matrix at the centre of the receptive field, zero elsewhere, times a gain.

    Law: W = gain * Q at the centre tap and W = 0 at all other taps. Q is a Haar distributed semi-orthogonal
    matrix (inputs x outputs). A convolution of stride 1 with padding "same" then mixes channels but not
    positions. All its singular values are gain (with fewer outputs than inputs: all that are not 0), and
    every spatial mode passes alike.

    Choose it for very deep plain tanh convnets. Do not choose it where strides or pooling skip the centre,
    nor where a layer must use its whole field from the first step: take `ConvOrthogonal` there.

    >>> kernel = DeltaOrthogonal(seed=1)((3, 3, 4, 8))
    >>> bool(ops.max(ops.abs(kernel[1, 1] @ ops.transpose(kernel[1, 1]) - ops.eye(4))) < 1e-5)
    True
    >>> int(ops.count_nonzero(kernel)) <= 4 * 8
    True

    Args:
        gain: Positive value of all singular values.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. Each group or depthwise channel gets its own matrix.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. A kernel with axes has no field and is refused on a call.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If `gain` is not positive or the layout is unknown; on a call, if the kernel has no
            receptive field or does not fit the layout, or `dtype` is not a float.

    Reference:
        Xiao et al., 2018, "Dynamical isometry and a mean field theory of CNNs"
        (https://arxiv.org/abs/1806.05393), algorithm 2. Deviations: the paper requires at least as many
        outputs as inputs; here a contracting kernel has orthonormal columns. Along an axis of even size k the
        tap is (k - 1) // 2, which Keras' padding "same" centres.
    """

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws a kernel and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        axes, blocks = _split_field(self, shape)

        def sample(dtype: str) -> Tensor:
            if 0 in shape:
                return ops.zeros(shape, dtype)
            sides = axes.size(axes.inputs), axes.size(axes.outputs)
            matrix = draw_haar(blocks, *sides, dtype, lambda label: call_seed(self.seed, shape, label))
            return at_centre(self.gain * matrix, axes, shape)

        return draw(sample, dtype)


@keras.saving.register_keras_serializable(package=PACKAGE)
class ConvOrthogonal(AxisAware):
    """A dense kernel that is orthogonal as a convolution with circular padding, times a gain.

    Law: the kernel is a Haar orthogonal matrix that is convolved with factors of two taps, (P, I - P): k - 1
    factors along each axis of size k. P is a random projection on half of the channels. Each factor keeps the
    norm of its input. So all singular values of the circular convolution of stride 1 are gain (with fewer
    outputs than inputs: all that are not 0). Zero padding loses some of the norm at the borders.

    Choose it for deep plain convnets that should use their whole field from the first step. For signals that
    must pass through still more layers, choose `DeltaOrthogonal`.

    >>> kernel = ConvOrthogonal(seed=1)((3, 16, 16))
    >>> at_zero_frequency = ops.sum(kernel, 0)
    >>> gram = at_zero_frequency @ ops.transpose(at_zero_frequency)
    >>> bool(ops.max(ops.abs(gram - ops.eye(16))) < 1e-5)
    True

    Args:
        gain: Positive value of all singular values.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. Each group or depthwise channel gets its own kernel.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. A kernel with axes has no field and is refused on a call.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If `gain` is not positive or the layout is unknown; on a call, if the kernel has no
            receptive field or does not fit the layout, or `dtype` is not a float.

    Reference:
        Xiao et al., 2018, "Dynamical isometry and a mean field theory of CNNs"
        (https://arxiv.org/abs/1806.05393), algorithm 1, after Kautsky and
        Turcajova; Li et al., 2019, "Preventing gradient attenuation in Lipschitz constrained convolutional
        networks" (https://arxiv.org/abs/1911.00937), for projections on half of the channels. Deviation:
        kernels with fewer outputs than inputs, which the papers do not cover, are the transposed form.
    """

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws a kernel and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        axes, blocks = _split_field(self, shape)

        def sample(dtype: str) -> Tensor:
            if 0 in shape:
                return ops.zeros(shape, dtype)
            return self._draw_kernel(axes, blocks, shape, dtype)

        return draw(sample, dtype)

    def _draw_kernel(self, axes: KernelAxes, blocks: list[int], shape: Sequence[int], dtype: str) -> Tensor:
        sides = axes.size(axes.inputs), axes.size(axes.outputs)
        channels = max(sides)

        def haar(label: str, rows: int) -> Tensor:
            return draw_haar(
                blocks, rows, channels, dtype, lambda part: call_seed(self.seed, shape, f"{label}/{part}")
            )

        # One matrix for each tap so far, in an array (*blocks, *field, rows, columns). It begins with one tap
        # and grows by one tap at each step: the product of polynomials in the shift along an axis.
        taps = self.gain * haar("mixing", min(sides))
        taps = ops.reshape(taps, (*blocks, *[1] * len(axes.field), min(sides), channels))
        for axis, size in enumerate((axes.shape[a] for a in axes.field), start=len(blocks)):
            for step in range(size - 1):
                taps = _convolve(taps, haar(f"{axis}/{step}", channels // 2), axis)
        # The factors act on the larger side, so a contracting kernel is the transpose of an expanding one.
        return join_blocks(ops.swapaxes(taps, -2, -1) if sides[1] < sides[0] else taps, axes, shape)


def _convolve(taps: Tensor, rows: Tensor, axis: int) -> Tensor:
    """Convolves an array of taps along an axis with (P, I - P), P the projection on orthonormal rows.

    With P^2 = P and (I - P)^2 = I - P, the factor P + (I - P) z has P P^T + (I - P)(I - P)^T = I and no cross
    terms. It is orthogonal at each frequency z on the unit circle, so products with it stay orthogonal.
    """
    # Products of equal batches: TensorFlow 2.21 crashes in some that it has to broadcast.
    flat = ops.reshape(taps, (*rows.shape[:-2], -1, taps.shape[-1]))
    here = ops.reshape((flat @ ops.swapaxes(rows, -2, -1)) @ rows, taps.shape)
    before, after = [(0, 0)] * len(taps.shape), [(0, 0)] * len(taps.shape)
    before[axis], after[axis] = (1, 0), (0, 1)
    return ops.pad(here, after) + ops.pad(taps - here, before)


def _split_field(initializer: AxisAware, shape: Sequence[int]) -> tuple[KernelAxes, list[int]]:
    """Returns the axes of a kernel that has a receptive field, and the sizes of its batch axes."""
    axes = split_matrix(initializer, shape)
    if not axes.field:
        raise ValueError(
            f"`shape` must have a receptive field for {type(initializer).__name__}. "
            f"Received: shape={tuple(shape)}. Take `initx>OrthogonalScaled` for matrices."
        )
    return axes, [axes.shape[axis] for axis in axes.batch]
