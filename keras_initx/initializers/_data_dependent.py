"""Data-dependent laws: a base draw, and a pure function from measured statistics to a scale and a shift."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras

from keras_initx._types import Tensor
from keras_initx.checks import check_finite, check_positive
from keras_initx.fans import Layout
from keras_initx.initializers._base import PACKAGE, AxisAware, call_seed
from keras_initx.initializers._law import Law, Scope, Statistic
from keras_initx.initializers._orthogonal import draw_orthogonal
from keras_initx.initializers._variance import draw_entries

# Of the draw before data is seen, in the code of weight normalization and of Glow alike.
_SMALL_STDDEV = 0.05


class DataDependent(Law, AxisAware):
    """Base of the laws that turn the statistics of a layer's pre-activation into a scale and a shift.

    A law is an ordinary initializer, which draws a kernel, and a method `rescale`, which
    `keras_initx.calibrate` calls with what that kernel's pre-activation y measures on the data: y becomes
    scale * y + shift, by scale * kernel and scale * bias + shift. Derive a law of your own from this class
    and register it with Keras; it then calibrates, saves and loads as those of the package do.

    >>> class HalfSpread(DataDependent):
    ...     scope = "unit"
    ...
    ...     def rescale(self, mean, std):
    ...         return 0.5 / std, -0.5 * mean / std
    >>> HalfSpread().rescale(mean=3.0, std=2.0)
    (0.25, -0.75)

    Args:
        gain: Positive factor of the base draw.
        layout: As in `RandomScaled`.
        seed: As in `RandomScaled`.
        input_axes: Axes that an output sums over; EinsumDense and the attention layers set them.
        output_axes: Axes that index the outputs; set together with `input_axes`.

    Attributes:
        scope: `"unit"` if `rescale` gets one mean and std for each unit (output channel), as float64 arrays
            of shape (units,); `"layer"` if it gets one mean and one std over all units, as floats.
    """

    scope: ClassVar[Scope] = "layer"

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws the base: independent normal entries of variance gain^2 / fan_in, unless a law overrides it.

        Args:
            shape: Shape of the kernel.
            dtype: A float dtype; None for Keras' floatx.
        """
        fan_in = self.split(shape).fans.fan_in
        return draw_normal(self, shape, 1 / math.sqrt(fan_in or 1), dtype)

    def rescale(self, mean: Statistic, std: Statistic) -> tuple[Statistic, Statistic]:
        """Returns the scale and the shift that bring a pre-activation of this mean and std to the law's.

        Args:
            mean: A float, or an array of shape (units,) where the `scope` is `"unit"`.
            std: The same, positive: `calibrate` leaves units alone whose output is constant on the data.

        Returns:
            scale and shift, both in the form of the arguments.
        """
        raise NotImplementedError(
            f"`{type(self).__name__}` must define `rescale(self, mean, std)`, which returns (scale, shift)."
        )


