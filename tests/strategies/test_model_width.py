"""Laws of the model's width have that width at every kernel, whatever its fans."""

import math

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx

D, VOCABULARY = 128, 64  # fewer tokens than channels: the smaller side is not the width
SMALL, WANG = math.sqrt(2 / (5 * D)), 2 / (12 * math.sqrt(D))  # the papers' numbers, of the width alone


def transformer(tied=False):
    """Embedding, grouped attention, a feed-forward pair, a separable convolution and a narrow head."""
    tokens = layers.Input((8,), dtype="int32")
    table = layers.ReversibleEmbedding(VOCABULARY, D, tie_weights=tied, name="tokens")
    x = table(tokens) + layers.Embedding(VOCABULARY, D, name="types")(tokens)
    x = x + layers.GroupQueryAttention(32, 4, 2, name="grouped")(x, x)
    x = x + layers.MultiHeadAttention(2, 32, name="narrow")(x, x)  # 2 * 32 heads are not the width
    x = x + layers.Dense(D, name="down")(layers.Dense(4 * D, "gelu", name="up")(x))
    x = x + layers.SeparableConv1D(D, 3, padding="same", name="separable")(x)
    x = x + layers.Conv1D(D, 3, groups=4, padding="same", name="convolution")(x)
    outputs = [layers.Dense(10, name="head")(x[:, 0]), table(x, reverse=True)]
    return keras.Model(tokens, outputs)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("law", "std"), [("initx>SmallInit", SMALL), ("initx>WangInit", WANG)])
def test_each_kernel_of_a_transformer_has_the_papers_std(law, std, tied):
    report = initx.initialize(transformer(tied), law, seed=1)
    rows = [row for row in report.rows if row.fans]
    assert len(rows) == 17 - tied
    for row in rows:
        size = min(math.prod(row.shape), 2**16)
        assert abs(row.std / std - 1) < 5 * (0.5 / size) ** 0.5, row.path  # five standard errors of a std


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda i: layers.GroupQueryAttention(32, 4, 2, kernel_initializer=i), [(None, 5, D)] * 2),
        (lambda i: layers.MultiHeadAttention(2, 32, kernel_initializer=i), [(None, 5, D)] * 2),
        (lambda i: layers.Embedding(1000, D, embeddings_initializer=i), [(None, 5)]),
        (lambda i: layers.Dense(4 * D, kernel_initializer=i), [(None, D)]),
        (lambda i: layers.Conv1D(4 * D, 3, kernel_initializer=i), [(None, 5, D)]),
    ],
)
def test_on_a_layer_by_itself_the_kernel_tells_the_width(build, shape):
    layer = build("initx>SmallInit")
    layer.build(*shape)
    kernels = [v for v in layer.weights if "kernel" in v.name or "embeddings" in v.name]
    for kernel in kernels:
        values = np.asarray(ops.convert_to_numpy(kernel), np.float64)
        assert abs(values.std() / SMALL - 1) < 5 * (0.5 / values.size) ** 0.5, kernel.path


def test_where_the_kernel_does_not_tell_an_option_does():
    law = initx.initializers.SmallInit
    for layer, shape in [
        (layers.Embedding(VOCABULARY, D, embeddings_initializer=law(layout="embedding")), (None, 5)),
        (layers.Dense(10, kernel_initializer=law(width=D)), (None, D)),
        (layers.DepthwiseConv1D(3, depthwise_initializer=law(layout="depthwise")), (None, 5, D)),
    ]:
        layer.build(shape)
        values = np.asarray(ops.convert_to_numpy(layer.weights[0]), np.float64)
        assert abs(values.std() / SMALL - 1) < 5 * (0.5 / values.size) ** 0.5


def test_a_width_of_ones_own_stays():
    report = initx.initialize(transformer(), initx.initializers.SmallInit(width=4 * D), include="up", seed=1)
    assert abs(report.rows[0].std / (SMALL / 2) - 1) < 0.05


def test_in_a_model_of_two_widths_each_kernel_has_that_of_its_own_end():
    wide, narrow = layers.Input((5, 256)), layers.Input((4, 64))
    x = narrow + layers.MultiHeadAttention(2, 32, output_shape=64, name="cross")(narrow, wide)
    x = x + layers.MultiHeadAttention(2, 32, name="own")(x, x)
    y = wide + layers.MultiHeadAttention(4, 64, name="other")(wide, wide)
    x = layers.Dense(256, name="up")(x)
    report = initx.initialize(keras.Model([wide, narrow], [x, y]), "initx>SmallInit", seed=1)
    for row in (row for row in report.rows if row.fans):
        width = 256 if row.path.startswith("other") or row.path in ("cross/key", "cross/value") else 64
        size = math.prod(row.shape)
        assert abs(row.std / math.sqrt(2 / (5 * width)) - 1) < 5 * (0.5 / size) ** 0.5, row.path


