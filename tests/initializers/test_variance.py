import json
import math

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy import stats

from keras_initx.initializers import ConstantFill, GlorotScaled, HeScaled, LecunScaled, RandomScaled

SHAPE = (3, 3, 40, 120)  # fan_in 360, fan_out 1080
N = {"fan_in": 360, "fan_out": 1080, "fan_avg": 720, "fan_geom": math.sqrt(360 * 1080)}
COUNT = math.prod(SHAPE)
# Kurtosis of the three laws: the relative variance of a sample variance is (kurtosis - 1) / count.
KURTOSIS = {"normal": 3.0, "truncated_normal": 2.37, "uniform": 1.8}


def sample(initializer, shape=SHAPE):
    return np.asarray(ops.convert_to_numpy(initializer(shape)), np.float64).ravel()


def assert_variance(values, expected, distribution):
    standard_error = expected * math.sqrt((KURTOSIS[distribution] - 1) / values.size)
    assert abs(values.var() - expected) < 4 * standard_error
    assert abs(values.mean()) < 4 * math.sqrt(expected / values.size)


@pytest.mark.parametrize("distribution", sorted(KURTOSIS))
@pytest.mark.parametrize("mode", sorted(N))
@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_variance_is_gain_squared_over_n(gain, mode, distribution):
    values = sample(RandomScaled(gain, mode=mode, distribution=distribution, seed=1))
    assert_variance(values, gain**2 / N[mode], distribution)


@pytest.mark.parametrize(
    ("cls", "variance", "distribution"),
    [
        (RandomScaled, 1 / 360, "normal"),
        (GlorotScaled, 2 / (360 + 1080), "uniform"),
        (HeScaled, 2 / 360, "normal"),
        (LecunScaled, 1 / 360, "truncated_normal"),
    ],
)
def test_recipes_have_their_papers_law_by_default(cls, variance, distribution):
    initializer = cls(seed=2)
    assert initializer.distribution == distribution
    assert_variance(sample(initializer), variance, distribution)


@pytest.mark.parametrize("distribution", sorted(KURTOSIS))
def test_distribution_passes_kolmogorov_and_smirnov(distribution):
    values = sample(RandomScaled(distribution=distribution, seed=3))
    stddev = math.sqrt(1 / 360)
    cut = stddev / 0.87962566103423978
    law = {
        "normal": stats.norm(scale=stddev),
        "truncated_normal": stats.truncnorm(-2, 2, scale=cut),
        "uniform": stats.uniform(-math.sqrt(3) * stddev, 2 * math.sqrt(3) * stddev),
    }[distribution]
    # One draw of a fixed seed: p is uniform under the law, so the chance of a false alarm is 1e-4.
    assert stats.kstest(values, law.cdf).pvalue > 1e-4
    low, high = law.support()
    assert values.min() >= low * (1 + 1e-6)
    assert values.max() <= high * (1 + 1e-6)


