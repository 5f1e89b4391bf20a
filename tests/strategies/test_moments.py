"""Each map of moments against samples of what it maps."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_initx.strategies import _moments as maps
from keras_initx.strategies._moments import Moments

DRAWS = 200_000
SIGNALS = [Moments(0.0, 1.0), Moments(0.7, 2.0, 0.8), Moments(-1.2, 0.3, 0.3), Moments(0.1, 0.5, 0.25)]


def sample(rng, x, positions, draws=DRAWS):
    """Gaussian signals at positions that share a part."""
    common = np.sqrt(x.shared) * rng.standard_normal((draws, 1))
    return x.mean + common + np.sqrt(x.variance - x.shared) * rng.standard_normal((draws, positions))


def assert_moments(found, samples):
    """Within five standard errors of what two positions of the samples say, and the grid's 2e-3."""
    one, other = samples[:, 0], samples[:, -1]
    size = np.sqrt(len(one))
    spread = one.std() or 1e-9
    assert found.mean == pytest.approx(one.mean(), abs=5 * spread / size + 1e-3)
    centered = (one - one.mean()) ** 2
    slack = 2e-3 * max(one.var(), 1e-6)
    assert found.variance == pytest.approx(one.var(), abs=5 * centered.std() / size + slack)
    if samples.shape[1] > 1:
        products = (one - one.mean()) * (other - other.mean())
        assert found.shared == pytest.approx(products.mean(), abs=5 * products.std() / size + slack)


def numpy_of(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor), dtype="float64")


@pytest.mark.parametrize("x", SIGNALS, ids=str)
@pytest.mark.parametrize(
    "activation",
    [
        "relu",
        "tanh",
        "gelu",
        "elu",
        "sigmoid",
        "silu",
        layers.LeakyReLU(0.3),
        layers.PReLU(),
        keras.ops.square,
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_activations(activation, x, rng):
    points = sample(rng, x, 2)
    function = activation if callable(activation) else keras.activations.get(activation)
    values = numpy_of(function(keras.ops.convert_to_tensor(points, "float32")))
    assert_moments(maps.activated(activation, x), values)


def test_a_constant_signal_stays_constant_through_an_activation():
    assert maps.activated("relu", Moments(2.0, 0.0)) == Moments(2.0, 0.0)


@pytest.mark.parametrize("x", SIGNALS, ids=str)
def test_sums_products_and_scalars(x, rng):
    y = Moments(0.4, 1.5, 0.2)
    a, b = sample(rng, x, 2), sample(rng, y, 2)
    assert_moments(maps.added([x, y]), a + b)
    assert_moments(maps.added([x, y], [1.0, -1.0]), a - b)
    assert_moments(maps.multiplied([x, y]), a * b)
    assert_moments(maps.scaled(x, -0.5, 2.0), 2 - 0.5 * a)
    four = [(sample(rng, x, 2), sample(rng, y, 2)) for _ in range(4)]
    assert_moments(maps.contracted(x, y, 4), sum(p * q for p, q in four))


@pytest.mark.parametrize("x", SIGNALS, ids=str)
def test_mixtures_and_noise(x, rng):
    y = Moments(0.4, 1.5, 0.2)
    a, b = sample(rng, x, 2), sample(rng, y, 2)
    first = rng.random((DRAWS, 2)) < 0.25
    assert_moments(maps.concatenated([x, y], [1, 3]), np.where(first[:, :1], a, b))  # a channel is one's
    assert_moments(maps.padded(x, 0.25), np.where(first, a, 0))
    assert_moments(maps.dropped(x, 0.75), np.where(first, a / 0.25, 0))
    assert_moments(maps.dropped(x, 0.75, whole=True), np.where(first[:, :1], a / 0.25, 0))
    assert_moments(maps.noised(x, 0.5), a + np.sqrt(0.5) * rng.standard_normal(a.shape))


def test_alpha_dropout_keeps_zero_and_one():
    found = maps.alpha_dropped(Moments(), 0.3)
    assert (found.mean, found.variance) == pytest.approx((0, 1))


@pytest.mark.parametrize("x", SIGNALS, ids=str)
@pytest.mark.parametrize("count", [1, 4, 9])
def test_pooling(count, x, rng):
    windows = sample(rng, x, 2 * count, DRAWS // 2).reshape(-1, 2, count)
    assert_moments(maps.averaged(x, count), windows.mean(axis=2))
    assert_moments(maps.maximum(x, count), windows.max(axis=2))
    rectified = maps.activated("relu", x)
    assert_moments(maps.maximum(rectified, count), np.maximum(windows, 0).max(axis=2))


def test_the_maximum_of_what_no_monotone_function_made_is_taken_as_gaussian():
    assert maps.activated("relu", Moments()).origin is not None
    assert maps.activated(keras.ops.square, Moments()).origin is None


@pytest.mark.parametrize("count", [2, 5, 64])
@pytest.mark.parametrize("spread", [0.5, 1.0, 4.0])
def test_softmax_weights_and_what_they_mix(count, spread, rng):
    draws = 20_000
    logits = spread * rng.standard_normal((draws, count))
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    found = maps.softmax(Moments(3.0, spread**2 + 0.5, 0.5), count)
    assert found.mean == pytest.approx(1 / count)
    squares = (weights**2).mean(axis=1)
    assert found.second == pytest.approx(squares.mean(), abs=5 * squares.std() / np.sqrt(draws) + 1e-6)
    x = Moments(0.7, 2.0, 0.8)
    mixture = (weights * sample(rng, x, count, draws)).sum(axis=1, keepdims=True)
    assert_moments(maps.mixed(found, x, count), mixture)


def test_normalizations():
    x = Moments(0.7, 2.0, 0.8)
    assert maps.normalized(x, over_batch=True) == Moments(0, 1, 0)
    assert maps.normalized(x, over_batch=False) == Moments(0, 1, 0.4)
    assert maps.rms_normalized(x).second == pytest.approx(1)
    assert maps.rms_normalized(x, 8).second == pytest.approx(1 / 8)
