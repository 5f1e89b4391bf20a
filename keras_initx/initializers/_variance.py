"""The variance family: independent entries with a variance that depends on the fans alone."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Unpack

import keras

from keras_initx._types import Activation, Tensor
from keras_initx.checks import check_choice
from keras_initx.fans import Fans
from keras_initx.gains import compute_gain
from keras_initx.initializers._base import PACKAGE, AxisAware, KernelOptions, Seed, call_seed, draw
from keras_initx.initializers._saved_activation import restore_activation, save_activation

# Standard deviation of N(0, 1) truncated to [-2, 2].
_TRUNCATED_STDDEV = 0.87962566103423978
_DISTRIBUTIONS = ("normal", "truncated_normal", "uniform")
_COUNTS: dict[str, Callable[[Fans], float]] = {
    "fan_in": lambda fans: fans.fan_in,
    "fan_out": lambda fans: fans.fan_out,
    "fan_avg": lambda fans: (fans.fan_in + fans.fan_out) / 2,
    "fan_geom": lambda fans: math.sqrt(fans.fan_in * fans.fan_out),
}


@keras.saving.register_keras_serializable(package=PACKAGE)
class RandomScaled(AxisAware):
    """Independent entries of mean 0 and variance (gain * g)^2 / n.

    Law: Var W = (gain * g)^2 / n, where n is fan_in, fan_out or a mean of both, and g is the gain of the
    activation that feeds the layer (1 without an activation). With `mode="fan_in"`, a layer's pre-activations
    have variance gain^2 if the inputs of that activation had variance 1. With `mode="fan_out"`, g is the
    activation's backward gain, and the same holds for the gradients that go back.

    Choose it when you want this law with your own values. `GlorotScaled`, `HeScaled` and `LecunScaled` are
    this class with the published defaults. PyTorch's default for linear and convolution layers is
    `RandomScaled(gain=3**-0.5, distribution="uniform")`.

    >>> kernel = RandomScaled(gain=2.0, seed=1)((400, 300))
    >>> print(f"{float(keras.ops.std(kernel)) * 400**0.5:.1f}")
    2.0

    Args:
        gain: Positive factor of the standard deviation, besides the activation's gain.
        activation: The activation that feeds the layer: a name, a Keras function, an activation layer or any
            element-wise function, as for `keras_initx.gains.compute_gain`. None has gain 1.
        mode: The count n: `"fan_in"`, `"fan_out"`, their mean `"fan_avg"` or geometric mean `"fan_geom"`.
        distribution: `"normal"`, `"uniform"` or `"truncated_normal"`, which is cut at two standard deviations
            of the uncut normal and rescaled to the law's variance. In Keras "normal" is another name of
            "truncated_normal"; here `"normal"` is not truncated.
        layout: Meaning of the axes where the shape does not tell it: a kind such as `"depthwise"`, a dict
            such as `{"kind": "transposed", "strides": 2}`, or a `keras_initx.fans.Layout`. None reads dense
            kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If an argument is outside its range or the activation has no gain; on a call, if the
            layout does not fit the shape or `dtype` is not a float; in `get_config`, if the activation is a
            function that Keras cannot save.

    Reference:
        LeCun, Bottou, Orr and Mueller, 1998, "Efficient BackProp", section 4.6 (n = fan_in, gain 1).
    """

    def __init__(
        self,
        gain: float = 1.0,
        activation: Activation | None = None,
        mode: str = "fan_in",
        distribution: str = "normal",
        **kernel: Unpack[KernelOptions],
    ) -> None:
        super().__init__(gain, **kernel)
        self.mode = check_choice("mode", mode, tuple(_COUNTS))
        self.distribution = check_choice("distribution", distribution, _DISTRIBUTIONS)
        self.activation = restore_activation(activation)
        # Computed here, so that an activation without a gain is refused before any layer is built.
        self._factor = self.gain * compute_gain(self.activation, backward=mode == "fan_out")

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws a kernel and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        fans = self.split(shape).fans
        # A count is 0 only if the kernel has no entries: then any finite number does.
        stddev = self._factor / math.sqrt(_COUNTS[self.mode](fans) or 1)
        return draw_entries(tuple(shape), stddev, self.distribution, call_seed(self.seed, shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {
            "activation": save_activation(self.activation),
            "mode": self.mode,
            "distribution": self.distribution,
        }


def draw_entries(
    shape: tuple[int, ...], stddev: float, distribution: str, seed: Seed, dtype: str | None
) -> Tensor:
    """Draws independent entries of mean 0 and the given standard deviation.

    Args:
        shape: Shape of the kernel.
        stddev: Standard deviation of the entries, for a truncated normal after the cut.
        distribution: `"normal"`, `"truncated_normal"` or `"uniform"`.
        seed: Seed of the draw, as `call_seed` returns it.
        dtype: A float dtype; None for `keras.config.floatx()`.
    """
    if distribution == "uniform":
        limit = math.sqrt(3) * stddev  # U(-a, a) has variance a^2 / 3
        return draw(lambda dtype: keras.random.uniform(shape, -limit, limit, dtype, seed), dtype)
    if distribution == "truncated_normal":
        stddev /= _TRUNCATED_STDDEV
        return draw(lambda dtype: _truncated_normal(shape, stddev, dtype, seed), dtype)
    return draw(lambda dtype: keras.random.normal(shape, 0.0, stddev, dtype, seed), dtype)


def _truncated_normal(shape: tuple[int, ...], stddev: float, dtype: str, seed: Seed) -> Tensor:
    if keras.backend.backend() != "torch":
        return keras.random.truncated_normal(shape, 0.0, stddev, dtype, seed)
    # On PyTorch, Keras takes the first of four normal draws that is within the cut, and the first draw if
    # none is: four entries in a million are beyond the cut. The inverse of the distribution function leaves
    # none beyond, at less cost.
    edge = math.erf(math.sqrt(2))
    return keras.ops.erfinv(keras.random.uniform(shape, -edge, edge, dtype, seed)) * (math.sqrt(2) * stddev)


@keras.saving.register_keras_serializable(package=PACKAGE)
class GlorotScaled(RandomScaled):
    """Glorot (Xavier) initialization: Var W = 2 / (fan_in + fan_out).

    Law: Var W = (gain * g)^2 * 2 / (fan_in + fan_out), g the gain of `activation`. It is the compromise
    between a forward signal of constant variance (1 / fan_in) and a backward signal of constant variance
    (1 / fan_out). For linear layers with equal fans both are exact.

    Choose it for tanh-like activations and shallow nets. Do not choose it for deep plain ReLU nets: each
    layer halves the signal, so the net stalls. Take `HeScaled` there.

    >>> kernel = GlorotScaled(seed=1)((300, 500))
    >>> print(f"{float(keras.ops.std(kernel)) * 400**0.5:.1f}")
    1.0

    Args:
        gain: Positive factor of the standard deviation, besides the activation's gain.
        activation: The activation that feeds the layer: a name, a function or a layer. None has gain 1.
        mode: The count that divides: `"fan_avg"` (the paper's), `"fan_in"`, `"fan_out"` or `"fan_geom"`.
        distribution: `"uniform"` (the paper's), `"normal"` or `"truncated_normal"`.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If an argument is outside its range or the activation has no gain; on a call, if the
            layout does not fit the shape or `dtype` is not a float; in `get_config`, if the activation is a
            function that Keras cannot save.

    Reference:
        Glorot and Bengio, 2010, "Understanding the difficulty of training deep feedforward neural networks",
        equation 16 (https://proceedings.mlr.press/v9/glorot10a.html): uniform on
        +-sqrt(6) / sqrt(fan_in + fan_out).
    """

    def __init__(
        self,
        gain: float = 1.0,
        activation: Activation | None = None,
        mode: str = "fan_avg",
        distribution: str = "uniform",
        **kernel: Unpack[KernelOptions],
    ) -> None:
        super().__init__(gain, activation, mode, distribution, **kernel)


@keras.saving.register_keras_serializable(package=PACKAGE)
class HeScaled(RandomScaled):
    """He (Kaiming) initialization: Var W = g^2 / fan_in, where g^2 = 2 for ReLU.

    Law: Var W = (gain * g)^2 / fan_in, g the gain of `activation`. A ReLU keeps half of the second moment of
    a symmetric input. g^2 = 2 gives it back, so the second moment of the pre-activations is the same at each
    layer in expectation.

    Choose it for nets without normalization. Name the activation if it is not ReLU. The first layer, which no
    activation feeds, keeps its scale with `activation=None`. For SELU and linear layers take `LecunScaled`.

    >>> kernel = HeScaled(seed=1)((3, 3, 50, 200))
    >>> print(f"{float(keras.ops.var(kernel)) * 450:.1f}")
    2.0

    Args:
        gain: Positive factor of the standard deviation, besides the activation's gain.
        activation: The activation that feeds the layer: a name, a function or a layer. Its gain
            g = 1 / sqrt(E f(z)^2) is sqrt(2) for `"relu"`. None has gain 1.
        mode: The count that divides: `"fan_in"` keeps the forward signal (equation 10), `"fan_out"` the
            backward signal (equation 14); `"fan_avg"` and `"fan_geom"` are compromises.
        distribution: `"normal"` (the paper's), `"truncated_normal"` or `"uniform"`.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If an argument is outside its range or the activation has no gain; on a call, if the
            layout does not fit the shape or `dtype` is not a float; in `get_config`, if the activation is a
            function that Keras cannot save.

    Reference:
        He, Zhang, Ren and Sun, 2015, "Delving deep into rectifiers", equations 10 and 14
        (https://arxiv.org/abs/1502.01852).
    """

    def __init__(
        self,
        gain: float = 1.0,
        activation: Activation | None = "relu",
        mode: str = "fan_in",
        distribution: str = "normal",
        **kernel: Unpack[KernelOptions],
    ) -> None:
        super().__init__(gain, activation, mode, distribution, **kernel)


@keras.saving.register_keras_serializable(package=PACKAGE)
class LecunScaled(RandomScaled):
    """LeCun initialization: Var W = 1 / fan_in.

    Law: Var W = (gain * g)^2 / fan_in, g the gain of `activation`, 1 by default. The outputs of a linear
    layer then have the variance of its inputs.

    Choose it for SELU, whose fixed point assumes this variance, and for linear layers. Do not choose it for
    ReLU, which needs the factor 2 of `HeScaled`.

    >>> kernel = LecunScaled(seed=1)((400, 300))
    >>> print(f"{float(keras.ops.std(kernel)) * 400**0.5:.1f}")
    1.0

    Args:
        gain: Positive factor of the standard deviation, besides the activation's gain.
        activation: The activation that feeds the layer: a name, a function or a layer. None has gain 1.
        mode: The count that divides: `"fan_in"` (the paper's), `"fan_out"`, `"fan_avg"` or `"fan_geom"`.
        distribution: `"truncated_normal"`, `"normal"` or `"uniform"`.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If an argument is outside its range or the activation has no gain; on a call, if the
            layout does not fit the shape or `dtype` is not a float; in `get_config`, if the activation is a
            function that Keras cannot save.

    Reference:
        LeCun, Bottou, Orr and Mueller, 1998, "Efficient BackProp", section 4.6; Klambauer et al., 2017,
        "Self-normalizing neural networks" (https://arxiv.org/abs/1706.02515).
    """

    def __init__(
        self,
        gain: float = 1.0,
        activation: Activation | None = None,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        **kernel: Unpack[KernelOptions],
    ) -> None:
        super().__init__(gain, activation, mode, distribution, **kernel)