def test_no_entry_is_beyond_the_cut():
    """Keras' own draws on torch put four of a million there: of four million entries some sixteen."""
    values = sample(LecunScaled(seed=3), (1000, 4000))
    cut = 2 / 0.87962566103423978 / math.sqrt(1000)
    assert abs(values).max() <= cut * (1 + 1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_the_rounded_float32_draw(dtype):
    initializer = HeScaled(seed=4)
    half = ops.cast(initializer((50, 60), dtype), "float32")
    full = ops.cast(ops.cast(initializer((50, 60), "float32"), dtype), "float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(half), ops.convert_to_numpy(full))


@pytest.mark.parametrize(
    ("ours", "theirs", "distribution"),
    [
        (LecunScaled, keras.initializers.LecunNormal, "truncated_normal"),
        (GlorotScaled, keras.initializers.GlorotUniform, "uniform"),
    ],
)
def test_keras_own_initializer_draws_the_same_distribution(ours, theirs, distribution):
    ours, theirs = sample(ours(seed=5)), sample(theirs(seed=6))
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-4


def test_one_seed_gives_shapes_uncorrelated_streams():
    """In Keras the smaller kernel is the beginning of the larger one."""
    small, large = sample(HeScaled(seed=7), (80, 40)), sample(HeScaled(seed=7), (40, 80))
    assert abs(np.corrcoef(small, large)[0, 1]) < 4 / math.sqrt(small.size)
    keras_pair = (sample(keras.initializers.HeNormal(seed=7), shape) for shape in [(80, 40), (40, 80)])
    assert np.corrcoef(*keras_pair)[0, 1] > 0.99


@pytest.mark.parametrize("activation", [None, "gelu", keras.activations.tanh, keras.layers.LeakyReLU(0.1)])
def test_activation_brings_its_own_gain(activation):
    from keras_initx.gains import compute_gain

    values = sample(HeScaled(activation=activation, seed=8))
    assert_variance(values, compute_gain(activation) ** 2 / 360, "normal")
    backward = sample(HeScaled(activation=activation, mode="fan_out", seed=8))
    assert_variance(backward, compute_gain(activation, backward=True) ** 2 / 1080, "normal")


@keras.saving.register_keras_serializable(package="test_variance")
def registered(x):
    return ops.sin(x)


@pytest.mark.parametrize(
    "activation", ["gelu", keras.activations.tanh, keras.layers.LeakyReLU(0.1), registered]
)
def test_activation_survives_a_config(activation):
    config = keras.initializers.serialize(HeScaled(activation=activation, seed=9))
    np.testing.assert_array_equal(
        sample(keras.initializers.get(json.loads(json.dumps(config)))),
        sample(HeScaled(activation=activation, seed=9)),
    )


def test_unregistered_activation_cannot_be_saved():
    initializer = HeScaled(activation=lambda x: ops.sin(x))
    assert tuple(initializer((3, 4)).shape) == (3, 4)
    with pytest.raises(ValueError, match="`activation` must be a name.*register_keras_serializable"):
        initializer.get_config()


def test_activation_that_is_not_element_wise_is_refused():
    with pytest.raises(ValueError, match="`activation` must be element-wise"):
        HeScaled(activation="softmax")


@pytest.mark.parametrize(("cls", "expected"), [(HeScaled, 2.0), (LecunScaled, 1.0), (GlorotScaled, 1.0)])
def test_attention_projections_keep_the_laws_variance(cls, expected):
    """d = 128 inputs to 8 heads of 16: fan_in = fan_out = 128, whatever the kernel's shape."""
    attention = layers.MultiHeadAttention(8, 16, kernel_initializer=cls(seed=6))
    attention.build((None, 5, 128), (None, 5, 128))
    kernels = [v for v in attention.weights if v.path.endswith("kernel")]
    assert len(kernels) == 4
    for kernel in kernels:
        values = np.asarray(ops.convert_to_numpy(kernel)).ravel()
        assert_variance(values, expected / 128, cls().distribution)


def test_one_input_kernel_is_drawn():
    assert tuple(HeScaled()((1,)).shape) == (1,)
    assert tuple(HeScaled()(()).shape) == ()


def test_constant_fill_is_constant():
    assert ConstantFill().value == 0.05
    assert (ops.convert_to_numpy(ConstantFill(-2)((3, 4))) == -2).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", None, True])
def test_constant_that_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="`value` must be a finite number. Received: value="):
        ConstantFill(value)


def test_unknown_mode_and_distribution_are_refused():
    with pytest.raises(
        ValueError, match=r"`mode` must be one of \['fan_avg', 'fan_geom', 'fan_in', 'fan_out'\]"
    ):
        RandomScaled(mode="fan")
    with pytest.raises(ValueError, match=r"`distribution` must be one of .* Received: distribution='gauss'"):
        HeScaled(distribution="gauss")
