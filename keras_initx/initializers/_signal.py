"""Variance laws for particular nets: nets at the edge of chaos and nets of sines."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Unpack

import keras

from keras_initx._types import Activation, Tensor
from keras_initx.checks import check_positive
from keras_initx.gains import compute_gain, second_moments
from keras_initx.initializers._base import PACKAGE, AxisAware, KernelOptions, call_seed
from keras_initx.initializers._saved_activation import restore_activation, save_activation
from keras_initx.initializers._variance import draw_entries

_SMALL = 1e-4  # the standard deviation that stands for the limit to 0


@keras.saving.register_keras_serializable(package=PACKAGE)
class EdgeOfChaos(AxisAware):
    """Normal weights at the critical line between order and chaos, where signals reach deepest.

    Law: W ~ N(0, (gain * s_w)^2 / fan_in) with s_w^2 E f'(sqrt(q) z)^2 = 1, z ~ N(0, 1). The pre-activations
    settle at the variance q = bias_std^2 + s_w^2 E f(sqrt(q) z)^2. Two inputs then neither converge nor
    diverge exponentially with depth, and gradients keep their size. For tanh without biases s_w = 1, and q
    falls to 0 slowly. For ReLU without biases s_w^2 = 2, which is He's law.

    Choose it for deep plain nets of smooth activations, in all layers. With `bias_std`, give the biases
    `keras.initializers.RandomNormal(stddev=bias_std)`. Do not choose it for nets with normalization, which
    sets q by itself, nor for rectifiers with biases, which have no critical point.

    >>> print(f"{EdgeOfChaos().weight_std:.4f} {EdgeOfChaos(bias_std=0.05**0.5).weight_std**2:.4f}")
    1.0000 1.7610

    Args:
        activation: The activation of the net's layers: a name, a Keras function, an activation layer or any
            element-wise function, as for `keras_initx.gains.compute_gain`.
        bias_std: Standard deviation of the biases, at least 0.
        gain: Positive factor of the standard deviation. Above 1 the net is chaotic, below 1 ordered.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Attributes:
        weight_std: The s_w of the law, a float.

    Raises:
        ValueError: If an argument is outside its range, or the activation has no critical point with this
            `bias_std` (a rectifier has none with biases); in `get_config`, if the activation is a function
            that Keras cannot save; on a call, if the layout does not fit the shape or `dtype` is not a float.

    Reference:
        Poole et al., 2016 (https://arxiv.org/abs/1606.05340), the length map and chi_1; Schoenholz et al.,
        2017, "Deep information propagation" (https://arxiv.org/abs/1611.01232); Hayou et al., 2019
        (https://arxiv.org/abs/1902.06853), for rectifiers.
    """

    def __init__(
        self,
        activation: Activation | None = "tanh",
        bias_std: float = 0.0,
        gain: float = 1.0,
        **kernel: Unpack[KernelOptions],
    ) -> None:
        super().__init__(gain, **kernel)
        self.activation = restore_activation(activation)
        if bias_std != 0:
            check_positive("bias_std", bias_std)
        self.bias_std = float(bias_std)
        # Its errors say more about an unfit activation than a search without a result.
        compute_gain(self.activation)
        self.weight_std = _solve_critical(self.activation, self.bias_std)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws a kernel and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        stddev = self.gain * self.weight_std / math.sqrt(self.split(shape).fans.fan_in or 1)
        return draw_entries(tuple(shape), stddev, "normal", call_seed(self.seed, shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        activation = save_activation(self.activation)
        return super().get_config() | {"activation": activation, "bias_std": self.bias_std}


def _solve_critical(activation: Activation | None, bias_std: float) -> float:
    """Returns the s_w at which slopes keep their size, at the variance where the pre-activations settle.

    Two equations hold at once (Poole et al.), for the weights' s_w and the pre-activations' variance q:

        q = bias_std^2 + s_w^2 E f(sqrt(q) z)^2        the variance repeats itself from layer to layer
        1 = s_w^2 E f'(sqrt(q) z)^2                    so does the distance of two close inputs

    The second gives s_w^2 = 1 / E f'^2, and with it the first is an equation in q alone. It is solved on a
    logarithmic scale from q = e^-13 to q = e^12, where it may have several roots. A root counts only if the
    variance returns to it: with s_w held, a larger q must shrink and a smaller q must grow. At the other
    roots a real net drifts away. Without biases q = 0 may be the stable point, as for tanh. There E f^2 and
    E f'^2 are taken in the limit.
    """

    def excess(log_q: float) -> float:
        moment, slope = second_moments(activation, math.exp(log_q / 2))
        return (math.exp(log_q) - bias_std**2) * slope - moment

    moment, coarse = second_moments(activation, _SMALL)
    # E f'^2 is about linear in sqrt(q) near 0, so two values give its limit.
    slope = 2 * second_moments(activation, _SMALL / 2)[1] - coarse
    vanishes = bias_std == 0 and slope > 1e-6 and moment <= 2 * slope * _SMALL**2
    if vanishes and second_moments(activation)[0] <= slope * (1 + 1e-6):
        return 1 / math.sqrt(slope)  # f(0) = 0, and a signal of size 1 does not grow at this s_w
    # A root of the equation lies where its sign changes from one step to the next.
    for step in range(-13, 12):
        if excess(step) * excess(step + 1) < 0:
            root = math.exp(_bisect(excess, step, step + 1))
            weight_std = 1 / math.sqrt(second_moments(activation, math.sqrt(root))[1])
            nearby = (root * 1.05, root / 1.05)
            above, below = (
                bias_std**2 + weight_std**2 * second_moments(activation, math.sqrt(q))[0] for q in nearby
            )
            if above < nearby[0] and below > nearby[1]:
                return weight_std
    raise ValueError(
        "`activation` must have a stable critical point with this `bias_std`. "
        f"Received: activation={activation!r}, bias_std={bias_std!r}. Rectifiers have one only with "
        "`bias_std=0`; gelu, silu and mish need a larger `bias_std`. Or take `initx>HeScaled` with this "
        "activation."
    )


def _bisect(function: Callable[[float], float], low: float, high: float) -> float:
    """Returns a root between `low` and `high`, to 1e-9. The function has different signs at the two ends."""
    rising = function(high) > 0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if (function(middle) > 0) == rising else (middle, high)
    return low


@keras.saving.register_keras_serializable(package=PACKAGE)
class SIREN(AxisAware):
    """Uniform weights for nets of sines, sin(omega * (W x + b)).

    Law: W ~ U(-c, c) with c = gain * sqrt(6 / fan_in) / omega. If the inputs x are sines, omega * W x is then
    about standard normal at each layer. (Its variance v settles at v = 1 - exp(-2 v), which is 0.797.) In the
    first layer c = gain / fan_in, so that omega spans the frequencies that inputs in [-1, 1] give.

    Choose it for implicit neural representations, with the activation `lambda x: keras.ops.sin(30 * x)`. Do
    not choose it for other activations.

    >>> kernel = SIREN(seed=1)((600, 400))
    >>> print(f"{float(keras.ops.max(kernel)) * 30 * 10:.1f}")  # sqrt(6 / 600) / 30
    1.0

    Args:
        omega: Positive factor inside the sine, the paper's omega_0.
        first: Whether the layer is the first of the net.
        gain: Positive factor of the bound c.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If an argument is outside its range; on a call, if the layout does not fit the shape or
            `dtype` is not a float.

    Reference:
        Sitzmann et al., 2020, "Implicit neural representations with periodic activation functions"
        (https://arxiv.org/abs/2006.09661), and the authors' code.
    """

    def __init__(
        self,
        omega: float = 30.0,
        first: bool = False,
        gain: float = 1.0,
        **kernel: Unpack[KernelOptions],
    ) -> None:
        super().__init__(gain, **kernel)
        self.omega = check_positive("omega", omega)
        self.first = bool(first)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws a kernel and returns it as a tensor of this shape and float dtype (None: Keras' floatx)."""
        inputs = self.split(shape).fans.fan_in or 1
        # `draw_entries` takes a standard deviation, which for U(-c, c) is c / sqrt(3).
        bound = self.gain * (1 / inputs if self.first else math.sqrt(6 / inputs) / self.omega)
        return draw_entries(tuple(shape), bound / math.sqrt(3), "uniform", call_seed(self.seed, shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"omega": self.omega, "first": self.first}
