"""How much an activation changes the size of a signal, from the activation alone."""

import contextlib
import difflib
import functools
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_initx.checks import check_positive

__all__ = ["compute_gain", "second_moments"]

# E f(z)^2 = E f'(z)^2 of activations with f(s z) = s f(z) for s > 0.
_HOMOGENEOUS = {"linear": 1.0, "relu": 0.5, "leaky_relu": (1 + 0.2**2) / 2}
# Gated linear units, value * gate(pre-activation), by the activation of their gate.
_GATES = {"bilinear": "linear", "geglu": "gelu", "glu": "sigmoid", "reglu": "relu", "swiglu": "silu"}

_REACH = 14  # standard deviations; the Gaussian leaves 1e-44 outside
_WIDTH = 0.5  # of a panel, in standard deviations
_MOST_PANELS = 4096  # that still fail at one level
_BATCH = 2048  # least number of points, padded to a power of two: JAX compiles anew for each shape
# Tolerance relative to the whole, least width of a panel and rounding of slopes. Single precision is for
# functions that round to it within: keras.ops.tanh does on JAX, and most of keras.ops on PyTorch.
_DOUBLE, _SINGLE = (1e-12, 2.0**-40, 2.0**-46), (1e-6, 2.0**-17, 2.0**-18)
# Chebyshev points include a panel's ends, so that no kink hides between an end and the first node.
_NODES = np.polynomial.chebyshev.chebpts2(16)
_CARDINALS = np.linalg.inv(np.polynomial.legendre.legvander(_NODES, _NODES.size - 1))
_WEIGHTS = _CARDINALS[0]  # of the mean over a panel
_SLOPES = 2 * np.polynomial.legendre.legval(_NODES, np.polynomial.legendre.legder(_CARDINALS))


def compute_gain(
    activation: str | dict[str, Any] | Callable[..., Any] | None, *, backward: bool = False
) -> float:
    """Computes the gain of an activation: what its output must be multiplied by to keep unit size.

    The law is gain = 1 / sqrt(E f(z)^2) with z ~ N(0, 1). A layer that is fed by f keeps pre-activations of
    unit variance if its weights have Var W = gain^2 / fan_in; the gain belongs to the activation before the
    layer, not to the one after it. With `backward` it is 1 / sqrt(E f'(z)^2), which with fan_out instead
    keeps the size of gradients. f' is the derivative of f itself: jumps do not count, and the gradient
    of a straight-through estimator, which is no derivative, is not seen.

    `torch.nn.init.calculate_gain` agrees on linear, relu and leaky_relu (given the slope). It differs where
    it does not follow this law: tanh 5/3 instead of 1.592537, larger on purpose against saturation; sigmoid
    1 instead of 1.846229; selu 0.75 instead of 1, a heuristic that gives up self-normalization.

    >>> print(f"{compute_gain('gelu'):.6f} {compute_gain('gelu', backward=True):.6f}")
    1.533530 1.481114
    >>> print(f"{compute_gain(keras.layers.LeakyReLU(0.1)):.6f}")  # sqrt(2 / (1 + 0.1^2))
    1.407195

    Args:
        activation: None for linear; a name or config that Keras knows; a gated linear unit (see
            `second_moments`); an activation layer, with its own slopes; or any element-wise callable of one
            tensor. A layer is copied, not built, and counts as it is initialized.
        backward: Whether to keep the size of gradients instead of that of signals.

    Returns:
        The gain.

    Raises:
        ValueError: If the activation is unknown, not element-wise (softmax), random, raises, or is not finite
            within 14 standard deviations; if the second moment is infinite; or if it is 0 (backward: a step).

    Reference:
        He et al., 2015, https://arxiv.org/abs/1502.01852, equations 10 and 14, for rectifiers;
        Klambauer et al., 2017, https://arxiv.org/abs/1706.02515, for selu, whose gain is 1;
        Poole et al., 2016, https://arxiv.org/abs/1606.05340, for any activation: the length map at 1.
    """
    forward, slope = second_moments(activation)
    moment, symbol = (slope, "f'") if backward else (forward, "f")
    if not moment > 1e-24 * forward:  # below it a slope is rounding
        cure = "Use the forward gain." if backward and forward else "Use an activation that passes a signal."
        raise _refusal(f"not have {symbol} = 0 almost everywhere: no gain exists", activation, cure)
    if math.isinf(moment):
        raise _refusal("have a finite E f'(z)^2", activation, "Use the forward gain.")
    return 1 / math.sqrt(moment)


