"""Under `initialize` the layer tells how many gates a kernel or a bias holds, whatever the shape could be."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx

# 4 * 12 = 3 * 16: no shape of these tells the gates but that of a recurrent kernel.
LAYERS = {
    "lstm": (layers.LSTM(12, name="r"), (5, 16), 4, 12),
    "gru": (layers.GRU(16, name="r"), (5, 12), 3, 16),
    "gru, reset before": (layers.GRU(16, reset_after=False, name="r"), (5, 16), 3, 16),
    "conv lstm": (layers.ConvLSTM1D(12, 3, name="r"), (5, 9, 16), 4, 12),
}
EACH = pytest.mark.parametrize("kind", LAYERS)


def drawn(kind, scheme, **options):
    layer, shape, gates, units = LAYERS[kind]
    layer = type(layer).from_config(layer.get_config())
    model = keras.Sequential([layers.Input(shape), layer])
    report = initx.initialize(model, scheme, seed=3, **options)
    found = {v.name: np.asarray(keras.ops.convert_to_numpy(v), np.float64) for v in layer.weights}
    return found, gates, units, report


@EACH
@pytest.mark.parametrize(
    "scheme",
    [
        "initx>GatewiseOrthogonal",
        initx.initializers.OrthogonalScaled(layout="gates"),
        "orthogonal",
        "by_role",
    ],
    ids=str,
)
def test_each_gate_of_a_recurrent_kernel_is_orthogonal(kind, scheme):
    found, gates, units, _ = drawn(kind, scheme, include="recurrent")
    for gate in np.split(found["recurrent_kernel"].reshape(-1, gates * units), gates, axis=1):
        np.testing.assert_allclose(gate.T @ gate, np.eye(units), atol=1e-5)


@EACH
@pytest.mark.parametrize("scheme", ["initx>GlorotGates", "initx>GlorotScaled", "glorot_uniform"])
def test_each_gate_of_an_input_kernel_has_glorots_variance(kind, scheme):
    found, gates, _, report = drawn(kind, scheme, include="gates")
    kernel = found["kernel"]
    fan_in, fan_out = kernel[..., 0].size, kernel.size // kernel.shape[-2] // gates
    assert report.rows[0].fans == initx.fans.Fans(fan_in, fan_out)
    bound = (6 / (fan_in + fan_out)) ** 0.5
    # The largest of n uniform entries is within bound * 12 / n of the bound, but for a chance of e^-12.
    assert bound * (1 - 12 / kernel.size) < np.abs(kernel).max() <= bound


@EACH
@pytest.mark.parametrize("law", ["initx>ChronoBias", "initx>UniformGateBias"])
def test_the_gate_that_keeps_the_state_is_the_one_filled(kind, law):
    found, gates, units, _ = drawn(kind, None, overrides={"bias": law})
    rows = found["bias"].reshape(-1, gates, units)
    filled = [False, True, False, False] if gates == 4 else [True, False, False]
    mirrored = [True, False, False, False] if gates == 4 else [False] * 3
    np.testing.assert_array_equal(np.any(rows[0] != 0, axis=1), np.logical_or(filled, mirrored))
    assert not np.any(rows[1:])
    if gates == 4:
        np.testing.assert_array_equal(rows[0, 0], -rows[0, 1])
    if law == "initx>ChronoBias":
        assert (rows[0, filled] > 0).all()  # a gate that keeps is open


@pytest.mark.parametrize("scheme", ["initx>HeTransposed", "initx>LecunDepthwise", "initx>GlorotDepthwise"])
def test_recipes_get_the_strides_of_the_layer(scheme):
    transposed = "Transposed" in scheme
    layer = layers.Conv2DTranspose(24, 4, strides=2) if transposed else layers.DepthwiseConv2D(4, strides=2)
    model = keras.Sequential([layers.Input((9, 9, 64)), layer])
    (row, _) = initx.initialize(model, scheme, seed=1).rows
    fans = {"fan_in": 64 * 4, "fan_out": 24 * 16} if transposed else {"fan_in": 16, "fan_out": 4}
    assert row.fans.to_dict() == fans
    variance = {"initx>HeTransposed": 2 / 256, "initx>LecunDepthwise": 1 / 16}.get(scheme, 2 / 20)
    assert abs(row.std**2 / variance - 1) < 4 * (2 / layer.kernel.value.shape[0] ** 2 / 64) ** 0.5
