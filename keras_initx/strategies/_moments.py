"""Maps from the moments of a layer's input to the moments of its output: functions of numbers only.

A signal is described by three numbers: the mean and the variance of its elements, and the covariance of one
channel at two positions far apart (`shared`). An element is thought of as

    element = part that all positions share  +  part of this position alone
              variance `shared`                 variance `variance` - `shared`

Averages over positions, in pooling and attention, shrink the second part only. Both parts are taken as
Gaussian, which is exact for pre-activations of wide layers. An integral over a Gaussian is a sum over a grid:
Gauss-Hermite nodes for the shared part, where integrands are smooth, and 1201 equal steps for the own part,
where a ReLU has its kink.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import keras
import numpy as np

from keras_initx._types import Activation, Tensor
from keras_initx.gains import second_moments

__all__ = [
    "Moments", "activated", "added", "alpha_dropped", "averaged", "concatenated", "contracted", "dropped",
    "maximum", "mixed", "multiplied", "noised", "normalized", "padded", "rms_normalized", "scaled", "softmax",
    "weighted",
]  # fmt: skip

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(32)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_GRID = np.linspace(-9, 9, 1201)
_DENSITY = np.exp(-(_GRID**2) / 2) / math.sqrt(2 * math.pi)
_SELU_FLOOR = -1.0507009873554805 * 1.6732632423543772  # AlphaDropout sets dropped units to this value


@dataclasses.dataclass(frozen=True)
class Moments:
    """Moments of a signal's elements over positions, channels, inputs and draws of the weights.

    Attributes:
        mean: The mean.
        variance: The variance.
        shared: Covariance of a channel at two positions far apart: the variance that an average over many
            positions keeps.
        sums_to_one: Whether the elements are weights that sum to 1, as softmax makes them.
        origin: If a monotone activation made the signal, the pair (activation, moments of its input): a
            maximum is computed before the activation.
    """

    mean: float = 0.0
    variance: float = 1.0
    shared: float = 0.0
    sums_to_one: bool = False
    origin: "tuple[Activation, Moments] | None" = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def second(self) -> float:
        """The second moment, sigma^2 + mu^2."""
        return self.variance + self.mean**2

    @property
    def shared_second(self) -> float:
        """The second moment between two positions."""
        return self.shared + self.mean**2


def weighted(x: Moments, gain: float) -> Moments:
    """The output of a kernel of Var W = gain^2 / fan_in and mean 0."""
    return Moments(0.0, gain**2 * x.second, gain**2 * x.shared_second)


def scaled(x: Moments, factor: float, offset: float = 0.0) -> Moments:
    """The signal times a factor, plus an offset."""
    return Moments(factor * x.mean + offset, factor**2 * x.variance, factor**2 * x.shared)


def added(terms: Sequence[Moments], signs: Sequence[float] | None = None) -> Moments:
    """A sum of independent signals, each times its sign or factor."""
    terms = [scaled(x, sign) for x, sign in zip(terms, signs or [1.0] * len(terms), strict=True)]
    return Moments(*(sum(getattr(x, name) for x in terms) for name in ("mean", "variance", "shared")))


def contracted(x: Moments, y: Moments, count: int = 1) -> Moments:
    """A sum of `count` products of two independent signals."""
    mean = x.mean * y.mean
    variance, shared = x.second * y.second - mean**2, x.shared_second * y.shared_second - mean**2
    return Moments(count * mean, count * variance, count * shared)


def multiplied(factors: Sequence[Moments]) -> Moments:
    """A product of independent signals."""
    return functools.reduce(contracted, factors)


def concatenated(parts: Sequence[Moments], sizes: Sequence[float]) -> Moments:
    """Signals side by side, weighted by their sizes: the law of total variance."""
    shares = [size / sum(sizes) for size in sizes]
    mean = sum(share * x.mean for share, x in zip(shares, parts, strict=True))
    second = sum(share * x.second for share, x in zip(shares, parts, strict=True))
    between = sum(share * x.shared_second for share, x in zip(shares, parts, strict=True))
    return Moments(mean, second - mean**2, between - mean**2)


def padded(x: Moments, share: float) -> Moments:
    """A signal that fills a share of the elements; the other elements are 0."""
    return Moments(share * x.mean, share * x.second - (share * x.mean) ** 2, share**2 * x.shared)


def averaged(x: Moments, positions: int = 1, channels: int = 1) -> Moments:
    """The mean over positions, which keeps the shared part, and over channels, which share nothing."""
    variance = (x.shared + (x.variance - x.shared) / positions) / channels
    return Moments(x.mean, variance, x.shared / channels)


def dropped(x: Moments, rate: float, whole: bool = False) -> Moments:
    """Inverted dropout in training, of single elements or of `whole` channels.

    Multiplicative noise of variance rate / (1 - rate), as GaussianDropout has, gives the same moments.
    """
    second, shared = x.second / (1 - rate), x.shared_second / (1 - rate) if whole else x.shared_second
    return Moments(x.mean, second - x.mean**2, shared - x.mean**2, x.sums_to_one)


def alpha_dropped(x: Moments, rate: float) -> Moments:
    """AlphaDropout in training: sets dropped units to SELU's floor, then maps so that (0, 1) stays (0, 1)."""
    keep, floor = 1 - rate, _SELU_FLOOR
    slope = 1 / math.sqrt(keep * (1 + rate * floor**2))
    mixture = concatenated([Moments(x.mean, x.variance), Moments(floor, 0.0)], [keep, rate])
    mixture = dataclasses.replace(mixture, shared=keep**2 * x.shared)
    return scaled(mixture, slope, -slope * floor * rate)


def noised(x: Moments, variance: float) -> Moments:
    """A signal with independent noise of mean 0."""
    return Moments(x.mean, x.variance + variance, x.shared)