def second_moments(
    activation: str | dict[str, Any] | Callable[..., Any] | None, stddev: float = 1.0
) -> tuple[float, float]:
    """Computes E f(s z)^2 and E f'(s z)^2 for z ~ N(0, 1) and a pre-activation of standard deviation s.

    Both are integrals over 14 standard deviations in float64, by Clenshaw-Curtis panels that are halved
    until they agree with their halves. So kinks and jumps are found wherever they are, which Gauss-Hermite
    quadrature is not able to do. f' is the slope of the panel's polynomial; the panel of 1e-12 standard
    deviations that still holds a kink or a jump is left out of E f'^2.

    A gated linear unit is v f(g), its value and gate independent pre-activations of standard deviation s.
    Forward, E (v f(g))^2 = s^2 E f(g)^2: at s = 1 that of the gate's activation. Backward, v receives f(g)
    and g receives v f'(g), and the gradient goes back through both: the mean is
    (E f(g)^2 + s^2 E f'(g)^2) / 2.

    >>> second_moments("relu", stddev=2.0)
    (2.0, 0.5)
    >>> print("{:.6f} {:.6f}".format(*second_moments("swiglu")))
    0.355776 0.367629

    Args:
        activation: As for `compute_gain`. Gated linear units are "bilinear", "geglu", "glu", "reglu",
            "swiglu" and `keras.activations.glu`.
        stddev: Standard deviation s of the pre-activation.

    Returns:
        The second moment of f and that of its derivative, the latter infinite if a slope is too singular.

    Raises:
        ValueError: If `stddev` is not a positive number, or as for `compute_gain`, but for moments of 0.

    Reference:
        Poole et al., 2016, https://arxiv.org/abs/1606.05340, the length map and chi_1 without the variance
        of the weights. Clenshaw and Curtis, 1960, for the panels; Shazeer, 2020,
        https://arxiv.org/abs/2002.05202, for the names of the gates.
    """
    stddev = check_positive("stddev", stddev)
    gated = isinstance(activation, str) and activation in _GATES
    function = None if gated else _resolve(activation)
    name = str(activation) if gated else _keras_name(function)
    if name in _GATES:
        forward, slope = second_moments(_GATES[name], stddev)
        return stddev**2 * forward, (forward + stddev**2 * slope) / 2
    if name in _HOMOGENEOUS:
        return stddev**2 * _HOMOGENEOUS[name], _HOMOGENEOUS[name]
    return _known_moments(name, stddev) if name else _moments(function, stddev, function)


def _resolve(activation: Any) -> Any:
    """Makes a callable of a name, a config or a callable."""
    try:
        return keras.activations.get(activation)
    except Exception as error:
        if isinstance(activation, str):
            functions = {name for name in dir(keras.activations) if name[0] != "_"}
            known = sorted((functions | set(_GATES)) - {"deserialize", "get", "serialize"})
            cure = f"Nearest: {difflib.get_close_matches(activation, known, cutoff=0.4) or known}."
            raise _refusal("be the name of a Keras activation or gate", activation, cure) from error
        kinds = "be None, a name, a config, an activation layer or a callable"
        raise _refusal(kinds, activation, f"Keras says: {error}") from error


def _keras_name(function: Any) -> str | None:
    """Returns the name of a function that is Keras' own."""
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) and getattr(keras.activations, name, None) is function else None


@functools.lru_cache(maxsize=256)
def _known_moments(name: str, stddev: float) -> tuple[float, float]:
    """Keeps results for Keras' functions only: a user's may be large, or change."""
    return _moments(getattr(keras.activations, name), stddev, name)


def _moments(function: Any, stddev: float, received: Any) -> tuple[float, float]:
    evaluate = functools.partial(_evaluate, function, received=received)
    with _concrete():
        _check_element_wise(evaluate, stddev, received)
        integrals = _integrate(lambda z: evaluate(stddev * z), _DOUBLE)
        integrals = integrals or _integrate(lambda z: evaluate(stddev * z), _SINGLE)
    if integrals is None:
        cure = "Compute in the dtype of the input, without casts to half precision."
        raise _refusal("be smooth but for some kinks and jumps, up to rounding", received, cure)
    total, rest, singular = integrals
    if singular[0] or not math.isfinite(total[0]):
        cure = "Use an activation that grows no faster than exp(|z|), or a smaller `stddev`."
        raise _refusal(f"have a finite E f(z)^2 within {_REACH} standard deviations", received, cure)
    return float(total[0] + rest), math.inf if singular[1] else float(total[1]) / stddev**2


