"""The gain of an activation, and the second moments of its values and slopes."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_initx._types import Activation, Tensor
from keras_initx.checks import check_positive
from keras_initx.gains._activation import GATES, keras_name, refusal, resolve
from keras_initx.gains._evaluate import REACH, check_element_wise, concrete, evaluate
from keras_initx.gains._quadrature import DOUBLE, SINGLE, integrate

# E f(z)^2 = E f'(z)^2 of activations with f(s z) = s f(z) for s > 0. For these no integral is needed.
_HOMOGENEOUS = {"linear": 1.0, "relu": 0.5, "leaky_relu": (1 + 0.2**2) / 2}


def compute_gain(activation: Activation | Mapping[str, Any] | None, *, backward: bool = False) -> float:
    """Computes the gain of an activation: the factor that brings its output back to unit size.

    Law: gain = 1 / sqrt(E f(z)^2) with z ~ N(0, 1). A layer that is fed by f has pre-activations of unit
    variance if its weights have Var W = gain^2 / fan_in. The gain belongs to the activation before the layer,
    not to the activation after it. With `backward` the gain is 1 / sqrt(E f'(z)^2); together with fan_out it
    keeps the size of gradients. f' is the derivative of f itself: jumps do not count, and the gradient of a
    straight-through estimator, which is not a derivative, has no effect.

    `torch.nn.init.calculate_gain` agrees on linear, relu and leaky_relu (for equal slopes). It differs where
    it does not follow this law: tanh has 5/3 instead of 1.592537, larger on purpose against saturation;
    sigmoid has 1 instead of 1.846229; selu has 0.75 instead of 1, a heuristic that gives up
    self-normalization.

    Choose the gain for independent weights in a net without normalization. For an activation that is not
    element-wise (softmax, maxout), measure the signal instead, with `keras_initx.calibrate`.

    >>> print(f"{compute_gain('gelu'):.6f} {compute_gain('gelu', backward=True):.6f}")
    1.533530 1.481114
    >>> print(f"{compute_gain(keras.layers.LeakyReLU(0.1)):.6f}")  # sqrt(2 / (1 + 0.1^2))
    1.407195

    Args:
        activation: None for linear; a name or config that Keras knows; the name of a gated linear unit (see
            `second_moments`); an activation layer; or any element-wise function of one tensor. A layer counts
            with its own slopes, as it is initialized. The layer is copied, not built.
        backward: Whether to keep the size of gradients instead of the size of signals.

    Returns:
        The gain, positive.

    Raises:
        ValueError: If the activation is unknown, not element-wise (softmax), random, raises, or is not finite
            within 14 standard deviations; if the second moment is infinite; or if it is 0 (with `backward`: a
            step).

    Reference:
        He et al., 2015, https://arxiv.org/abs/1502.01852, equations 10 and 14, for rectifiers;
        Klambauer et al., 2017, https://arxiv.org/abs/1706.02515, for selu, whose gain is 1;
        Poole et al., 2016, https://arxiv.org/abs/1606.05340, for any activation: the length map at 1.
    """
    forward, slope = second_moments(activation)
    moment, symbol = (slope, "f'") if backward else (forward, "f")
    if not moment > 1e-24 * forward:  # a slope below this is rounding
        cure = "Use the forward gain." if backward and forward else "Use an activation that passes a signal."
        raise refusal(f"not have {symbol} = 0 almost everywhere: no gain exists", activation, cure)
    if math.isinf(moment):
        raise refusal("have a finite E f'(z)^2", activation, "Use the forward gain.")
    return 1 / math.sqrt(moment)


def second_moments(
    activation: Activation | Mapping[str, Any] | None, stddev: float = 1.0
) -> tuple[float, float]:
    """Computes E f(s z)^2 and E f'(s z)^2 for z ~ N(0, 1) and a pre-activation of standard deviation s.

    Law: both moments are integrals over 14 standard deviations in float64, by Clenshaw-Curtis panels that are
    halved until they agree with their halves. Kinks and jumps are found wherever they are, which
    Gauss-Hermite quadrature cannot do. f' is the slope of the panel's polynomial. The panel of 1e-12 standard
    deviations that still holds a kink or a jump is left out of E f'^2.

    A gated linear unit is v f(g), where value v and gate g are independent pre-activations of standard
    deviation s. Forward, E (v f(g))^2 = s^2 E f(g)^2; at s = 1 this is the moment of the gate's activation.
    Backward, v receives f(g) and g receives v f'(g), and the gradient goes back through both. The mean is
    (E f(g)^2 + s^2 E f'(g)^2) / 2.

    Choose it to find fixed points and slopes of the variance map. For the factor of one layer, use
    `compute_gain`.

    >>> second_moments("relu", stddev=2.0)
    (2.0, 0.5)
    >>> print("{:.6f} {:.6f}".format(*second_moments("swiglu")))
    0.355776 0.367629

    Args:
        activation: None for linear; a name or config that Keras knows; a gated linear unit, which is
            "bilinear", "geglu", "glu", "reglu", "swiglu" or `keras.activations.glu`; an activation layer; or
            any element-wise function of one tensor. A layer counts with its own slopes, as it is initialized.
            The layer is copied, not built.
        stddev: Standard deviation s of the pre-activation, positive and finite.

    Returns:
        E f(s z)^2 and E f'(s z)^2. The second is infinite if the slopes grow too fast at a point.

    Raises:
        ValueError: If `stddev` is not a positive, finite number; if the activation is unknown, not
            element-wise (softmax), random, raises, or is not finite within 14 standard deviations; or if
            E f(s z)^2 is infinite.

    Reference:
        Poole et al., 2016, https://arxiv.org/abs/1606.05340, the length map and chi_1 without the variance
        of the weights. Clenshaw and Curtis, 1960, for the panels; Shazeer, 2020,
        https://arxiv.org/abs/2002.05202, for the names of the gates.
    """
    stddev = check_positive("stddev", stddev)
    if isinstance(activation, str) and activation in GATES:
        return _gated_moments(activation, stddev)
    function = resolve(activation)
    name = keras_name(function)
    if name is None:
        return _moments(function, stddev, function)
    if name in GATES:
        return _gated_moments(name, stddev)
    if name in _HOMOGENEOUS:
        return stddev**2 * _HOMOGENEOUS[name], _HOMOGENEOUS[name]
    return _known_moments(name, stddev)


def _gated_moments(name: str, stddev: float) -> tuple[float, float]:
    forward, slope = second_moments(GATES[name], stddev)
    return stddev**2 * forward, (forward + stddev**2 * slope) / 2


@functools.lru_cache(maxsize=256)
def _known_moments(name: str, stddev: float) -> tuple[float, float]:
    """Returns the moments of one of Keras' functions. Others are not cached: they may be large, or change."""
    return _moments(getattr(keras.activations, name), stddev, name)


def _moments(function: Callable[..., Tensor], stddev: float, received: object) -> tuple[float, float]:
    call = functools.partial(evaluate, function, received=received)
    with concrete():
        check_element_wise(call, stddev, received)
        # A function that rounds to single precision within never agrees to twelve digits.
        integrals = integrate(lambda z: call(stddev * z), DOUBLE)
        integrals = integrals or integrate(lambda z: call(stddev * z), SINGLE)
    if integrals is None:
        cure = "Compute in the dtype of the input, without casts to half precision."
        raise refusal("be smooth but for some kinks and jumps, up to rounding", received, cure)
    total, rest, singular = integrals
    if singular[0] or not math.isfinite(total[0]):
        cure = "Use an activation that grows no faster than exp(|z|), or a smaller `stddev`."
        raise refusal(f"have a finite E f(z)^2 within {REACH} standard deviations", received, cure)
    # The slopes were taken with respect to z, and f' is with respect to s z.
    return float(total[0] + rest), math.inf if singular[1] else float(total[1]) / stddev**2