def normalized(x: Moments, over_batch: bool) -> Moments:
    """A normalized signal, (0, 1).

    Statistics over the batch remove the part that all positions share; statistics within one input keep it.
    """
    within = 0.0 if over_batch or not x.variance else x.shared / x.variance
    return Moments(0.0, 1.0, within)


def rms_normalized(x: Moments, size: float = 1.0) -> Moments:
    """A signal divided by its root mean square and by sqrt(size): the second moment becomes 1 / size."""
    return scaled(x, 1 / math.sqrt((x.second or 1.0) * size))


def activated(activation: Activation, x: Moments) -> Moments:
    """The output of an activation f on a Gaussian signal: E f, Var f and the covariance at two positions.

    Args:
        activation: Name, function, layer or operation.
        x: Moments of the activation's input.

    Returns:
        The moments of the activation's output.

    Raises:
        ValueError: If f is not element-wise, is not finite, or has no second moment under a Gaussian.
    """
    function, spread = _fresh(activation), math.sqrt(x.variance)
    if not spread:
        return Moments(float(_values(function, np.array([x.mean]))[0]), 0.0)
    second, _ = second_moments(lambda z: function(spread * z + x.mean))
    mean, _, shared = _through(function, x, _DENSITY)
    values = _values(function, x.mean + spread * _GRID)
    origin = (activation, x) if np.all(np.diff(values) >= -1e-6 * np.ptp(values)) else None
    return Moments(mean, max(second - mean**2, 0.0), max(shared, 0.0), origin=origin)


def maximum(x: Moments, count: int) -> Moments:
    """The largest of the elements at `count` positions.

    The maximum of f(z) is f of the maximum of z for a monotone f. The maximum is therefore taken of the
    activation's input, which is Gaussian, and not of its output, which after a ReLU is not.
    """
    activation, before = x.origin or (None, x)
    return Moments(*_through(_fresh(activation), before, _density_of_maximum(count)))


def softmax(x: Moments, count: int) -> Moments:
    """Softmax weights over `count` Gaussian logits. The shared part cancels, since it shifts all logits."""
    second = _softmax_second(round(math.sqrt(max(x.variance - x.shared, 0.0)), 6), count)
    return Moments(1 / count, max(second - count**-2, 0.0), 0.0, sums_to_one=True)


def mixed(weights: Moments, x: Moments, count: int) -> Moments:
    """A mean of `count` positions with weights that sum to 1; it keeps the mean and the shared part."""
    kept = min(count * weights.second, 1.0)
    rest = x.variance - x.shared
    return Moments(x.mean, x.shared + kept * rest, x.shared + rest / count)


@functools.lru_cache(maxsize=256)
def _softmax_second(spread: float, count: int) -> float:
    """E w^2 of a softmax weight over `count` independent logits N(0, spread^2).

    w = exp(z_1) / S with S = sum of exp(z_i), in which the sum couples all logits. The identity
    1 / S^2 = integral of t exp(-t S) dt over t > 0 turns the sum in the exponent into a product, so that

        E w^2 = integral of t E[exp(2 z - t exp(z))] (E exp(-t exp(z)))^(count - 1) dt

    has one-dimensional expectations only. t runs over many orders of magnitude, hence the grid in log t.
    """
    logits, times = spread * _GRID, np.exp(np.linspace(-12 - 9 * spread, 12 + 9 * spread, 1001))
    mass = _DENSITY / _DENSITY.sum()
    decay = np.exp(-np.outer(times, np.exp(logits)))
    own = decay @ (mass * np.exp(2 * logits))
    others = (decay @ mass) ** (count - 1)
    values = times**2 * own * others  # t dt = t^2 d(log t)
    return float(np.clip(np.trapezoid(values, np.log(times)), count**-2, 1 / count))


@functools.lru_cache(maxsize=64)
def _density_of_maximum(count: int) -> np.ndarray:
    below = (1 + np.vectorize(math.erf)(_GRID / math.sqrt(2))) / 2
    return count * _DENSITY * below ** (count - 1)


def _through(
    function: Callable[[Tensor], Tensor], x: Moments, density: np.ndarray
) -> tuple[float, float, float]:
    """Mean, variance and covariance at two positions of f(shared part + own part).

    Given the shared part, two positions are independent: their covariance is the variance, over the shared
    part, of the mean over the own part.
    """
    shared = min(max(x.shared, 0.0), x.variance)
    centers = x.mean + math.sqrt(shared) * _NODES
    points = centers[:, None] + math.sqrt(x.variance - shared) * _GRID
    values = _values(function, points.reshape(-1)).reshape(points.shape)
    mass = density / density.sum()
    given = values @ mass  # the mean for each value of the shared part
    mean = float(_WEIGHTS @ given)
    second = float(_WEIGHTS @ (values**2 @ mass))
    return mean, max(second - mean**2, 0.0), max(float(_WEIGHTS @ given**2) - mean**2, 0.0)


def _fresh(activation: Activation | None) -> Callable[[Tensor], Tensor]:
    """The activation as a function of tensors of any shape."""
    if not isinstance(activation, keras.layers.Layer):
        return keras.activations.get(activation)
    # A layer such as PReLU has weights of one shape: each call gets a new layer of the same config.
    cls, config = type(activation), activation.get_config() | {"dtype": "float64"}
    return lambda tensor: cls.from_config(config)(tensor)


def _values(function: Callable[[Tensor], Tensor], points: np.ndarray) -> np.ndarray:
    # Four axes, as an image has: some activation layers refuse a vector.
    tensor = keras.ops.convert_to_tensor(points.reshape(1, 1, 1, -1), dtype="float64")
    return np.asarray(keras.ops.convert_to_numpy(function(tensor)), dtype="float64").reshape(-1)