@contextlib.contextmanager
def _concrete() -> Iterator[None]:
    """Computes in eager float64, whatever is being traced around it, and silently."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings(action="ignore"))
        stack.enter_context(np.errstate(over="ignore", invalid="ignore"))
        match keras.backend.backend():
            case "tensorflow":
                import tensorflow as tf

                stack.enter_context(tf.init_scope())
            case "jax":
                import jax

                stack.enter_context(jax.enable_x64(True))
                stack.enter_context(jax.ensure_compile_time_eval())
            case "torch":
                import torch

                stack.enter_context(torch.no_grad())
                # Keras traces on the meta device, and MPS has no float64.
                stack.enter_context(keras.device("cpu"))
        yield


def _evaluate(function: Any, points: np.ndarray, received: Any) -> np.ndarray:
    """Calls the function on points of rank 4, as an image's: PReLU may share slopes over axes."""
    shape = points.shape if points.ndim == 4 else (1, 1, 1, max(_BATCH, 1 << (points.size - 1).bit_length()))
    try:
        if isinstance(function, keras.layers.Layer):  # afresh, since PReLU builds itself for a shape
            config = function.get_config() | {"dtype": "float64"}
            if callable(getattr(function, "activation", None)):  # Keras refuses to read a lambda back
                config["activation"] = function.activation
            function = type(function).from_config(config)
        outputs = function(keras.ops.convert_to_tensor(np.resize(points, shape), dtype="float64"))
        values = np.asarray(keras.ops.convert_to_numpy(outputs), dtype="float64")
    except Exception as error:
        cure = "Give a function of one tensor that uses keras.ops; fix further arguments in a lambda."
        raised = f"{type(error).__name__}: {error}".rstrip(".")
        rule = f"return values for a float64 tensor outside any trace. It raised {raised}"
        raise _refusal(rule, received, cure) from error
    if values.shape != shape:
        cure = f"It makes {values.shape} of {shape}. Name a gated linear unit by one of {sorted(_GATES)}."
        raise _refusal("be element-wise", received, cure)
    values = values.reshape(-1)[: points.size].reshape(points.shape)
    if not np.isfinite(values).all():
        where = points[~np.isfinite(values)][0]
        cure = f"It is NaN or infinite at {where:.6g}. Clip its input."
        raise _refusal(f"be finite within {_REACH} standard deviations", received, cure)
    return values


def _check_element_wise(evaluate: Callable[..., np.ndarray], stddev: float, received: Any) -> None:
    """Compares the function on points with itself on some of them, in another order along other axes."""
    rng = np.random.default_rng(0)
    points = stddev * np.sort(rng.normal(size=121))
    some = rng.permutation(np.arange(30, 111))  # neither their extremes nor their median
    values, again = evaluate(points), evaluate(points[some].reshape(3, 3, 3, 3)).reshape(-1)
    if not np.allclose(values[some], again, rtol=1e-5, atol=1e-6 * np.abs(values).max()):
        cure = 'Measure such an activation on data: calibrate(model, data, "initx>LSUV").'
        raise _refusal("be element-wise, not depend on other entries or on chance", received, cure)


def _integrate(
    function: Callable[[np.ndarray], np.ndarray], precision: tuple[float, float, float]
) -> tuple[np.ndarray, float, np.ndarray] | None:
    """Integrates f^2 and (df/dz)^2, halving panels until all agree with their halves.

    Returns:
        The two integrals over panels that agreed; the first over those that never did, which hold kinks
        and jumps; and whether each integral does not converge. None if too many panels disagree.
    """
    tolerance, least_width, noise = precision
    width, left = _WIDTH, np.arange(-_REACH, _REACH, _WIDTH)
    whole, _ = _panels(function, left, width, noise)
    if not np.isfinite(whole).all():
        return whole.sum(axis=0), 0.0, np.array([True, True])
    tails, total = whole[0] + whole[-1], np.zeros(2)
    while left.size and width > least_width:
        if left.size > _MOST_PANELS:
            return None
        width /= 2
        left = np.stack([left, left + width], axis=1).reshape(-1)
        parts, rounding = _panels(function, left, width, noise)
        sums = parts.reshape(-1, 2, 2).sum(axis=1)
        errors = np.abs(whole - sums)
        scale = total + np.sum(sums, axis=0, where=errors <= tolerance * sums)
        allowed = tolerance * np.maximum(sums, scale) + rounding.reshape(-1, 2, 2).sum(axis=1)
        agree = np.all(errors <= allowed, axis=1)
        total += sums[agree].sum(axis=0)
        failing = np.repeat(~agree, 2)
        left, whole = left[failing], parts[failing]
    # A converging integral leaves little to panels this narrow: a jump their width, 1 / sqrt(z) its root.
    rest = whole[:, 0].sum()
    narrow = (sums[agree].sum(axis=0) + np.array([rest, 0])) * (width <= least_width)
    singular = (tails > 1e-12 * np.maximum(total, total[0])) | (narrow > 0.1 * math.sqrt(least_width) * total)
    return total, rest, singular


def _panels(
    function: Callable[[np.ndarray], np.ndarray], left: np.ndarray, width: float, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """Integrates f^2 and (df/dz)^2 under the Gaussian density over panels; also what rounding may change."""
    z = left[:, None] + width * (_NODES + 1) / 2
    masses = np.exp(-(z**2) / 2) * (_WEIGHTS * width / math.sqrt(2 * math.pi))
    values = function(z.reshape(-1)).reshape(z.shape)
    slopes = (values - values[:, :1]) @ _SLOPES / width  # without the first, a constant's slope is exactly 0
    integrals = np.stack([np.sum(values**2 * masses, axis=1), np.sum(slopes**2 * masses, axis=1)], axis=1)
    mass, blur = masses.sum(axis=1), noise * np.abs(values).max(axis=1) / width
    rounding = 2 * np.sqrt(integrals[:, 1] * mass) * blur + mass * blur**2
    return integrals, np.stack([np.zeros_like(rounding), rounding], axis=1)


def _refusal(rule: str, received: Any, cure: str) -> ValueError:
    return ValueError(f"`activation` must {rule}. Received: activation={received!r}. {cure}")
