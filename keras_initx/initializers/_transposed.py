"""The variance family for transposed convolutions, for layers that take an initializer by name."""

from collections.abc import Sequence
from typing import Unpack

import keras

from keras_initx.initializers._base import PACKAGE
from keras_initx.initializers._recipes import Recipe, VarianceOptions
from keras_initx.initializers._variance import GlorotScaled, HeScaled, LecunScaled


@keras.saving.register_keras_serializable(package=PACKAGE)
class GlorotTransposed(Recipe, GlorotScaled):
    """`GlorotScaled` for transposed convolutions: Var W = 2 / (field * (inputs / stride + outputs)).

    Law: Var W = (gain * g)^2 * 2 / (fan_in + fan_out), g the gain of `activation`. Keras orders the axes of
    these kernels as (*field, outputs, inputs). A stride leaves each output field / stride taps of the inputs,
    so fan_in = field * inputs / stride and fan_out = field * outputs. Field and stride are products over the
    axes of the field.

    Choose it for decoders and generators where `GlorotScaled` is right, with the layer's strides. For layers
    that a ReLU feeds take `HeTransposed`.

    >>> initializer = GlorotTransposed(strides=2, seed=1)
    >>> print(f"{float(keras.ops.var(initializer((4, 4, 64, 64)))) * 640:.1f}")  # fans 256 and 1024
    1.0

    Args:
        strides: Strides of the layer: one int, or one int for each axis of the field.
        gain: Positive factor of the standard deviation, besides the activation's gain. Default 1.
        activation: The activation that feeds the layer: a name, a function or a layer. The default None has
            gain 1.
        mode: The count that divides: `"fan_avg"` (default), `"fan_in"`, `"fan_out"` or `"fan_geom"`.
        distribution: `"uniform"` (default), `"normal"` or `"truncated_normal"`.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Must stay None: EinsumDense and attention, which set it, have no transposed kernels.
        output_axes: Must stay None, as `input_axes`.

    Raises:
        ValueError: If an argument is outside its range, the strides are not positive ints or the activation
            has no gain; on a call, if the shape has fewer than three axes, if the number of strides is not
            the number of field axes, or if `dtype` is not a float; in `get_config`, if the activation is a
            function that Keras cannot save.

    Reference:
        Glorot and Bengio, 2010, "Understanding the difficulty of training deep feedforward neural networks",
        equation 16 (https://proceedings.mlr.press/v9/glorot10a.html). Deviation: the paper has dense layers;
        the fans of transposed kernels are counted by `keras_initx.fans.compute_fans`.
    """

    def __init__(self, strides: int | Sequence[int] = 1, **options: Unpack[VarianceOptions]) -> None:
        super().__init__(layout={"kind": "transposed", "strides": strides}, **options)


@keras.saving.register_keras_serializable(package=PACKAGE)
class HeTransposed(Recipe, HeScaled):
    """`HeScaled` for transposed convolutions: Var W = g^2 * stride / (field * inputs), g^2 = 2 for ReLU.

    Law: Var W = (gain * g)^2 / fan_in, g the gain of `activation`. An output sums field / stride taps of all
    inputs, so fan_in = field * inputs / stride. Keras' initializers take the outputs for the inputs and do
    not know the stride: they give inputs / (outputs * stride) of this variance.

    Choose it for decoders and generators without normalization, with the layer's strides. For layers that no
    activation feeds take `LecunTransposed`.

    >>> initializer = HeTransposed(strides=2, seed=1)
    >>> print(f"{float(keras.ops.var(initializer((4, 4, 64, 64)))) * 256:.1f}")
    2.0

    Args:
        strides: Strides of the layer: one int, or one int for each axis of the field.
        gain: Positive factor of the standard deviation, besides the activation's gain. Default 1.
        activation: The activation that feeds the layer: a name, a function or a layer. Default `"relu"`;
            None has gain 1.
        mode: The count that divides: `"fan_in"` (default), `"fan_out"`, `"fan_avg"` or `"fan_geom"`.
        distribution: `"normal"` (default), `"truncated_normal"` or `"uniform"`.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Must stay None: EinsumDense and attention, which set it, have no transposed kernels.
        output_axes: Must stay None, as `input_axes`.

    Raises:
        ValueError: If an argument is outside its range, the strides are not positive ints or the activation
            has no gain; on a call, if the shape has fewer than three axes, if the number of strides is not
            the number of field axes, or if `dtype` is not a float; in `get_config`, if the activation is a
            function that Keras cannot save.

    Reference:
        He, Zhang, Ren and Sun, 2015, "Delving deep into rectifiers", equations 10 and 14
        (https://arxiv.org/abs/1502.01852). Deviation: the paper has dense and plain convolution layers; the
        fans of transposed kernels are counted by `keras_initx.fans.compute_fans`.
    """

    def __init__(self, strides: int | Sequence[int] = 1, **options: Unpack[VarianceOptions]) -> None:
        super().__init__(layout={"kind": "transposed", "strides": strides}, **options)


@keras.saving.register_keras_serializable(package=PACKAGE)
class LecunTransposed(Recipe, LecunScaled):
    """`LecunScaled` for transposed convolutions: Var W = stride / (field * inputs).

    Law: Var W = (gain * g)^2 / fan_in, g the gain of `activation`, 1 by default. An output sums
    field / stride taps of all inputs, so fan_in = field * inputs / stride. Keras' initializers take the
    outputs for the inputs and do not know the stride: they give inputs / (outputs * stride) of this variance.

    Choose it for decoder layers that no activation feeds, and for SELU. For layers that a ReLU feeds take
    `HeTransposed`.

    >>> initializer = LecunTransposed(strides=2, seed=1)
    >>> print(f"{float(keras.ops.var(initializer((4, 4, 64, 64)))) * 256:.1f}")
    1.0

    Args:
        strides: Strides of the layer: one int, or one int for each axis of the field.
        gain: Positive factor of the standard deviation, besides the activation's gain. Default 1.
        activation: The activation that feeds the layer: a name, a function or a layer. The default None has
            gain 1.
        mode: The count that divides: `"fan_in"` (default), `"fan_out"`, `"fan_avg"` or `"fan_geom"`.
        distribution: `"truncated_normal"` (default), `"normal"` or `"uniform"`.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Must stay None: EinsumDense and attention, which set it, have no transposed kernels.
        output_axes: Must stay None, as `input_axes`.

    Raises:
        ValueError: If an argument is outside its range, the strides are not positive ints or the activation
            has no gain; on a call, if the shape has fewer than three axes, if the number of strides is not
            the number of field axes, or if `dtype` is not a float; in `get_config`, if the activation is a
            function that Keras cannot save.

    Reference:
        LeCun, Bottou, Orr and Mueller, 1998, "Efficient BackProp", section 4.6; Klambauer et al., 2017,
        "Self-normalizing neural networks" (https://arxiv.org/abs/1706.02515). Deviation: both have dense
        layers; the fans of transposed kernels are counted by `keras_initx.fans.compute_fans`.
    """

    def __init__(self, strides: int | Sequence[int] = 1, **options: Unpack[VarianceOptions]) -> None:
        super().__init__(layout={"kind": "transposed", "strides": strides}, **options)
