"""Real Keras layers, each with the layout that is its own, keep the variance that the law promises."""

import math

import keras
import numpy as np
import pytest
from keras import layers

from keras_initx.fans import Layout, compute_fans
from keras_initx.initializers import GlorotScaled, HeScaled, LecunScaled, OrthogonalScaled
from support.fan_table import ROWS, SEEDS, array, assert_promised

LAWS = {
    "he": (HeScaled, lambda n, m: 2.0),
    "lecun": (LecunScaled, lambda n, m: 1.0),
    "glorot": (GlorotScaled, lambda n, m: 2 * n / (n + m)),
}
rows = pytest.mark.parametrize("name", ROWS)


def mean_square(row, initializer, rng):
    """Of the outputs of a fresh layer on fresh Gaussian inputs, away from the borders."""
    layer = row.build(initializer)
    outputs = array(layer(rng.standard_normal(row.shape).astype("float32")))
    if row.crop:
        inner = (slice(row.crop, -row.crop),) * (outputs.ndim - 2)
        outputs = outputs[(slice(None), *inner)]
    return (outputs**2).mean(), layer


@rows
@pytest.mark.parametrize("law", LAWS)
def test_output_variance_is_what_the_law_promises_for_the_true_fans(name, law, rng):
    row, (cls, promise) = ROWS[name], LAWS[law]
    ratios = []
    for seed in range(SEEDS):
        initializer = cls(distribution="normal", layout=row.layout, seed=seed)
        ratios.append(mean_square(row, initializer, rng)[0] / promise(*row.fans))
    assert_promised(ratios)


@rows
def test_orthogonal_kernels_keep_the_variance_with_preserved_norm(name, rng):
    row = ROWS[name]
    ratios = [
        mean_square(row, OrthogonalScaled(preserve_norm=True, layout=row.layout, seed=seed), rng)[0]
        for seed in range(SEEDS)
    ]
    assert_promised(ratios)


@rows
def test_fans_of_the_built_kernel_are_the_true_ones(name, rng, monkeypatch):
    row, seen, split = ROWS[name], [], HeScaled.split

    def spy(self, shape):  # EinsumDense gives its axes to a copy that it does not keep
        seen.append(split(self, shape))
        return seen[-1]

    monkeypatch.setattr(HeScaled, "split", spy)
    mean_square(row, HeScaled(layout=row.layout), rng)
    (axes,) = seen
    assert (axes.fans.fan_in, axes.fans.fan_out) == row.fans


@pytest.mark.parametrize(
    ("name", "cls", "defect"),
    [
        ("depthwise 16", keras.initializers.HeNormal, 1 / 16),
        ("transposed2d dcgan", keras.initializers.HeNormal, 128 / (64 * 4)),
        ("conv2d 8 groups", keras.initializers.GlorotNormal, (36 + 72) / (36 + 8 * 72)),
        ("einsum experts", keras.initializers.GlorotNormal, (64 + 64) / (64 + 32 * 64)),
    ],
)
def test_keras_own_initializers_miss_it_by_the_closed_forms(name, cls, defect, rng):
    """The same measurement sees what is wrong: so a wrong fan of ours would not pass."""
    row, law = ROWS[name], LAWS["he" if cls is keras.initializers.HeNormal else "glorot"]
    measured = [mean_square(row, cls(seed), rng)[0] / law[1](*row.fans) for seed in range(SEEDS)]
    assert math.isclose(np.mean(measured), defect, rel_tol=0.15)
    assert defect < 0.6


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("rank", [1, 2])
def test_separable_layers_keep_the_variance_through_both_kernels(rank, multiplier, rng):
    cls, size = (layers.SeparableConv1D, 5) if rank == 1 else (layers.SeparableConv2D, 3)
    ratios = []
    for seed in range(SEEDS):
        layer = cls(
            128,
            size,
            depth_multiplier=multiplier,
            depthwise_initializer=LecunScaled(layout="depthwise", seed=seed),
            pointwise_initializer=LecunScaled(seed=seed),
        )
        shape = (20, 30, 64) if rank == 1 else (6, 10, 10, 64)
        ratios.append((array(layer(rng.standard_normal(shape).astype("float32"))) ** 2).mean())
    assert_promised(ratios)


