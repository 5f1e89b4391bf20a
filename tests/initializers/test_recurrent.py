import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy import stats

from keras_initx.initializers._recurrent import ChronoBias, UniformGateBias

UNITS = 500
BOTH = pytest.mark.parametrize("law", [ChronoBias, UniformGateBias])
# A gate of the law kept open by p in (0, 1): how the opening is distributed, as a uniform variable.
UNIFORM = {
    ChronoBias: (lambda keep: np.exp(keep), stats.uniform(1, 98)),
    UniformGateBias: (lambda keep: 1 / (1 + np.exp(-keep)), stats.uniform(1 / UNITS, 1 - 2 / UNITS)),
}


def array(tensor):
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float64")))


def lstm_gates(bias):
    return np.split(array(bias), 4)


@BOTH
def test_forget_gate_of_an_lstm_follows_the_law_and_the_input_gate_mirrors_it(law):
    i, f, c, o = lstm_gates(law(seed=1)((4 * UNITS,)))
    transform, distribution = UNIFORM[law]
    assert stats.kstest(transform(f), distribution.cdf).pvalue > 1e-4
    np.testing.assert_array_equal(i, -f)
    assert not c.any()
    assert not o.any()


@BOTH
@pytest.mark.parametrize(("shape", "gates"), [((2, 3 * UNITS), None), ((3 * UNITS,), 3)])
def test_update_gate_of_a_gru_follows_the_law_once(law, shape, gates):
    bias = array(law(gates, seed=1)(shape) if law is UniformGateBias else law(gates=gates, seed=1)(shape))
    row = bias.reshape(-1, 3 * UNITS)[0]
    transform, distribution = UNIFORM[law]
    assert stats.kstest(transform(row[:UNITS]), distribution.cdf).pvalue > 1e-4
    assert np.count_nonzero(bias) <= UNITS
    assert not row[UNITS:].any()


@pytest.mark.parametrize("max_timescale", [2.5, 10, 1000])
def test_time_scales_of_chrono_are_within_their_bounds(max_timescale):
    forget = lstm_gates(ChronoBias(max_timescale, seed=2)((4 * UNITS,), "float64"))[1]
    timescale = 1 + np.exp(forget)
    # JAX draws float32 here: two roundings of relative size 2^-24, and one more for the logarithm's slope.
    slack = 1e-5 * max_timescale
    assert timescale.min() >= 2 - slack
    assert timescale.max() <= max_timescale + slack


def test_uniform_gate_of_few_units():
    np.testing.assert_array_equal(array(UniformGateBias(seed=1)((4,))), 0)
    np.testing.assert_array_equal(array(UniformGateBias(seed=1)((8,))), 0)


@BOTH
def test_gate_that_keeps_the_state_in_keras_is_the_one_filled(law):
    # With a zero kernel a GRU moves by (1 - z) * (candidate - state), and the candidate is tanh(0) = 0.
    layer = layers.GRU(
        6, kernel_initializer="zeros", recurrent_initializer="zeros", bias_initializer=law(seed=1)
    )
    state = layer(np.zeros((1, 1, 2)), initial_state=ops.ones((1, 6)))
    z = 1 / (1 + np.exp(-array(layer.cell.bias)[0, :6]))
    np.testing.assert_allclose(array(state)[0], z, rtol=1e-5)

    layer = layers.LSTM(
        8,
        kernel_initializer="zeros",
        recurrent_initializer="zeros",
        bias_initializer=law(seed=1),
        unit_forget_bias=False,
        return_state=True,
    )
    carry = layer(np.zeros((1, 1, 2)), initial_state=[ops.zeros((1, 8)), ops.ones((1, 8))])[2]
    f = lstm_gates(layer.cell.bias)[1]
    np.testing.assert_allclose(array(carry)[0], 1 / (1 + np.exp(-f)), rtol=1e-5)


@BOTH
def test_bias_in_each_recurrent_layer_of_keras(law):
    for layer, shape in [
        (layers.GRU(8, bias_initializer=law()), (None, 5, 3)),
        (layers.GRU(8, bias_initializer=law(gates=3), reset_after=False), (None, 5, 3)),
        (layers.LSTM(8, bias_initializer=law(), unit_forget_bias=False), (None, 5, 3)),
        (layers.ConvLSTM2D(8, 3, bias_initializer=law(), unit_forget_bias=False), (None, 5, 9, 9, 3)),
    ]:
        layer.build(shape)
        assert np.count_nonzero(array(layer.cell.bias)) in (8, 16)


@BOTH
def test_directions_of_a_bidirectional_layer_differ(law):
    layer = layers.Bidirectional(layers.LSTM(8, bias_initializer=law(), unit_forget_bias=False))
    layer.build((None, 5, 3))
    forward, backward = array(layer.forward_layer.cell.bias), array(layer.backward_layer.cell.bias)
    assert np.count_nonzero(forward) == np.count_nonzero(backward) == 16
    assert (forward != backward).any()


