"""The variance family for depthwise kernels, for layers that take an initializer by name."""

from typing import Unpack

import keras

from keras_initx.initializers._base import PACKAGE
from keras_initx.initializers._recipes import Recipe, VarianceOptions
from keras_initx.initializers._variance import GlorotScaled, HeScaled, LecunScaled


@keras.saving.register_keras_serializable(package=PACKAGE)
class GlorotDepthwise(Recipe, GlorotScaled):
    """`GlorotScaled` for depthwise kernels: Var W = 2 / (field + field * multiplier).

    Law: Var W = (gain * g)^2 * 2 / (fan_in + fan_out), g the gain of `activation`. An output of a depthwise
    convolution sums the field of one channel, and an input reaches the field of its own m outputs, m the
    multiplier. So fan_in = field and fan_out = field * m. Keras' initializers count all C channels, and give
    (1 + m) / (C + m) of this variance.

    Choose it for depthwise and separable layers where `GlorotScaled` is right: tanh-like activations and
    shallow nets. For layers that a ReLU feeds take `HeDepthwise`.

    >>> layer = keras.layers.DepthwiseConv2D(3, depthwise_initializer=GlorotDepthwise(seed=1))
    >>> layer.build((None, 8, 8, 1000))
    >>> print(f"{float(keras.ops.var(layer.kernel)) * 9:.1f}")
    1.0

    Args:
        gain: Positive factor of the standard deviation, besides the activation's gain. Default 1.
        activation: The activation that feeds the layer: a name, a function or a layer. The default None has
            gain 1.
        mode: The count that divides: `"fan_avg"` (default), `"fan_in"`, `"fan_out"` or `"fan_geom"`.
        distribution: `"uniform"` (default), `"normal"` or `"truncated_normal"`.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Must stay None: EinsumDense and attention, which set it, have no depthwise kernels.
        output_axes: Must stay None, as `input_axes`.

    Raises:
        ValueError: If an argument is outside its range or the activation has no gain; on a call, if the shape
            has fewer than three axes or `dtype` is not a float; in `get_config`, if the activation is a
            function that Keras cannot save.

    Reference:
        Glorot and Bengio, 2010, "Understanding the difficulty of training deep feedforward neural networks",
        equation 16 (https://proceedings.mlr.press/v9/glorot10a.html). Deviation: the paper has dense layers;
        the fans of depthwise kernels are counted by `keras_initx.fans.compute_fans`.
    """

    def __init__(self, **options: Unpack[VarianceOptions]) -> None:
        super().__init__(layout="depthwise", **options)


@keras.saving.register_keras_serializable(package=PACKAGE)
class HeDepthwise(Recipe, HeScaled):
    """`HeScaled` for depthwise kernels: Var W = g^2 / field, g^2 = 2 for ReLU.

    Law: Var W = (gain * g)^2 / fan_in, g the gain of `activation`. An output of a depthwise convolution sums
    the field of one channel, so fan_in = field. Keras' initializers count all C channels, and give 1 / C of
    this variance.

    Choose it for depthwise layers that a ReLU feeds. Do not choose it for the pointwise half of a separable
    layer: no activation feeds it, so it takes `LecunScaled`.

    >>> layer = keras.layers.DepthwiseConv2D(3, depthwise_initializer=HeDepthwise(seed=1))
    >>> layer.build((None, 8, 8, 1000))
    >>> print(f"{float(keras.ops.var(layer.kernel)) * 9:.1f}")
    2.0

    Args:
        gain: Positive factor of the standard deviation, besides the activation's gain. Default 1.
        activation: The activation that feeds the layer: a name, a function or a layer. Default `"relu"`;
            None has gain 1.
        mode: The count that divides: `"fan_in"` (default), `"fan_out"`, `"fan_avg"` or `"fan_geom"`.
        distribution: `"normal"` (default), `"truncated_normal"` or `"uniform"`.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Must stay None: EinsumDense and attention, which set it, have no depthwise kernels.
        output_axes: Must stay None, as `input_axes`.

    Raises:
        ValueError: If an argument is outside its range or the activation has no gain; on a call, if the shape
            has fewer than three axes or `dtype` is not a float; in `get_config`, if the activation is a
            function that Keras cannot save.

    Reference:
        He, Zhang, Ren and Sun, 2015, "Delving deep into rectifiers", equations 10 and 14
        (https://arxiv.org/abs/1502.01852). Deviation: the paper has dense and plain convolution layers; the
        fans of depthwise kernels are counted by `keras_initx.fans.compute_fans`.
    """

    def __init__(self, **options: Unpack[VarianceOptions]) -> None:
        super().__init__(layout="depthwise", **options)


@keras.saving.register_keras_serializable(package=PACKAGE)
class LecunDepthwise(Recipe, LecunScaled):
    """`LecunScaled` for depthwise kernels: Var W = 1 / field.

    Law: Var W = (gain * g)^2 / fan_in, g the gain of `activation`, 1 by default. An output of a depthwise
    convolution sums the field of one channel, so fan_in = field. Keras' initializers count all C channels,
    and give 1 / C of this variance.

    Choose it for depthwise layers that no activation feeds, and for SELU. For layers that a ReLU feeds take
    `HeDepthwise`.

    >>> layer = keras.layers.DepthwiseConv2D(3, depthwise_initializer=LecunDepthwise(seed=1))
    >>> layer.build((None, 8, 8, 1000))
    >>> print(f"{float(keras.ops.var(layer.kernel)) * 9:.1f}")
    1.0

    Args:
        gain: Positive factor of the standard deviation, besides the activation's gain. Default 1.
        activation: The activation that feeds the layer: a name, a function or a layer. The default None has
            gain 1.
        mode: The count that divides: `"fan_in"` (default), `"fan_out"`, `"fan_avg"` or `"fan_geom"`.
        distribution: `"truncated_normal"` (default), `"normal"` or `"uniform"`.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Must stay None: EinsumDense and attention, which set it, have no depthwise kernels.
        output_axes: Must stay None, as `input_axes`.

    Raises:
        ValueError: If an argument is outside its range or the activation has no gain; on a call, if the shape
            has fewer than three axes or `dtype` is not a float; in `get_config`, if the activation is a
            function that Keras cannot save.

    Reference:
        LeCun, Bottou, Orr and Mueller, 1998, "Efficient BackProp", section 4.6; Klambauer et al., 2017,
        "Self-normalizing neural networks" (https://arxiv.org/abs/1706.02515). Deviation: both have dense
        layers; the fans of depthwise kernels are counted by `keras_initx.fans.compute_fans`.
    """

    def __init__(self, **options: Unpack[VarianceOptions]) -> None:
        super().__init__(layout="depthwise", **options)
