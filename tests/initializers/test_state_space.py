import math

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from keras_initx.initializers import HiPPO, HiPPOInput, LRURing, S4DLin, S4DReal, TimeStepBias

COUNT = 5000
VECTORS = {
    HiPPOInput: lambda n: np.sqrt(2 * n + 1),
    S4DReal: lambda n: np.log(n + 1),
    S4DLin: lambda n: np.pi * n,
}
RANDOM = pytest.mark.parametrize(
    ("law", "options"),
    [
        (LRURing, {}),
        (LRURing, {"part": "theta_log"}),
        (LRURing, {"r_min": 0.999, "r_max": 1.0}),
        (LRURing, {"r_min": 0.0, "r_max": 1e-30}),
        (TimeStepBias, {}),
        (TimeStepBias, {"transform": "log"}),
    ],
)


def array(tensor):
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float64")))


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_hippo_is_triangular_with_the_published_entries(size):
    matrix = array(HiPPO()((size, size)))
    n, k = np.indices((size, size))
    expected = np.where(n > k, -np.sqrt((2 * n + 1) * (2 * k + 1)), np.where(n == k, -(n + 1.0), 0))
    np.testing.assert_allclose(matrix, expected, rtol=1e-6)
    np.testing.assert_array_equal(np.diag(matrix), -np.arange(1.0, size + 1))


def test_hippo_has_the_eigenvalues_of_its_diagonal():
    eigenvalues = np.linalg.eigvals(array(HiPPO()((8, 8))))
    np.testing.assert_allclose(np.sort(eigenvalues.real), -np.arange(8.0, 0, -1), rtol=1e-4)


def test_hippo_keeps_a_constant_input_as_its_mean():
    # x' = (A x + B u) / t is at rest for u = 1 where A x = -B: the mean 1, and nothing of higher order.
    state = np.linalg.solve(array(HiPPO()((16, 16))), -array(HiPPOInput()((16,))))
    np.testing.assert_allclose(state, np.eye(16)[0], atol=1e-5)


def test_hippo_repeats_along_leading_axes():
    matrices = array(HiPPO()((2, 3, 4, 4)))
    np.testing.assert_array_equal(matrices, np.broadcast_to(matrices[0, 0], (2, 3, 4, 4)))


@pytest.mark.parametrize("shape", [(), (4,), (4, 3), (4, 4, 3)])
def test_hippo_needs_a_square(shape):
    with pytest.raises(
        ValueError, match=r"`shape` must end with two equal axes \(states, states\). Received: shape="
    ):
        HiPPO()(shape)


@pytest.mark.parametrize("law", VECTORS)
@pytest.mark.parametrize("shape", [(1,), (6,), (3, 6), (2, 3, 6), (0,), (0, 6)])
def test_vectors_follow_their_law_along_the_last_axis(law, shape):
    expected = np.broadcast_to(VECTORS[law](np.arange(shape[-1])), shape)
    np.testing.assert_allclose(array(law()(shape)), expected, rtol=1e-6)


@pytest.mark.parametrize("law", VECTORS)
def test_vectors_need_an_axis(law):
    with pytest.raises(ValueError, match=r"`shape` must end with an axis of states. Received: shape=\(\)"):
        law()(())


@pytest.mark.parametrize("law", [HiPPO, *VECTORS])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_structures_are_finite_in_half_precision(law, dtype):
    values = law()((256, 256), dtype)
    assert keras.backend.standardize_dtype(values.dtype) == dtype
    assert np.isfinite(array(values)).all()
    assert law().get_config() == {}


@pytest.mark.parametrize(("r_min", "r_max"), [(0.0, 1.0), (0.4, 0.9), (0.99, 0.999), (0.0, 0.1)])
def test_eigenvalues_are_uniform_on_the_ring(r_min, r_max):
    square = np.exp(-2 * np.exp(array(LRURing(r_min, r_max, seed=1)((COUNT,)))))
    assert stats.kstest(square, stats.uniform(r_min**2, r_max**2 - r_min**2).cdf).pvalue > 1e-4


@pytest.mark.parametrize("max_phase", [2 * math.pi, math.pi / 10])
def test_phases_are_uniform_and_independent_of_the_radii(max_phase):
    nu, theta = (
        array(LRURing(max_phase=max_phase, part=part, seed=1)((COUNT,))) for part in ("nu_log", "theta_log")
    )
    assert stats.kstest(np.exp(theta), stats.uniform(0, max_phase).cdf).pvalue > 1e-4
    assert stats.spearmanr(nu, theta).pvalue > 1e-4


