"""Laws that rescale: a draw of the kernel, and a function from measured moments to a scale and a shift."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import keras

from keras_initx._types import Tensor
from keras_initx.checks import check_finite, check_positive
from keras_initx.initializers._base import PACKAGE, AxisAware, KernelOptions, call_seed
from keras_initx.initializers._law import Law, Scope, Statistic
from keras_initx.initializers._orthogonal import draw_orthogonal
from keras_initx.initializers._variance import draw_entries


class DataDependent(Law, AxisAware):
    """Base of the laws that turn mean and std of a pre-activation into a scale and a shift.

    Such a law draws a kernel, as every initializer does, and has a method `rescale`. `keras_initx.calibrate`
    calls `rescale` with the mean and std of the pre-activation y on the data. Then y becomes
    scale * y + shift, because the kernel becomes scale * kernel and the bias scale * bias + shift.

    Derive a law of your own from this class and register it with Keras. It then calibrates, saves and loads
    like the laws of this package.

    >>> class HalfSpread(DataDependent):
    ...     scope = "unit"
    ...
    ...     def rescale(self, mean, std):
    ...         return 0.5 / std, -0.5 * mean / std
    >>> HalfSpread().rescale(mean=3.0, std=2.0)
    (0.25, -0.75)

    Args:
        gain: Positive factor of the base draw.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Attributes:
        scope: `"unit"` if `rescale` gets one mean and std for each unit (output channel), as float64 arrays
            of shape (units,); `"layer"` if it gets one mean and one std over all units, as floats.
    """

    scope: ClassVar[Scope] = "layer"

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws independent normal entries of variance gain^2 / fan_in; a law may override it.

        Args:
            shape: Shape of the kernel.
            dtype: A float dtype; None for Keras' floatx.

        Returns:
            A kernel of this shape and dtype.
        """
        fan_in = self.split(shape).fans.fan_in
        return draw_normal(self, shape, 1 / math.sqrt(fan_in or 1), dtype)

    def rescale(self, mean: Statistic, std: Statistic) -> tuple[Statistic, Statistic]:
        """Returns the scale and the shift that give a pre-activation the moments of the law.

        Args:
            mean: Mean of the pre-activation: a float, or float64 of shape (units,) if `scope` is `"unit"`.
            std: Its standard deviation in the same form, always positive: `calibrate` leaves a unit as it is
                if its output is constant on the data.

        Returns:
            Scale and shift, both in the form of the arguments.
        """
        raise NotImplementedError(
            f"`{type(self).__name__}` must define `rescale(self, mean, std)`, which returns (scale, shift)."
        )


