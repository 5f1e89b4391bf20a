import math

import keras
import numpy as np
import pytest
from keras import ops
from scipy import optimize

from keras_initx import initializers as initx
from keras_initx.gains import second_moments


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), np.float64)


@pytest.mark.parametrize(("bias_variance", "weight_variance"), [(0.05, 1.760955), (0.01, 1.424205), (0, 1)])
def test_critical_tanh_has_the_values_of_an_independent_solution(bias_variance, weight_variance):
    critical = initx.EdgeOfChaos("tanh", bias_std=math.sqrt(bias_variance))
    assert math.isclose(critical.weight_std**2, weight_variance, abs_tol=2e-6)


@pytest.mark.parametrize(
    ("activation", "bias_std"),
    [("tanh", 0.2), ("elu", 0.2), ("softsign", 0.3), ("sigmoid", 0.0), ("gelu", 0.5)],
)
def test_variance_settles_where_slopes_keep_their_size(activation, bias_std):
    weight_variance = initx.EdgeOfChaos(activation, bias_std).weight_std ** 2

    def next_layers(q):  # the length map
        return bias_std**2 + weight_variance * second_moments(activation, math.sqrt(q))[0]

    q = float(optimize.fixed_point(next_layers, 1.0, xtol=1e-7))
    for other in (0.8 * q, 1.2 * q):  # it settles there: each layer comes nearer
        assert abs(next_layers(other) - q) < abs(other - q)
    assert math.isclose(weight_variance * second_moments(activation, math.sqrt(q))[1], 1, abs_tol=1e-3)


@pytest.mark.parametrize(("activation", "variance"), [("relu", 2.0), ("linear", 1.0), ("elu", 1.0)])
def test_without_bias_the_slope_at_zero_decides(activation, variance):
    assert math.isclose(initx.EdgeOfChaos(activation).weight_std ** 2, variance, abs_tol=1e-5)


@pytest.mark.parametrize(
    ("activation", "bias_std"), [("relu", 0.1), ("gelu", 0.0), ("silu", 0.2), ("tanh_shrink", 0.0)]
)
def test_activations_without_a_stable_critical_point_are_refused(activation, bias_std):
    with pytest.raises(ValueError, match="must have a stable critical point.*Received: activation="):
        initx.EdgeOfChaos(activation, bias_std)


def test_an_activation_that_is_not_element_wise_is_refused():
    with pytest.raises(ValueError, match="`activation` must be element-wise"):
        initx.EdgeOfChaos("softmax")


@pytest.mark.parametrize("bias_std", [-0.1, float("nan"), float("inf"), "1", None])
def test_bias_std_must_be_a_size(bias_std):
    with pytest.raises(ValueError, match="`bias_std` must be"):
        initx.EdgeOfChaos(bias_std=bias_std)


@pytest.mark.parametrize("first", [True, False])
def test_siren_entries_fill_the_papers_interval(first):
    values = array(initx.SIREN(omega=20.0, first=first, seed=1)((500, 400))).ravel()
    bound = 1 / 500 if first else math.sqrt(6 / 500) / 20
    assert bound * (1 - 1e-4) < abs(values).max() <= bound * (1 + 1e-6)
    assert abs(values.var() / (bound**2 / 3) - 1) < 4 * math.sqrt(0.8 / values.size)


def test_siren_preactivations_have_one_law_at_each_depth(rng):
    """E sin^2 of N(0, v) is (1 - exp(-2 v)) / 2, and the kernels double it: v = 1 - exp(-2 v) = 0.7968."""
    omega, signal = 30.0, rng.uniform(-1, 1, (500, 2))
    for depth, units in enumerate([256] * 6):
        kernel = array(initx.SIREN(omega, first=depth == 0)((signal.shape[1], units)))
        argument = omega * signal @ kernel
        signal = np.sin(argument)
        if depth > 2:
            # A kernel's variance is off by sqrt(0.8 / 65536), the signal's by some percent for 256 units.
            assert math.isclose(argument.var(), 0.7968, rel_tol=0.1)


@pytest.mark.parametrize(("mode", "bias"), [("fan_in", False), ("fan_in", True), ("fan_out", False)])
def test_generated_kernels_have_hes_variance(mode, bias, rng):
    head = array(initx.Hyperfan(mode=mode, generates_bias=bias, seed=2)((64, 3, 3, 8, 16)))
    kernels = np.tensordot(rng.standard_normal((400, 64)), head, 1)
    expected = 2 / (72 if mode == "fan_in" else 144) / (2 if bias else 1)
    # 64 embedding entries times 1152 generated ones are as many independent numbers, at least.
    assert math.isclose(kernels.var(), expected, rel_tol=4 * math.sqrt(2 / (64 * 400) + 2 / (64 * 1152)))


def test_a_flat_head_is_told_what_it_generates():
    flat = array(initx.Hyperfan(generated_shape=(40, 30), seed=3)((50, 1200)))
    assert abs(flat.var() * 40 * 50 / 2 - 1) < 4 * math.sqrt(2 / flat.size)
    with pytest.raises(ValueError, match="`generated_shape` must be the shape of the kernel"):
        initx.Hyperfan()((50, 1200))
    with pytest.raises(ValueError, match=r"Received: generated_shape=\(40, 31\), shape=\(50, 1200\)"):
        initx.Hyperfan(generated_shape=(40, 31))((50, 1200))


def test_irnn_keeps_a_state_without_input():
    layer = keras.layers.SimpleRNN(5, activation="relu", recurrent_initializer="initx>IRNN")
    state = ops.convert_to_tensor(np.arange(5.0, dtype="float32")[None])
    np.testing.assert_array_equal(array(layer(ops.zeros((1, 100, 3)), initial_state=state)), array(state))
    with pytest.raises(ValueError, match="`shape` must be square for IRNN"):
        keras.layers.LSTM(5, recurrent_initializer="initx>IRNN").build((None, 3, 2))