ATTENTION = {
    "multi-head": lambda i: layers.MultiHeadAttention(8, 16, kernel_initializer=i),
    "grouped-query": lambda i: layers.GroupQueryAttention(16, 8, 2, kernel_initializer=i),
}


@pytest.mark.parametrize("kind", ATTENTION)
@pytest.mark.parametrize("law", ["he", "glorot", "orthogonal"])
def test_attention_projections_keep_the_variance(kind, law, rng):
    ratios = {}
    for seed in range(SEEDS):
        cls, promise = LAWS.get(law, (OrthogonalScaled, lambda n, m: 1.0))
        options = {"preserve_norm": True} if law == "orthogonal" else {"distribution": "normal"}
        attention = ATTENTION[kind](cls(seed=seed, **options))
        attention.build((None, 5, 128), (None, 5, 128))
        for kernel in (v for v in attention.weights if v.path.endswith("kernel")):
            values = array(kernel)
            inputs = 1 if values.shape[0] == 128 else 2
            n = math.prod(values.shape[:inputs])
            m = values.size // n
            outputs = rng.standard_normal((400, n)) @ values.reshape(n, m)
            name = kernel.path.split("/")[-2]
            ratios.setdefault(name, []).append((outputs**2).mean() / promise(n, m))
    assert len(ratios) == 4
    for values in ratios.values():
        assert_promised(values)


RECURRENT = {
    "simple": (lambda **i: layers.SimpleRNN(128, **i), 1),
    "lstm": (lambda **i: layers.LSTM(128, **i), 4),
    "gru": (lambda **i: layers.GRU(128, **i), 3),
}


@pytest.mark.parametrize("kind", RECURRENT)
@pytest.mark.parametrize("law", ["he", "lecun", "glorot", "orthogonal"])
def test_each_gate_keeps_the_variance(kind, law, rng):
    build, gates = RECURRENT[kind]
    layout = None if gates == 1 else {"kind": "gates", "gates": gates}
    cls, promise = LAWS.get(law, (OrthogonalScaled, lambda n, m: 1.0))
    options = {} if law == "orthogonal" else {"distribution": "normal"}
    ratios = []
    for seed in range(SEEDS):
        initializer = cls(layout=layout, seed=seed, **options)
        layer = build(kernel_initializer=initializer, recurrent_initializer=initializer)
        layer.build((None, 5, 128))
        for kernel in (layer.cell.kernel, layer.cell.recurrent_kernel):
            outputs = rng.standard_normal((200, 128)) @ array(kernel)
            per_gate = [(part**2).mean() / promise(128, 128) for part in np.split(outputs, gates, -1)]
            ratios.append(np.mean(per_gate))
    # Both kernels of one seed are equal, as one int seed gives; their inputs are not.
    assert_promised(np.reshape(ratios, (SEEDS, 2)).mean(1))


@pytest.mark.parametrize("law", LAWS)
def test_convolutional_lstm_gates_keep_the_variance(law):
    cls, promise = LAWS[law]
    gates = {"kind": "gates", "gates": 4}
    layer = layers.ConvLSTM2D(32, 3, kernel_initializer=cls(layout=gates, distribution="normal", seed=1))
    layer.build((None, 4, 8, 8, 32))
    kernel = array(layer.cell.kernel)
    assert compute_fans(kernel.shape, layout=gates).to_dict() == {"fan_in": 288, "fan_out": 288}
    assert math.isclose(
        kernel.var() * 288, promise(288, 288), rel_tol=4 * math.sqrt(2 / kernel.size)
    )  # an output sums 288 entries


@pytest.mark.parametrize("law", LAWS)
def test_rows_of_an_embedding_have_the_fan_of_a_one_hot_input(law):
    cls, promise = LAWS[law]
    layer = layers.Embedding(
        2000, 128, embeddings_initializer=cls(layout=Layout("embedding"), distribution="normal", seed=1)
    )
    outputs = array(layer(np.arange(2000)))
    assert math.isclose(outputs.var(), promise(1, 128), rel_tol=4 * math.sqrt(2 / outputs.size))