@keras.saving.register_keras_serializable(package=PACKAGE)
class LSUV(DataDependent):
    """Layer-sequential unit variance: an orthonormal draw, then each layer's output scaled to std 1 on data.

    Law: the kernel is drawn with orthonormal rows or columns. `keras_initx.calibrate(model, data)` then
    divides it by the standard deviation of its pre-activations on the data. It goes layer by layer, and each
    layer sees the calibrated outputs of the layers before it. One standard deviation is taken over all units,
    so the units keep their sizes relative to each other.

    Choose it where no closed form fits the net: unusual activations, odd fans, skip connections without
    normalization. Until `calibrate` runs, the kernel is an `OrthogonalScaled()` kernel.

    A dense, convolution or einsum layer is linear in its kernel and bias. One division therefore reaches the
    target exactly, and such layers need no iteration to a tolerance as in the paper.

    >>> law = LSUV(target_std=2.0, remove_mean=True)
    >>> law.rescale(mean=3.0, std=0.5)  # 4 y - 12 has mean 0 and std 2
    (4.0, -12.0)

    Args:
        target_std: Positive standard deviation that `calibrate` gives the pre-activations.
        remove_mean: Whether to move the mean of the pre-activations to 0, by one shift for all units.
        gain: Positive value of all singular values of the base draw.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If `target_std` or `gain` is not positive; on a call, if the shape has fewer than two axes
            or `dtype` is not a float.

    Reference:
        Mishkin and Matas, 2016, "All you need is a good init", algorithm 1 (https://arxiv.org/abs/1511.06422).
        Addition: `remove_mean`; the paper does not move means.
    """

    def __init__(
        self,
        target_std: float = 1.0,
        remove_mean: bool = False,
        gain: float = 1.0,
        **kernel: Unpack[KernelOptions],
    ) -> None:
        super().__init__(gain, **kernel)
        self.target_std = check_positive("target_std", target_std)
        self.remove_mean = bool(remove_mean)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws an orthonormal kernel times `gain`, in this shape and float dtype (None: Keras' floatx)."""
        return draw_orthogonal(self, shape, dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"target_std": self.target_std, "remove_mean": self.remove_mean}

    def rescale(self, mean: Statistic, std: Statistic) -> tuple[Statistic, Statistic]:
        """Returns the factor of kernel and bias, and the shift of the bias, that reach the target."""
        scale = self.target_std / std
        return scale, -scale * mean if self.remove_mean else 0.0


@keras.saving.register_keras_serializable(package=PACKAGE)
class WithinLayer(DataDependent):
    """Each unit's pre-activation brought to std 1 and mean beta on data.

    Law: the kernel is drawn Gaussian. `keras_initx.calibrate` then turns the pre-activation y of each unit
    into (y - mean) / std + beta, with the mean and std of this unit on the data. The column of the kernel is
    divided by std, and the bias becomes (bias - mean) / std + beta; the result does not depend on the old
    bias. Each unit of a ReLU layer is then active on about the same share of the data.

    Choose it where single units start dead or far larger than others, for example behind inputs of unequal
    sizes. Choose `LSUV` where the units have to keep their relative sizes, as in an orthonormal kernel, or
    where the batch is too small for a mean and std of each unit.

    >>> import numpy as np
    >>> outputs = np.random.default_rng(0).normal([3.0, -7.0], [0.1, 20.0], (500, 2))
    >>> scale, shift = WithinLayer(beta=0.1).rescale(outputs.mean(axis=0), outputs.std(axis=0))
    >>> outputs = scale * outputs + shift
    >>> bool(np.allclose(outputs.mean(axis=0), 0.1)), bool(np.allclose(outputs.std(axis=0), 1.0))
    (True, True)

    Args:
        beta: Mean that the pre-activations get. A positive mean makes more ReLUs active.
        gain: Positive factor of the draw, which has variance gain^2 / fan_in. `calibrate` divides it out.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If `beta` is not a finite number or `gain` is not positive; on a call, if the layout does
            not fit the shape or `dtype` is not a float.

    Reference:
        Kraehenbuehl, Doersch, Donahue and Darrell, 2016, "Data-dependent initializations of convolutional
        neural networks", within-layer normalization (https://arxiv.org/abs/1511.06856), in the form of the
        authors' code (philkr/magic_init: `-mu / std + bias`, where bias is 0 in the function and 0.1 on its
        command line). The paper's text was not checked, nor was its value of beta. The code draws N(0, 1);
        the division makes both draws equal. `BetweenLayer` is the paper's between-layer step.
    """

    scope = "unit"

    def __init__(
        self,
        beta: float = 0.0,
        gain: float = 1.0,
        **kernel: Unpack[KernelOptions],
    ) -> None:
        super().__init__(gain, **kernel)
        self.beta = check_finite("beta", beta)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"beta": self.beta}

    def rescale(self, mean: Statistic, std: Statistic) -> tuple[Statistic, Statistic]:
        """Returns the scale and shift of each unit that give it std 1 and mean beta."""
        return 1 / std, self.beta - mean / std


def draw_normal(initializer: AxisAware, shape: Sequence[int], stddev: float, dtype: str | None) -> Tensor:
    """Draws normal entries whose standard deviation is `stddev` times the gain of the initializer."""
    shape = tuple(shape)
    seed = call_seed(initializer.seed, shape)
    return draw_entries(shape, initializer.gain * stddev, "normal", seed, dtype)