def test_other_laws_of_transformers_on_the_same_kernels():
    """Their papers' numbers, worked out by hand for D = 128: fans, depth and branches, no width for a fan."""
    model, branches = transformer(), 5
    rows = {row.path: row for row in initx.initialize(model, "GPT2Residual", seed=1).rows if row.std}
    ends = {
        "grouped/attention_output",
        "narrow/attention_output",
        "down",
        "separable/pointwise_kernel",
        "convolution",
    }
    expected = {path: 0.02 / math.sqrt(branches) if path in ends else 0.02 for path in rows}
    spectral = {
        row.path: row for row in initx.initialize(model, "initx>SpectralScaled", seed=1).rows if row.std
    }
    condition = {
        "grouped/key": math.sqrt(64 / D) / math.sqrt(D),
        "grouped/query": 1 / math.sqrt(D),
        "narrow/attention_output": 1 / math.sqrt(64),
        "tokens/embeddings": 1.0,
        "tokens/reverse_embeddings": math.sqrt(VOCABULARY / D) / math.sqrt(D),
        "separable/depthwise_kernel": 1 / math.sqrt(3),
        "head": math.sqrt(10 / D) / math.sqrt(D),
    }
    for found, law in ((rows, expected), (spectral, condition)):
        for path, std in law.items():
            size = math.prod(found[path].shape)
            assert abs(found[path].std / std - 1) < 5 * (0.5 / size) ** 0.5, path


def glorot(inputs, outputs, gain=1.0):
    return gain * math.sqrt(2 / (inputs + outputs))


TFIXUP, DEEPNORM = 0.67 * 2**-0.25, (8 * 2) ** -0.25  # gains of an encoder of two layers


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("strategy", "gain", "embedding"),
    [("TFixup", TFIXUP, (9 * 2) ** -0.25 / math.sqrt(D)), ("DeepNorm", DEEPNORM, 1.0)],
)
def test_strategies_by_depth_have_glorots_fans_and_the_models_width(strategy, gain, embedding, tied):
    """Each kernel by hand: the fans of grouped keys and of separable kernels, the width of embeddings."""
    expected = {
        "types/embeddings": embedding,
        "grouped/query": glorot(D, D),
        "grouped/key": glorot(D, 64),
        "grouped/value": glorot(D, 64, gain),
        "narrow/attention_output": glorot(64, D, gain),
        "up": glorot(D, 4 * D, gain),
        "separable/depthwise_kernel": glorot(3, 3, gain),
        "separable/pointwise_kernel": glorot(D, D, gain),
        "convolution": glorot(96, 96, gain),
        "head": glorot(D, 10),
    }
    if not tied:
        expected |= {"tokens/embeddings": embedding, "tokens/reverse_embeddings": glorot(D, VOCABULARY)}
    elif strategy == "TFixup":
        expected["tokens/embeddings"] = embedding
    else:  # it makes the logits, too
        expected["tokens/embeddings"] = 1 / math.sqrt(D)
    found = {row.path: row for row in initx.initialize(transformer(tied), strategy, seed=1).rows}
    for path, std in expected.items():
        assert abs(found[path].std / std - 1) < 5 * (0.5 / math.prod(found[path].shape)) ** 0.5, path


@pytest.mark.parametrize("tied", [False, True])
def test_mup_grows_with_each_kernels_own_inputs(tied, monkeypatch):
    """Twice the base's width: hidden kernels by their fans, outputs with half the variance, others stay."""
    monkeypatch.setitem(globals(), "D", D // 2)
    base = transformer(tied)
    monkeypatch.undo()
    report = initx.initialize(transformer(tied), initx.strategies.MuP(base=base), seed=1)
    expected = {
        "types/embeddings": (1.0, 1),
        "grouped/key": (math.sqrt(1 / D / 2), 0.5),  # two heads, whatever the width
        "down": (None, 0.5),
        "separable/depthwise_kernel": (1 / math.sqrt(3), 1),
        "separable/pointwise_kernel": (1 / math.sqrt(D), 0.5),
        "convolution": (1 / math.sqrt(96), 0.5),
        "head": (math.sqrt(1 / D / 2), 0.5),
        # A tied table keeps the base's variance; the logits are divided by the growth.
        "tokens/embeddings": (1 / math.sqrt(D // 2) if tied else 1.0, 1),
    }
    if not tied:
        expected["tokens/reverse_embeddings"] = (math.sqrt(1 / D / 2), 0.5)
    found = {row.path: row for row in report.rows}
    for path, (std, rate) in expected.items():
        assert found[path].learning_rate == rate, path
        size = math.prod(found[path].shape)
        assert std is None or abs(found[path].std / std - 1) < 5 * (0.5 / size) ** 0.5, path