@keras.saving.register_keras_serializable(package=PACKAGE)
class LSUV(DataDependent):
    """Layer-sequential unit variance: an orthonormal draw, then each layer's output scaled to std 1 on data.

    Law: the kernel is drawn with orthonormal rows or columns; `keras_initx.calibrate(model, data)` then
    divides it by the standard deviation that its pre-activations have on the data, layer after layer, each
    layer seeing its predecessors' calibrated outputs. The statistic is one over all units, so that their
    sizes relative to each other stay. Choose it when no closed form fits the net: unusual activations, odd
    fans, skip connections without normalization. Until `calibrate` is called it is `OrthogonalScaled()`.

    A dense, convolution or einsum layer is linear in its kernel and bias, so one division reaches the target
    exactly; the paper's iteration to a tolerance is not needed for them.

    >>> law = LSUV(target_std=2.0, remove_mean=True)
    >>> law.rescale(mean=3.0, std=0.5)  # 4 y - 12 has mean 0 and std 2
    (4.0, -12.0)

    Args:
        target_std: Standard deviation that pre-activations are given by `calibrate`.
        remove_mean: Whether to move the mean of the pre-activations to 0, one shift for all units.
        gain: Positive value of all singular values of the base draw.
        layout: As in `RandomScaled`.
        seed: As in `RandomScaled`.
        input_axes: Axes that an output sums over; EinsumDense and the attention layers set them.
        output_axes: Axes that index the outputs; set together with `input_axes`.

    Raises:
        ValueError: If `target_std` or `gain` is not positive; on a call, if the shape has fewer than two axes
            or `dtype` is not a float.

    Reference:
        Mishkin and Matas, 2016, "All you need is a good init", algorithm 1 (https://arxiv.org/abs/1511.06422),
        which moves no mean: `remove_mean` is an addition.
    """

    def __init__(
        self,
        target_std: float = 1.0,
        remove_mean: bool = False,
        gain: float = 1.0,
        layout: str | Mapping[str, Any] | Layout | None = None,
        seed: int | keras.random.SeedGenerator | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gain, layout, seed, input_axes, output_axes)
        self.target_std = check_positive("target_std", target_std)
        self.remove_mean = bool(remove_mean)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws the orthonormal base of the given shape and float dtype (Keras' floatx when None)."""
        return draw_orthogonal(self, shape, dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"target_std": self.target_std, "remove_mean": self.remove_mean}

    def rescale(self, mean: Statistic, std: Statistic) -> tuple[Statistic, Statistic]:
        """Returns the factor of kernel and bias, and the shift, that bring a pre-activation to the target."""
        scale = self.target_std / std
        return scale, -scale * mean if self.remove_mean else 0.0


@keras.saving.register_keras_serializable(package=PACKAGE)
class WithinLayer(DataDependent):
    """Each unit's pre-activation brought to std 1 and mean beta on data.

    Law: the kernel is drawn Gaussian; `keras_initx.calibrate` then makes (y - mean) / std + beta of each
    unit's pre-activation y, whose mean and std are its own on the data: the kernel's column is divided by
    std, the bias becomes (bias - mean) / std + beta, which does not depend on what the bias was. Each unit of
    a ReLU layer is then active on about the same share of the data. Choose it where single units start dead
    or far larger than others, as behind inputs of unequal sizes; choose `LSUV` where the units are to keep
    their sizes, as an orthonormal kernel's, or the batch is too small for a statistic of each unit.

    >>> import numpy as np
    >>> outputs = np.random.default_rng(0).normal([3.0, -7.0], [0.1, 20.0], (500, 2))
    >>> scale, shift = WithinLayer(beta=0.1).rescale(outputs.mean(axis=0), outputs.std(axis=0))
    >>> outputs = scale * outputs + shift
    >>> bool(np.allclose(outputs.mean(axis=0), 0.1)), bool(np.allclose(outputs.std(axis=0), 1.0))
    (True, True)

    Args:
        beta: Mean that pre-activations are given; a positive one makes more ReLUs active.
        gain: Positive factor of the base draw, which has variance gain^2 / fan_in. The law divides it out.
        layout: As in `RandomScaled`.
        seed: As in `RandomScaled`.
        input_axes: Axes that an output sums over; EinsumDense and the attention layers set them.
        output_axes: Axes that index the outputs; set together with `input_axes`.

    Raises:
        ValueError: If `beta` is not a finite number or `gain` is not positive; on a call, if the layout does
            not fit the shape or `dtype` is not a float.

    Reference:
        Kraehenbuehl, Doersch, Donahue and Darrell, 2016, "Data-dependent initializations of convolutional
        neural networks", within-layer normalization (https://arxiv.org/abs/1511.06856), as its authors' code
        has it (philkr/magic_init: `-mu / std + bias`, where bias is 0 in the function and 0.1 on its command
        line). The paper's text, and so its value of beta, was not checked. The code draws N(0, 1), which the
        division makes the same. The paper's between-layer step, which evens out the rates of change of the
        layers, is not part of this law.
    """

    scope = "unit"

    def __init__(
        self,
        beta: float = 0.0,
        gain: float = 1.0,
        layout: str | Mapping[str, Any] | Layout | None = None,
        seed: int | keras.random.SeedGenerator | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gain, layout, seed, input_axes, output_axes)
        self.beta = check_finite("beta", beta)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"beta": self.beta}

    def rescale(self, mean: Statistic, std: Statistic) -> tuple[Statistic, Statistic]:
        """Returns the scale and shift of each unit that give it std 1 and mean beta."""
        return 1 / std, self.beta - mean / std