@pytest.mark.parametrize(("dt_min", "dt_max"), [(1e-3, 0.1), (1e-4, 5.0)])
@pytest.mark.parametrize(
    ("transform", "inverse"), [("log", np.exp), ("inverse_softplus", lambda b: np.logaddexp(0, b))]
)
def test_time_steps_are_log_uniform(dt_min, dt_max, transform, inverse):
    step = inverse(array(TimeStepBias(dt_min, dt_max, transform, seed=1)((COUNT,))))
    assert (
        stats.kstest(np.log(step), stats.uniform(np.log(dt_min), np.log(dt_max / dt_min)).cdf).pvalue > 1e-4
    )
    assert step.min() > dt_min * (1 - 1e-5)
    assert step.max() < dt_max * (1 + 1e-5)


@RANDOM
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_draws_are_finite_in_every_dtype(law, options, dtype):
    values = law(seed=1, **options)((1000, 1000), dtype)
    assert np.isfinite(array(values)).all()
    assert law(**options)((3, 0), dtype).shape == (3, 0)


@pytest.mark.parametrize("edge", [0.0, 1.0])
@pytest.mark.parametrize(("r_min", "r_max"), [(0.0, 1.0), (0.999999, 1.0), (0.0, 0.1), (0.0, 1e-30)])
@pytest.mark.parametrize("part", ["nu_log", "theta_log"])
def test_extreme_draws_are_finite(monkeypatch, edge, r_min, r_max, part):
    def extreme(shape, low, high, dtype, seed):
        return ops.full(shape, low + edge * (high - low), dtype)

    monkeypatch.setattr(keras.random, "uniform", extreme)
    for dtype in ("float16", "bfloat16", "float32"):
        assert np.isfinite(array(LRURing(r_min, r_max, part=part)((3,), dtype))).all()


@RANDOM
def test_config_round_trip(law, options):
    config = keras.initializers.serialize(law(seed=4, **options))
    assert config["config"].items() >= (options | {"seed": 4}).items()
    assert keras.initializers.deserialize(config).get_config() == config["config"]


@RANDOM
def test_seeds(law, options):
    fixed = law(seed=3, **options)
    np.testing.assert_array_equal(array(fixed((40,))), array(fixed((40,))))
    stream = law(seed=keras.random.SeedGenerator(1), **options)
    assert (array(stream((40,))) != array(stream((40,)))).any()
    free, drawn = law(**options), []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        drawn += [array(free((40,))), array(free((40,)))]
    np.testing.assert_array_equal(drawn[:2], drawn[2:])
    assert (drawn[0] != drawn[1]).any()


@pytest.mark.parametrize(
    ("r_min", "r_max"), [(-0.1, 1), (0.5, 0.5), (0.9, 0.5), (0, 1.1), ("0", 1), (math.nan, 1)]
)
def test_radii_are_ordered(r_min, r_max):
    with pytest.raises(
        ValueError, match="`r_min` and `r_max` must be numbers with 0 <= r_min < r_max <= 1. Received"
    ):
        LRURing(r_min, r_max)


@pytest.mark.parametrize(
    ("law", "options", "message"),
    [
        (LRURing, {"max_phase": 0}, "`max_phase` must be a positive, finite number. Received: max_phase=0"),
        (LRURing, {"part": "gamma_log"}, r"`part` must be one of \['nu_log', 'theta_log'\]"),
        (TimeStepBias, {"dt_min": 0}, "`dt_min` must be a positive"),
        (TimeStepBias, {"dt_max": math.inf}, "`dt_max` must be a positive"),
        (
            TimeStepBias,
            {"dt_min": 0.1, "dt_max": 0.1},
            "`dt_min` must be below `dt_max`. Received: dt_min=0.1",
        ),
        (TimeStepBias, {"transform": "exp"}, r"`transform` must be one of \['inverse_softplus', 'log'\]"),
        (TimeStepBias, {"seed": "x"}, "`seed` must be None, an int or"),
    ],
)
def test_arguments_are_checked(law, options, message):
    with pytest.raises(ValueError, match=message):
        law(**options)
