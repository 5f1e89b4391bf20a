"""Two published starts of normalized layers, as the plain kernel and bias that they amount to."""

from collections.abc import Sequence

import keras

from keras_initx._types import Tensor
from keras_initx.initializers._base import PACKAGE
from keras_initx.initializers._data_dependent import DataDependent, draw_normal
from keras_initx.initializers._law import Statistic

# Std of the draw before data is seen, in the code of weight normalization and in the code of Glow.
_SMALL_STDDEV = 0.05


@keras.saving.register_keras_serializable(package=PACKAGE)
class WeightNormData(DataDependent):
    """The start of a weight-normalized layer, as the plain kernel and bias that it amounts to.

    Law: weight normalization writes the weights of a unit as g v / |v|. It draws v from N(0, 0.05^2),
    measures t = v x / |v| on data, and sets g = 1 / std(t) and bias = -mean(t) / std(t). Because std(t) is
    std(v x) / |v|, the length of v cancels. The plain kernel g v / |v| is v / std(v x), the plain bias is
    -mean(v x) / std(v x), and each pre-activation starts with mean 0 and std 1. `rescale` returns this factor
    and this shift.

    Choose it to start a plain layer where a weight-normalized layer starts. An initializer cannot do the
    other half of the method, which trains g and v instead of their product. On a plain layer
    `WithinLayer(beta=0)` gives the same start, and `ActNormData` gives it for the same draw.

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
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If `gain` is not positive; on a call, if `dtype` is not a float.

    Reference:
        Salimans and Kingma, 2016, "Weight normalization", equations 5 and 6
        (https://arxiv.org/abs/1602.07868), in the form of the authors' code: `data_based_init` for Keras in
        openai/weightnorm is this rescaling with 1e-10 added to the variance. The paper's text was not
        checked, nor were the numbers of its equations.
    """

    scope = "unit"

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws v: normal entries of std 0.05 * gain, in this shape and float dtype (None: Keras' floatx)."""
        return draw_normal(self, shape, _SMALL_STDDEV, dtype)

    def rescale(self, mean: Statistic, std: Statistic) -> tuple[Statistic, Statistic]:
        """Returns the scale g / |v| and the shift -mean(t) / std(t) of each unit, float64 (units,)."""
        return _standardize(mean, std)


@keras.saving.register_keras_serializable(package=PACKAGE)
class ActNormData(DataDependent):
    """The start of an activation normalization, folded into the layer before it.

    Law: ActNorm is a layer s * y + b with one scale and one bias for each channel. Its first batch sets both
    so that the outputs have mean 0 and variance 1. Here scale and bias go into the layer that computes y: its
    kernel, drawn from N(0, 0.05^2), becomes kernel / std, and its bias becomes (bias - mean) / std.

    Choose it to start the convolutions of a flow as Glow does, without a layer for it. On a plain layer
    `WithinLayer(beta=0)` and `WeightNormData` start at the same place. The three methods differ later:
    ActNorm trains scale and bias of the channels apart from the kernel, weight normalization trains g and v,
    and `WithinLayer` trains the plain weights. An initializer does not change how a layer trains.

    >>> scale, shift = ActNormData().rescale(mean=3.0, std=2.0)
    >>> scale * (3.0 - 2.0) + shift, scale * (3.0 + 2.0) + shift  # one std below and above the mean
    (-1.0, 1.0)

    Args:
        gain: Positive factor of the base draw N(0, 0.05^2). The law divides it out.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If `gain` is not positive; on a call, if `dtype` is not a float.

    Reference:
        Kingma and Dhariwal, 2018, "Glow: generative flow with invertible 1x1 convolutions", section 3.1
        (https://arxiv.org/abs/1807.03039). The paper's text was not checked. The draw N(0, 0.05^2) is from
        its code (openai/glow). Deviation: the code also adds 1e-6 to the std, and starts some layers at zero.
    """

    scope = "unit"

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws normal entries of std 0.05 * gain, in this shape and float dtype (None: Keras' floatx)."""
        return draw_normal(self, shape, _SMALL_STDDEV, dtype)

    def rescale(self, mean: Statistic, std: Statistic) -> tuple[Statistic, Statistic]:
        """Returns the scale and the shift of each channel, float64 of shape (units,)."""
        return _standardize(mean, std)


def _standardize(mean: Statistic, std: Statistic) -> tuple[Statistic, Statistic]:
    return 1 / std, -mean / std