@keras.saving.register_keras_serializable(package=PACKAGE)
class WeightNormData(DataDependent):
    """The start of a weight-normalized layer, as the plain kernel and bias that it amounts to.

    Law: weight normalization writes a unit's weights as g v / |v|. It draws v from N(0, 0.05^2), measures
    t = v x / |v| on data, and sets g = 1 / std(t) and bias = -mean(t) / std(t). Since std(t) is
    std(v x) / |v|, the length of v cancels: the plain kernel g v / |v| is v / std(v x), the plain bias
    -mean(v x) / std(v x), and each pre-activation starts with mean 0 and std 1. That is what `rescale` gives.
    Choose it to start a plain layer where a weight-normalized one starts; the other half of the method, to
    train g and v instead of their product, is no initializer's. The plain layer is the same as that of
    `WithinLayer(beta=0)`, and for a given draw that of `ActNormData`.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x, v = rng.normal(2.0, 3.0, (500, 8)), rng.normal(0.0, 0.05, (8, 4))
    >>> t = x @ (v / np.linalg.norm(v, axis=0))
    >>> g, b = 1 / t.std(axis=0), -t.mean(axis=0) / t.std(axis=0)
    >>> scale, shift = WeightNormData().rescale((x @ v).mean(axis=0), (x @ v).std(axis=0))
    >>> bool(np.allclose(scale * v, g * v / np.linalg.norm(v, axis=0))), bool(np.allclose(shift, b))
    (True, True)

    Args:
        gain: Positive factor of the base draw N(0, 0.05^2). The law divides it out.
        layout: As in `RandomScaled`.
        seed: As in `RandomScaled`.
        input_axes: Axes that an output sums over; EinsumDense and the attention layers set them.
        output_axes: Axes that index the outputs; set together with `input_axes`.

    Raises:
        ValueError: If `gain` is not positive; on a call, if `dtype` is not a float.

    Reference:
        Salimans and Kingma, 2016, "Weight normalization", equations 5 and 6
        (https://arxiv.org/abs/1602.07868), as its authors' code has it (openai/weightnorm, whose
        `data_based_init` for Keras is this rescaling with 1e-10 added to the variance). The paper's text, and
        so the equations' numbers, was not checked.
    """

    scope = "unit"

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws v, normal entries of std 0.05 * gain, in a float dtype (Keras' floatx when None)."""
        return draw_normal(self, shape, _SMALL_STDDEV, dtype)

    def rescale(self, mean: Statistic, std: Statistic) -> tuple[Statistic, Statistic]:
        """Returns g / |v| and the bias that g = 1 / std(t) comes with."""
        return _standardize(mean, std)


@keras.saving.register_keras_serializable(package=PACKAGE)
class ActNormData(DataDependent):
    """The start of an activation normalization, folded into the layer before it.

    Law: ActNorm is a layer s * y + b with a scale and bias for each channel, which its first batch sets so
    that its outputs have mean 0 and variance 1. Here both go into the kernel, drawn from N(0, 0.05^2), and
    bias that give y: kernel / std and (bias - mean) / std. Choose it to start the convolutions of a flow as
    Glow does without a layer for it. On a plain layer `WithinLayer(beta=0)` and `WeightNormData` start at
    the very same place: the three differ in what they train afterwards (here scale and bias of the channels
    apart from the kernel, there g and v, or nothing but the plain weights), which no initializer gives.

    >>> scale, shift = ActNormData().rescale(mean=3.0, std=2.0)
    >>> scale * (3.0 - 2.0) + shift, scale * (3.0 + 2.0) + shift  # one std below and above the mean
    (-1.0, 1.0)

    Args:
        gain: Positive factor of the base draw N(0, 0.05^2). The law divides it out.
        layout: As in `RandomScaled`.
        seed: As in `RandomScaled`.
        input_axes: Axes that an output sums over; EinsumDense and the attention layers set them.
        output_axes: Axes that index the outputs; set together with `input_axes`.

    Raises:
        ValueError: If `gain` is not positive; on a call, if `dtype` is not a float.

    Reference:
        Kingma and Dhariwal, 2018, "Glow: generative flow with invertible 1x1 convolutions", section 3.1
        (https://arxiv.org/abs/1807.03039); the paper's text was not checked. The draw N(0, 0.05^2) is that of
        its code (openai/glow), which also adds 1e-6 to the std and has layers that start at zero: neither is
        done here.
    """

    scope = "unit"

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws normal entries of std 0.05 * gain in a float dtype (Keras' floatx when None)."""
        return draw_normal(self, shape, _SMALL_STDDEV, dtype)

    def rescale(self, mean: Statistic, std: Statistic) -> tuple[Statistic, Statistic]:
        """Returns ActNorm's scale and bias of each channel."""
        return _standardize(mean, std)


def _standardize(mean: Statistic, std: Statistic) -> tuple[Statistic, Statistic]:
    return 1 / std, -mean / std


def draw_normal(initializer: AxisAware, shape: Sequence[int], stddev: float, dtype: str | None) -> Tensor:
    """Draws normal entries of this standard deviation times the gain."""
    shape = tuple(shape)
    seed = call_seed(initializer.seed, shape)
    return draw_entries(shape, initializer.gain * stddev, "normal", seed, dtype)
