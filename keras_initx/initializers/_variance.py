"""The variance family: independent entries whose variance depends on the fans alone."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_initx.fans import Fans, Layout
from keras_initx.gains import compute_gain
from keras_initx.initializers._base import PACKAGE, AxisAware, call_seed, check_choice, draw

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

    Law: Var W = (gain * g)^2 / n, where n is fan_in, fan_out or a mean of both, and g the gain of the
    activation that feeds the layer: 1 without one. With `mode="fan_in"` a layer's pre-activations have
    variance gain^2 if the activation's inputs had variance 1; with `"fan_out"`, where g is the activation's
    backward gain, the same holds for the gradients that go back. Choose it when you want the law with values
    of your own; `GlorotScaled`, `HeScaled` and `LecunScaled` are this class with the published defaults.
    PyTorch's default for its linear and convolution layers is `gain=3**-0.5, distribution="uniform"`.

    >>> kernel = RandomScaled(gain=2.0, seed=1)((400, 300))
    >>> print(f"{float(keras.ops.std(kernel)) * 400**0.5:.1f}")
    2.0

    Args:
        gain: Positive factor of the standard deviation, beside the activation's.
        activation: What feeds the layer, as `keras_initx.gains.compute_gain` takes it: a name, a Keras
            function or activation layer, any element-wise callable; None for gain 1.
        mode: What n counts: `"fan_in"`, `"fan_out"`, their mean `"fan_avg"` or geometric mean `"fan_geom"`.
        distribution: `"normal"`, `"truncated_normal"` (cut at two standard deviations of the uncut normal and
            rescaled, so that the variance is the law's) or `"uniform"`. Unlike in Keras, where "normal" is
            an alias of "truncated_normal", `"normal"` is not truncated.
        layout: What the axes of the kernel mean where its shape cannot tell: a kind such as `"depthwise"`, a
            dict such as `{"kind": "transposed", "strides": 2}`, or a `keras_initx.fans.Layout`.
        seed: None, an int or a `keras.random.SeedGenerator`; None draws afresh at each call and follows
            `keras.utils.set_random_seed`.
        input_axes: Axes that an output sums over; EinsumDense and the attention layers set them.
        output_axes: Axes that index the outputs; set together with `input_axes`.

    Raises:
        ValueError: If an argument is outside its range or the activation has no gain; on a call, if the
            layout does not fit the shape or `dtype` is not a float; in `get_config`, if the activation is a
            callable that Keras cannot save.

    Reference:
        LeCun, Bottou, Orr and Mueller, 1998, "Efficient BackProp", section 4.6 (n = fan_in, gain 1).
    """

    def __init__(
        self,
        gain: float = 1.0,
        activation: Any = None,
        mode: str = "fan_in",
        distribution: str = "normal",
        layout: str | Mapping[str, Any] | Layout | None = None,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gain, layout, seed, input_axes, output_axes)
        self.mode = check_choice("mode", mode, tuple(_COUNTS))
        self.distribution = check_choice("distribution", distribution, _DISTRIBUTIONS)
        self.activation = restore_activation(activation)
        self._factor = self.gain * compute_gain(self.activation, backward=mode == "fan_out")

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Draws a kernel of the given shape and float dtype (Keras' floatx when None)."""
        fans = self.split(shape).fans
        # A kernel without inputs or outputs has no entries either.
        stddev = self._factor / math.sqrt(_COUNTS[self.mode](fans) or 1)
        return draw_entries(tuple(shape), stddev, self.distribution, call_seed(self.seed, shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {
            "activation": save_activation(self.activation),
            "mode": self.mode,
            "distribution": self.distribution,
        }


def draw_entries(shape: tuple[int, ...], stddev: float, distribution: str, seed: Any, dtype: Any) -> Any:
    """Draws independent entries of mean 0 and the given standard deviation."""
    if distribution == "uniform":
        limit = math.sqrt(3) * stddev
        return draw(lambda dtype: keras.random.uniform(shape, -limit, limit, dtype, seed), dtype)
    if distribution == "truncated_normal":
        stddev /= _TRUNCATED_STDDEV
        return draw(lambda dtype: _truncated_normal(shape, stddev, dtype, seed), dtype)
    return draw(lambda dtype: keras.random.normal(shape, 0.0, stddev, dtype, seed), dtype)


def _truncated_normal(shape: tuple[int, ...], stddev: float, dtype: str, seed: Any) -> Any:
    if keras.backend.backend() != "torch":
        return keras.random.truncated_normal(shape, 0.0, stddev, dtype, seed)
    # Keras takes there the first of four normal draws that is within the cut, and if none is, the first: four
    # entries in a million are beyond it. The inverse of the distribution function leaves none, at less cost.
    edge = math.erf(math.sqrt(2))
    return keras.ops.erfinv(keras.random.uniform(shape, -edge, edge, dtype, seed)) * (math.sqrt(2) * stddev)


def restore_activation(activation: Any) -> Any:
    """Returns the activation that `save_activation` wrote; all others as they are."""
    if isinstance(activation, dict):
        return keras.saving.deserialize_keras_object(activation)
    return activation


def save_activation(activation: Any) -> Any:
    """Returns what a config can hold of an activation, or raises if loading could not find it again."""
    if activation is None or isinstance(activation, str):
        return activation
    found = saved = None
    if getattr(activation, "__name__", "") != "<lambda>":
        saved = keras.saving.serialize_keras_object(activation)
        with contextlib.suppress(Exception):
            found = saved if isinstance(saved, str) else keras.saving.deserialize_keras_object(saved)
    if found is None or not (isinstance(activation, keras.layers.Layer) or found in (saved, activation)):
        raise ValueError(
            "`activation` must be a name, or a function that Keras can find again, to be saved in a config. "
            f"Received: activation={activation!r}. Register it with "
            '`@keras.saving.register_keras_serializable(package="...")`.'
        )
    return saved


@keras.saving.register_keras_serializable(package=PACKAGE)
class GlorotScaled(RandomScaled):
    """Glorot (Xavier) initialization: Var W = 2 / (fan_in + fan_out).

    Law: the compromise between a forward signal of constant variance (1 / fan_in) and a backward one
    (1 / fan_out), exact for both when the fans agree and the layers are linear. Choose it for tanh-like
    activations and shallow nets; with ReLU each layer halves the signal, so that a deep plain net stalls:
    take `HeScaled` there.

    >>> kernel = GlorotScaled(seed=1)((300, 500))
    >>> print(f"{float(keras.ops.std(kernel)) * 400**0.5:.1f}")
    1.0

    Args:
        gain: As in `RandomScaled`.
        activation: As in `RandomScaled`.
        mode: As in `RandomScaled`.
        distribution: As in `RandomScaled`.
        layout: As in `RandomScaled`.
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
        activation: Any = None,
        mode: str = "fan_avg",
        distribution: str = "uniform",
        layout: str | Mapping[str, Any] | Layout | None = None,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gain, activation, mode, distribution, layout, seed, input_axes, output_axes)


@keras.saving.register_keras_serializable(package=PACKAGE)
class HeScaled(RandomScaled):
    """He (Kaiming) initialization: Var W = g^2 / fan_in, where g^2 = 2 for ReLU.

    Law: a ReLU keeps half of the second moment of a symmetric input; g^2 = 2 gives it back, so that the
    second moment of the pre-activations is the same at each layer in expectation. Choose it for nets
    without normalization; for another activation than ReLU name it, and the first layer, which no activation
    feeds, keeps its scale with `activation=None`.

    >>> kernel = HeScaled(seed=1)((3, 3, 50, 200))
    >>> print(f"{float(keras.ops.var(kernel)) * 450:.1f}")
    2.0

    Args:
        gain: As in `RandomScaled`.
        activation: What feeds the layer; its gain g = 1 / sqrt(E f(z)^2) is sqrt(2) for `"relu"`.
        mode: `"fan_in"` keeps the forward signal (equation 10), `"fan_out"` the backward one (equation 14),
            the means compromise.
        distribution: `"normal"` (the paper's), `"truncated_normal"` or `"uniform"`.
        layout: As in `RandomScaled`.
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
        gain: float = 1.0,
        activation: Any = "relu",
        mode: str = "fan_in",
        distribution: str = "normal",
        layout: str | Mapping[str, Any] | Layout | None = None,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gain, activation, mode, distribution, layout, seed, input_axes, output_axes)


@keras.saving.register_keras_serializable(package=PACKAGE)
class LecunScaled(RandomScaled):
    """LeCun initialization: Var W = 1 / fan_in.

    Law: outputs of a linear layer have the variance of its inputs. Choose it for SELU, whose fixed point
    assumes it, and for linear layers; ReLU needs the factor 2 of `HeScaled`.

    >>> kernel = LecunScaled(seed=1)((400, 300))
    >>> print(f"{float(keras.ops.std(kernel)) * 400**0.5:.1f}")
    1.0

    Args:
        gain: As in `RandomScaled`.
        activation: As in `RandomScaled`.
        mode: As in `RandomScaled`.
        distribution: As in `RandomScaled`.
        layout: As in `RandomScaled`.
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
        activation: Any = None,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        layout: str | Mapping[str, Any] | Layout | None = None,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gain, activation, mode, distribution, layout, seed, input_axes, output_axes)
