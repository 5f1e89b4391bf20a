"""What `initialize` promises: outputs of the variance of true fans, and signals that live by depth."""

import math

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx.initializers import GlorotScaled, HeScaled, LecunScaled, OrthogonalScaled
from keras_initx.state import stream_seed
from keras_initx.strategies import ByRole
from support.fan_table import ROWS, SEEDS, array, assert_promised

LAWS = {
    "he": ("he_normal", lambda n, m: 2.0),
    "lecun": ("lecun_normal", lambda n, m: 1.0),
    "glorot": ("glorot_normal", lambda n, m: 2 * n / (n + m)),
    "orthogonal": (OrthogonalScaled(preserve_norm=True), lambda n, m: 1.0),
    "by_role": ("by_role", lambda n, m: 1.0),
}


SAME = {
    "he": HeScaled(distribution="truncated_normal"),
    "lecun": LecunScaled(distribution="truncated_normal"),
    "glorot": GlorotScaled(distribution="truncated_normal"),
    "orthogonal": OrthogonalScaled(preserve_norm=True),
    "by_role": LecunScaled(distribution="normal"),  # of a layer that no activation follows
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", ROWS)
def test_each_layer_gets_the_draw_of_its_layout_from_the_stream_of_its_path(name, law):
    """`tests/initializers/test_layers.py` measures that these draws have the variance of the law."""
    row, (scheme, _) = ROWS[name], LAWS[law]
    layer = row.build("zeros")
    layer.build((None, *row.shape[1:]))
    (drawn,) = (r for r in initx.initialize(layer, scheme, seed=3).rows if r.fans)
    assert (drawn.fans.fan_in, drawn.fans.fan_out) == row.fans
    config = SAME[law].get_config() | {"layout": row.layout, "seed": stream_seed(3, drawn.path)}
    same = row.build(type(SAME[law])(**config))
    same.build((None, *row.shape[1:]))
    kernels = [next(array(w) for w in one.weights if "kernel" in w.name) for one in (layer, same)]
    np.testing.assert_allclose(*kernels, rtol=1e-5, atol=1e-7)


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


def stack(kind, activation, depth=DEPTH, width=WIDTH):
    """A deep net. Maps are so large that borders do not count."""

    def act(x):
        return layers.Activation(activation)(x) if isinstance(activation, str) else activation()(x)

    if kind == "dense":
        x = inputs = layers.Input((width,))
        for _ in range(depth):
            x = act(layers.Dense(width)(x))
        return keras.Model(inputs, layers.Dense(64)(x))
    # A depthwise output sums 3 inputs only, so that a seed's second moment scatters more from layer to layer.
    width *= 3 if kind == "separable" else 1
    x = inputs = layers.Input((2 * depth + 8, width))
    for _ in range(depth):
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
    model = stack(kind, "relu", depth=25, width=256)
    assert second_moment(model, "glorot_uniform", 0) < 1e-6
    assert 0.1 < second_moment(model, "by_role", 0) < 10
