"""The variance family: independent entries whose variance depends on the fans alone."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import keras

from keras_initx.fans import compute_fans
from keras_initx.initializers._base import PACKAGE, AxisAware, check_choice, draw

# Standard deviation of N(0, 1) truncated to [-2, 2].
_TRUNCATED_STDDEV = 0.87962566103423978
_DISTRIBUTIONS = ("normal", "truncated_normal", "uniform")
_MODES = ("fan_in", "fan_out", "fan_avg")


@keras.saving.register_keras_serializable(package=PACKAGE)
class RandomScaled(AxisAware):
    """Independent entries of mean 0 and variance gain^2 / n.

    Law: Var W = gain^2 / n, where n is fan_in, fan_out or their mean. With unit-variance inputs and
    `mode="fan_in"` a linear layer's outputs have variance gain^2; with `"fan_out"` the same holds for the
    gradients that go back. Choose it when you want the law with a gain of your own; the named recipes
    `GlorotScaled`, `HeScaled` and `LecunScaled` are this class with the published defaults.

    >>> kernel = RandomScaled(gain=2.0, seed=1)((400, 300))
    >>> print(f"{float(keras.ops.std(kernel)) * 400**0.5:.1f}")
    2.0

    Args:
        gain: Positive factor of the standard deviation.
        mode: What n counts: `"fan_in"`, `"fan_out"` or `"fan_avg"`.
        distribution: `"normal"`, `"truncated_normal"` (cut at two standard deviations of the uncut normal and
            rescaled, so that the variance is the law's) or `"uniform"`. Unlike in Keras, where "normal" is
            an alias of "truncated_normal", `"normal"` is not truncated.
        seed: None, an int or a `keras.random.SeedGenerator`; None draws afresh at each call and follows
            `keras.utils.set_random_seed`.
        input_axes: Axes that an output sums over; EinsumDense and the attention layers set them.
        output_axes: Axes that index the outputs; set together with `input_axes`.

    Raises:
        ValueError: If an argument is outside its range; on a call, if `dtype` is not a float.

    Reference:
        LeCun, Bottou, Orr and Mueller, 1998, "Efficient BackProp", section 4.6 (n = fan_in, gain 1).
    """

    def __init__(
        self,
        gain: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "normal",
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gain, seed, input_axes, output_axes)
        self.mode = check_choice("mode", mode, _MODES)
        self.distribution = check_choice("distribution", distribution, _DISTRIBUTIONS)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Draws a kernel of the given shape and float dtype (Keras' floatx when None)."""
        fans = compute_fans(shape, self.input_axes, self.output_axes)
        n = {
            "fan_in": fans.fan_in,
            "fan_out": fans.fan_out,
            "fan_avg": (fans.fan_in + fans.fan_out) / 2,
        }[self.mode]
        stddev = self.gain / math.sqrt(max(n, 1))
        seed = self.call_seed()
        if self.distribution == "uniform":
            limit = math.sqrt(3) * stddev
            return draw(lambda dtype: keras.random.uniform(shape, -limit, limit, dtype, seed), dtype)
        if self.distribution == "truncated_normal":
            stddev /= _TRUNCATED_STDDEV
            return draw(lambda dtype: keras.random.truncated_normal(shape, 0.0, stddev, dtype, seed), dtype)
        return draw(lambda dtype: keras.random.normal(shape, 0.0, stddev, dtype, seed), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"mode": self.mode, "distribution": self.distribution}


@keras.saving.register_keras_serializable(package=PACKAGE)
class GlorotScaled(RandomScaled):
    """Glorot (Xavier) initialization: Var W = gain^2 * 2 / (fan_in + fan_out).

    Law: the compromise between a forward signal of constant variance (1 / fan_in) and a backward one
    (1 / fan_out), exact for both when the fans agree and the layers are linear. Choose it for tanh-like
    activations and shallow nets; with ReLU each layer halves the signal, so that a deep plain net stalls:
    take `HeScaled` there.

    >>> kernel = GlorotScaled(seed=1)((300, 500))
    >>> print(f"{float(keras.ops.std(kernel)) * 400**0.5:.1f}")
    1.0

    Args:
        gain: Positive factor of the standard deviation.
        mode: What n counts: `"fan_in"`, `"fan_out"` or `"fan_avg"`.
        distribution: `"normal"`, `"truncated_normal"` or `"uniform"`.
        seed: As in `RandomScaled`.
        input_axes: As in `RandomScaled`.
        output_axes: As in `RandomScaled`.

    Raises:
        ValueError: As in `RandomScaled`.

    Reference:
        Glorot and Bengio, 2010, "Understanding the difficulty of training deep feedforward neural networks",
        equation 16 (https://proceedings.mlr.press/v9/glorot10a.html): uniform on
        +-sqrt(6) / sqrt(fan_in + fan_out).
    """

    def __init__(
        self,
        gain: float = 1.0,
        mode: str = "fan_avg",
        distribution: str = "uniform",
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gain, mode, distribution, seed, input_axes, output_axes)


@keras.saving.register_keras_serializable(package=PACKAGE)
class HeScaled(RandomScaled):
    """He (Kaiming) initialization: Var W = gain^2 / fan_in with gain^2 = 2, made for ReLU.

    Law: a ReLU keeps half of the second moment of a symmetric input; gain^2 = 2 gives it back, so that the
    second moment of the pre-activations is the same at each layer in expectation. Choose it for ReLU nets
    without normalization; for another activation give its own gain.

    >>> kernel = HeScaled(seed=1)((3, 3, 50, 200))
    >>> print(f"{float(keras.ops.var(kernel)) * 450:.1f}")
    2.0

    Args:
        gain: Positive factor of the standard deviation; sqrt(2) is the ReLU's.
        mode: `"fan_in"` keeps the forward signal (equation 10), `"fan_out"` the backward one (equation 14),
            `"fan_avg"` divides by the mean of both.
        distribution: `"normal"` (the paper's), `"truncated_normal"` or `"uniform"`.
        seed: As in `RandomScaled`.
        input_axes: As in `RandomScaled`.
        output_axes: As in `RandomScaled`.

    Raises:
        ValueError: As in `RandomScaled`.

    Reference:
        He, Zhang, Ren and Sun, 2015, "Delving deep into rectifiers", equations 10 and 14
        (https://arxiv.org/abs/1502.01852).
    """

    def __init__(
        self,
        gain: float = math.sqrt(2),
        mode: str = "fan_in",
        distribution: str = "normal",
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gain, mode, distribution, seed, input_axes, output_axes)


@keras.saving.register_keras_serializable(package=PACKAGE)
class LecunScaled(RandomScaled):
    """LeCun initialization: Var W = gain^2 / fan_in.

    Law: outputs of a linear layer have the variance of its inputs. Choose it for SELU, whose fixed point
    assumes it, and for linear layers; ReLU needs the factor 2 of `HeScaled`.

    >>> kernel = LecunScaled(seed=1)((400, 300))
    >>> print(f"{float(keras.ops.std(kernel)) * 400**0.5:.1f}")
    1.0

    Args:
        gain: Positive factor of the standard deviation.
        mode: What n counts: `"fan_in"`, `"fan_out"` or `"fan_avg"`.
        distribution: `"normal"`, `"truncated_normal"` or `"uniform"`.
        seed: As in `RandomScaled`.
        input_axes: As in `RandomScaled`.
        output_axes: As in `RandomScaled`.

    Raises:
        ValueError: As in `RandomScaled`.

    Reference:
        LeCun, Bottou, Orr and Mueller, 1998, "Efficient BackProp", section 4.6; Klambauer et al., 2017,
        "Self-normalizing neural networks" (https://arxiv.org/abs/1706.02515).
    """

    def __init__(
        self,
        gain: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gain, mode, distribution, seed, input_axes, output_axes)


@keras.saving.register_keras_serializable(package=PACKAGE)
class ConstantFill(keras.initializers.Initializer):
    """Every entry the same number.

    Law: W = value. All units of a layer then compute the same thing and get the same gradient, so that a
    layer of any width learns like one unit: choose it for biases and scales, or to see that symmetry stall a
    kernel. The default is not 0, with which a kernel passes no signal at all.

    >>> print(keras.ops.convert_to_numpy(ConstantFill(0.5)((2, 2))))
    [[0.5 0.5]
     [0.5 0.5]]

    Args:
        value: The finite number to fill with.

    Raises:
        ValueError: If `value` is not a finite number.

    Reference:
        Goodfellow, Bengio and Courville, 2016, "Deep Learning", section 8.4, on breaking symmetry.
    """

    def __init__(self, value: float = 0.05) -> None:
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise ValueError(f"`value` must be a finite number. Received: value={value!r}.")
        self.value: float = float(value)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Returns a tensor of the given shape and dtype (Keras' floatx when None), filled."""
        return keras.ops.full(shape, self.value, dtype or keras.config.floatx())

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"value": self.value}
