import math

import numpy as np
import pytest
from keras import layers, ops

from keras_initx import initializers as initx


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), np.float64)


def assert_variance(values, expected):
    # At most the normal's kurtosis: a sample variance of n entries is sqrt(2 / n) off.
    assert abs(values.var() / expected - 1) < 4 * math.sqrt(2 / values.size)


@pytest.mark.parametrize(
    ("build", "kernel", "variance"),
    [
        (lambda: layers.DepthwiseConv2D(3, depthwise_initializer="initx>HeDepthwise"), "kernel", 2 / 9),
        (lambda: layers.DepthwiseConv2D(3, depthwise_initializer="initx>LecunDepthwise"), "kernel", 1 / 9),
        (
            lambda: layers.DepthwiseConv1D(
                5, depth_multiplier=4, depthwise_initializer="initx>GlorotDepthwise"
            ),
            "kernel",
            2 / (5 + 20),
        ),
        (
            lambda: layers.SeparableConv2D(128, 3, depthwise_initializer="initx>HeDepthwise"),
            "depthwise_kernel",
            2 / 9,
        ),
        (lambda: layers.Conv2DTranspose(32, 3, kernel_initializer="initx>HeTransposed"), "kernel", 2 / 2304),
        (
            lambda: layers.Conv2DTranspose(
                32, 4, strides=2, kernel_initializer=initx.LecunTransposed(strides=(2, 2))
            ),
            "kernel",
            1 / 1024,
        ),
        (
            lambda: layers.Conv2DTranspose(
                32, 4, strides=2, kernel_initializer=initx.GlorotTransposed(strides=2)
            ),
            "kernel",
            2 / (1024 + 512),
        ),
    ],
)
def test_recipe_gives_the_layer_its_true_variance(build, kernel, variance):
    layer = build()
    layer.build((None, *[9] * (1 if "1D" in type(layer).__name__ else 2), 256))
    assert_variance(array(getattr(layer, kernel)), variance)


@pytest.mark.parametrize(("layer", "gates"), [(layers.LSTM, 4), (layers.GRU, 3)])
def test_gates_have_fans_and_orthogonal_matrices_of_their_own(layer, gates):
    layer = layer(
        60,
        kernel_initializer=initx.GlorotGates(gates=gates),
        recurrent_initializer=initx.GatewiseOrthogonal(gates=gates),
    )
    layer.build((None, 7, 40))
    assert_variance(array(layer.cell.kernel), 2 / (40 + 60))
    for gate in np.split(array(layer.cell.recurrent_kernel), gates, axis=1):
        np.testing.assert_allclose(gate @ gate.T, np.eye(60), atol=1e-5)


RECURRENT = {
    "lstm": (lambda u, i: layers.LSTM(u, recurrent_initializer=i), (5, 3), 4),
    "gru": (lambda u, i: layers.GRU(u, recurrent_initializer=i), (5, 3), 3),
    "conv lstm": (lambda u, i: layers.ConvLSTM1D(u, 3, recurrent_initializer=i), (5, 9, 3), 4),
}


@pytest.mark.parametrize("units", [6, 16, 12])  # 3 * 16 and 4 * 12 are equal: the units must tell
@pytest.mark.parametrize("kind", RECURRENT)
def test_a_recurrent_kernel_tells_its_gates(kind, units):
    build, shape, gates = RECURRENT[kind]
    layer = build(units, "initx>GatewiseOrthogonal")
    layer.build((None, *shape))
    kernel = array(layer.cell.recurrent_kernel).reshape(-1, gates * units)
    for gate in np.split(kernel, gates, axis=1):
        np.testing.assert_allclose(gate.T @ gate, np.eye(units), atol=1e-5)


@pytest.mark.parametrize(("units", "cls", "gates"), [(50, layers.LSTM, 4), (65, layers.GRU, 3)])
def test_an_input_kernel_that_one_number_divides_tells_its_gates(units, cls, gates):
    layer = cls(units, kernel_initializer="initx>GlorotGates")
    layer.build((None, 5, 150))
    assert_variance(array(layer.cell.kernel), 2 / (150 + units))


@pytest.mark.parametrize("recipe", [initx.GlorotGates, initx.GatewiseOrthogonal])
@pytest.mark.parametrize(("cls", "units"), [(layers.LSTM, 48), (layers.GRU, 64)])
def test_an_input_kernel_that_both_divide_is_refused_until_it_is_told(recipe, cls, units):
    with pytest.raises(ValueError, match=r"192 is 4 gates of 48 units and 3 of 64. Pass gates=4 .* gates=3 "):
        cls(units, kernel_initializer=recipe()).build((None, 5, 5))
    told = cls(units, kernel_initializer=recipe(gates=192 // units))
    told.build((None, 5, 5))
    assert tuple(told.cell.kernel.shape) == (5, 192)


def test_a_kernel_that_neither_number_divides_is_refused():
    with pytest.raises(ValueError, match="neither 4 nor 3 divides 10"):
        initx.GatewiseOrthogonal()((3, 10))


def test_config_has_the_recipes_option_and_no_layout():
    assert "layout" not in initx.HeDepthwise().get_config()
    config = initx.HeTransposed(strides=(2, 1), activation="gelu").get_config()
    assert "layout" not in config
    assert (config["strides"], config["activation"]) == ([2, 1], "gelu")
    assert initx.HeTransposed(**config).layout.strides == (2, 1)


@pytest.mark.parametrize("strides", [0, -1, 1.5, None, "2", (2, 0)])
def test_strides_that_are_no_counts_are_refused(strides):
    with pytest.raises(ValueError, match="must be positive ints. Received: .*strides="):
        initx.HeTransposed(strides=strides)


def test_a_recipe_on_another_layer_is_refused():
    with pytest.raises(ValueError, match="`layout` must fit the kernel: .*depthwise.* needs at least 3 axes"):
        layers.Dense(4, kernel_initializer="initx>HeDepthwise").build((None, 3))
    with pytest.raises(ValueError, match="with the layout 'einsum', and with no other"):
        layers.EinsumDense("ab,bcd->acd", (2, 3), kernel_initializer="initx>HeDepthwise").build((None, 4))


@pytest.mark.parametrize("strides", [(2,), (2, 2, 2)])
def test_strides_of_another_rank_are_refused_on_the_call(strides):
    with pytest.raises(ValueError, match="one for each of the 2 axes of the field"):
        initx.HeTransposed(strides=strides)((3, 3, 4, 5))
