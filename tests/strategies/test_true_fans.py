"""What `initialize` promises: outputs of the variance of true fans, and signals that live by depth."""

import math

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx.strategies import ByRole
from support.fan_table import ROWS, SEEDS, array, assert_promised

LAWS = {
    "he": ("he_normal", lambda n, m: 2.0),
    "lecun": ("lecun_normal", lambda n, m: 1.0),
    "glorot": ("glorot_normal", lambda n, m: 2 * n / (n + m)),
    "orthogonal": (initx.initializers.OrthogonalScaled(preserve_norm=True), lambda n, m: 1.0),
    "by_role": ("by_role", lambda n, m: 1.0),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", ROWS)
def test_output_variance_of_each_layer_is_the_laws(name, law, rng):
    row, (scheme, promise) = ROWS[name], LAWS[law]
    layer = row.build("zeros")
    layer.build((None, *row.shape[1:]))
    ratios = []
    for seed in range(SEEDS):
        report = initx.initialize(layer, scheme, seed=seed)
        assert (report.rows[0].fans.fan_in, report.rows[0].fans.fan_out) == row.fans
        outputs = array(layer(rng.standard_normal(row.shape).astype("float32")))
        if row.crop:
            inner = (slice(row.crop, -row.crop),) * (outputs.ndim - 2)
            outputs = outputs[(slice(None), *inner)]
        ratios.append((outputs**2).mean() / promise(*row.fans))
    assert_promised(ratios)


@pytest.mark.parametrize("law", ["he", "lecun", "glorot"])
@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: layers.SeparableConv2D(128, 3), (8, 12, 12, 64)),
        (lambda: layers.SeparableConv2D(128, 3, depth_multiplier=2), (8, 12, 12, 64)),
        (lambda: layers.SeparableConv1D(128, 5), (10, 40, 64)),
    ],
)
def test_both_kernels_of_separable_layers(build, shape, law, rng):
    layer, (scheme, promise) = build(), LAWS[law]
    layer.build((None, *shape[1:]))
    ratios = []
    for seed in range(SEEDS):
        report = initx.initialize(layer, scheme, seed=seed)
        expected = math.prod(promise(row.fans.fan_in, row.fans.fan_out) for row in report.rows if row.fans)
        outputs = array(layer(rng.standard_normal(shape).astype("float32")))
        ratios.append((outputs**2).mean() / expected)
    assert_promised(ratios)


ATTENTION = {
    "multi-head": lambda: layers.MultiHeadAttention(8, 16),
    "grouped-query": lambda: layers.GroupQueryAttention(16, 8, 2),
}
RECURRENT = {
    "simple": lambda: layers.SimpleRNN(128),
    "lstm": lambda: layers.LSTM(128),
    "gru": lambda: layers.GRU(128),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", [*ATTENTION, *RECURRENT])
def test_attention_projections_and_gates(kind, law, rng):
    """Each gate's and each projection's block against Gaussian input."""
    scheme, promise = LAWS[law]
    layer = (ATTENTION | RECURRENT)[kind]()
    layer.build(*[(None, 5, 128)] * (2 if kind in ATTENTION else 1))
    ratios = {}
    for seed in range(SEEDS):
        report = initx.initialize(layer, scheme, seed=seed)
        for row in report.rows:
            if row.fans is None:
                continue
            kernel = array(next(s.kernel for s in initx.walk.iter_kernels(layer) if s.path == row.path))
            n, m = row.fans.fan_in, row.fans.fan_out
            outputs = rng.standard_normal((400, n)) @ kernel.reshape(n, -1)
            for block in np.split(outputs, outputs.shape[1] // m, -1):
                ratios.setdefault(row.path, []).append((block**2).mean() / promise(n, m))
    assert len(ratios) == (4 if kind in ATTENTION else 2)
    for found in ratios.values():
        assert_promised(np.reshape(found, (SEEDS, -1)).mean(1))


@pytest.mark.parametrize("law", ["he", "lecun", "glorot", "by_role"])
def test_convolutional_lstm_and_embeddings(law):
    scheme, promise = LAWS[law]
    lstm, embedding = layers.ConvLSTM2D(32, 3), layers.Embedding(2000, 128)
    lstm.build((None, 4, 8, 8, 32))
    embedding.build()
    initx.initialize(lstm, scheme, seed=1)
    initx.initialize(embedding, scheme, seed=1)
    kernel, rows = array(lstm.cell.kernel), array(embedding.embeddings)
    tolerance = 4 * math.sqrt(2 / kernel.size)
    assert math.isclose(kernel.var() * 288, promise(288, 288), rel_tol=tolerance)
    assert math.isclose(rows.var(), promise(1, 128), rel_tol=tolerance)


DEPTH, DRAWS, WIDTH = 50, 10, 512


def stack(kind, activation):
    """A net of 50 layers, and the shape of its input. Maps are so large that borders do not count."""

    def act(x):
        return layers.Activation(activation)(x) if isinstance(activation, str) else activation()(x)

    if kind == "dense":
        x = inputs = layers.Input((WIDTH,))
        for _ in range(DEPTH):
            x = act(layers.Dense(WIDTH)(x))
        return keras.Model(inputs, layers.Dense(64)(x))
    # A depthwise output sums 3 inputs only, so that a seed's second moment scatters more from layer to layer.
    width = 3 * WIDTH if kind == "separable" else WIDTH
    x = inputs = layers.Input((2 * DEPTH + 8, width))
    for _ in range(DEPTH):
        if kind == "transposed":  # without the borders, where an output sums less
            x = act(layers.Cropping1D(2)(layers.Conv1DTranspose(width, 3)(x)))
        else:
            x = act({"conv": layers.Conv1D, "separable": layers.SeparableConv1D}[kind](width, 3)(x))
    return keras.Model(inputs, layers.Conv1D(64, 1)(x))


ACTIVATIONS = {"relu": "relu", "leaky_relu": layers.LeakyReLU, "tanh": "tanh"}


@pytest.mark.slow
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", ["dense", "conv", "separable", "transposed"])
def test_signals_live_through_50_layers_under_by_role(kind, activation):
    model = stack(kind, ACTIVATIONS[activation])
    found = [second_moment(model, ByRole(), seed) for seed in range(DRAWS)]
    assert 0.5 < np.mean(found) < 2


def second_moment(model, scheme, seed):
    initx.initialize(model, scheme, seed=seed)
    inputs = np.random.default_rng(seed).standard_normal((4, *model.input_shape[1:])).astype("float32")
    return float((array(model(inputs)) ** 2).mean())


@pytest.mark.parametrize("kind", ["dense", pytest.param("separable", marks=pytest.mark.tensorflow)])
def test_keras_defaults_lose_the_signal_that_by_role_keeps(kind):
    model = stack(kind, "relu")
    assert second_moment(model, "glorot_uniform", 0) < 1e-6
    assert 0.1 < second_moment(model, "by_role", 0) < 10