@BOTH
@pytest.mark.parametrize("units", [8, 6, 3, 1])
@pytest.mark.parametrize("gates", [None, 4, 3])
def test_unit_forget_bias_is_refused(law, units, gates):
    for layer, shape in [
        (layers.LSTM(units, bias_initializer=law(gates=gates)), (None, 5, 3)),
        (layers.ConvLSTM2D(units, 3, bias_initializer=law(gates=gates)), (None, 5, 9, 9, 3)),
        (layers.Bidirectional(layers.LSTM(units, bias_initializer=law(gates=gates))), (None, 5, 3)),
    ]:
        with pytest.raises(
            ValueError, match="`unit_forget_bias` must be False .* Set `unit_forget_bias=False`"
        ):
            layer.build(shape)


@BOTH
@pytest.mark.parametrize(
    ("shape", "gates"),
    [((10,), 4), ((10,), 3), ((2, 10), None), ((3, 9), None), ((2, 8), 4), ((), None), ((2, 2, 12), None)],
)
def test_shape_that_is_no_bias_is_refused(law, shape, gates):
    with pytest.raises(ValueError, match=r"`shape` must be .*, a bias of [34] gates. Received: shape=\("):
        law(gates=gates)(shape)


@BOTH
@pytest.mark.parametrize("units", [7, 9])  # 3 * 7 and 3 * 9 are no LSTM's
def test_a_gru_without_reset_after_has_its_update_gate_filled(law, units):
    layer = layers.GRU(units, bias_initializer=law(seed=1), reset_after=False)
    layer.build((None, 5, 3))
    assert np.all(array(layer.cell.bias)[:units])
    assert not np.any(array(layer.cell.bias)[units:])


@BOTH
def test_a_bias_that_an_lstm_and_a_gru_could_have_is_refused_until_it_is_told(law):
    for gates, cls, options in [
        (3, lambda **o: layers.GRU(8, **o), {"reset_after": False}),
        (4, lambda **o: layers.LSTM(6, **o), {"unit_forget_bias": False}),
    ]:
        with pytest.raises(ValueError, match=r"24 is 4 gates of 6 units and 3 of 8. Pass gates=4 .*gates=3 "):
            cls(bias_initializer=law(), **options).build((None, 5, 3))
        layer = cls(bias_initializer=law(gates=gates), **options)
        layer.build((None, 5, 3))
        filled = array(layer.cell.bias).reshape(gates, -1).any(axis=1)
        np.testing.assert_array_equal(
            filled, [True, False, False] if gates == 3 else [True, True, False, False]
        )
    with pytest.raises(ValueError, match="neither 4 nor 3 divides 10"):
        law()((10,))


@BOTH
@pytest.mark.parametrize("gates", [0, 2, 5, "lstm", True])
def test_gates_are_three_or_four(law, gates):
    with pytest.raises(ValueError, match=r"`gates` must be one of \[3, 4\] or None. Received: gates="):
        law(gates=gates)


@pytest.mark.parametrize(
    ("value", "rule"),
    [(2, "above 2"), (1.5, "above 2"), (0, "positive"), (float("nan"), "positive"), ("9", "pos")],
)
def test_max_timescale_is_above_two(value, rule):
    with pytest.raises(ValueError, match=f"`max_timescale` must be .*{rule}.*Received: max_timescale="):
        ChronoBias(value)


@BOTH
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("shape", [(0,), (2, 0), (4,), (4096,), (2, 3072)])
def test_every_dtype_is_finite(law, dtype, shape):
    bias = law(seed=1)(shape, dtype)
    assert keras.backend.standardize_dtype(bias.dtype) == dtype
    assert tuple(bias.shape) == shape
    assert np.isfinite(array(bias)).all()


@pytest.mark.parametrize(
    ("bias", "config"),
    [
        (ChronoBias(50, 4, 7), {"max_timescale": 50.0, "gates": 4, "seed": 7}),
        (UniformGateBias(3), {"gates": 3, "seed": None}),
    ],
)
def test_config_round_trip(bias, config):
    assert bias.get_config() == config
    saved = keras.initializers.serialize(bias)
    assert keras.initializers.deserialize(saved).get_config() == config


@BOTH
def test_seeds(law):
    fixed = law(seed=3)
    np.testing.assert_array_equal(array(fixed((40,))), array(fixed((40,))))
    stream = law(seed=keras.random.SeedGenerator(1))
    assert (array(stream((40,))) != array(stream((40,)))).any()
    free, drawn = law(), []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        drawn += [array(free((40,))), array(free((40,)))]
    np.testing.assert_array_equal(drawn[0], drawn[2])
    np.testing.assert_array_equal(drawn[1], drawn[3])
    assert (drawn[0] != drawn[1]).any()
