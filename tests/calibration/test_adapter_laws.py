"""EVA and LoRA-GA: against NumPy's own decomposition of what the layers get, and of the gradient."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.adapters import enable_lora
from keras_initx.initializers import EVA, LoRAGA
from keras_initx.walk import iter_kernels

X = np.random.default_rng(0).normal(size=(150, 5, 16)).astype("float32") * np.geomspace(3, 0.1, 16)
X = X.astype("float32")
Y = np.random.default_rng(1).integers(0, 6, 150)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _model(rank=2):
    keras.utils.set_random_seed(0)
    entry = layers.Input((5, 16))
    h = layers.LayerNormalization(name="norm")(entry)
    y = entry + layers.MultiHeadAttention(4, 4, name="attention")(h, h)
    c = layers.Conv1D(6, 3, padding="same", name="conv")(y)
    model = keras.Model(entry, layers.Dense(6, name="head")(layers.Flatten()(c)))
    ranks = dict.fromkeys(("query", "value", "attention_output", "conv", "head"), rank)
    enable_lora(model, ranks, alpha=2 * rank)
    return model


def _inputs(model, name):
    return ops.convert_to_numpy(keras.Model(model.inputs, model.get_layer(name).input)(X)).astype("float64")


def _factor(model, path):
    return next(s.adapter for s in iter_kernels(model, trace=False) if s.path == path).a


def _cosines(rows, columns):
    """The cosine of each column with the singular vector of its number."""
    vectors = np.linalg.svd(rows, full_matrices=False)[2][: columns.shape[1]]
    return np.abs(np.sum(vectors.T * columns, axis=0)) / np.linalg.norm(columns, axis=0)


def test_eva_takes_the_leading_singular_vectors_of_all_rows_in_one_pass():
    model = _model()
    before = ops.convert_to_numpy(model(X))
    report = initx.calibrate(model, X, "initx>EVA")
    assert (report.forward_passes, report.samples, report.calibrated) == (1, 150, 5)
    np.testing.assert_allclose(ops.convert_to_numpy(model(X)), before, atol=1e-5)
    head = ops.convert_to_numpy(_factor(model, "head"))
    np.testing.assert_allclose(_cosines(_inputs(model, "head").reshape(150, -1), head), 1, atol=1e-4)
    norm = ops.convert_to_numpy(model.get_layer("norm")(X)).reshape(-1, 16).astype("float64")
    query = ops.convert_to_numpy(_factor(model, "attention/query"))
    for number in range(4):  # each head
        np.testing.assert_allclose(_cosines(norm, query[:, number]), 1, atol=1e-4)
    np.testing.assert_array_equal(query, ops.convert_to_numpy(_factor(model, "attention/value")))


def test_eva_sees_the_patches_of_a_convolution_and_the_heads_of_an_output_projection():
    model = _model()
    initx.calibrate(model, X, "initx>EVA")
    inputs = np.pad(_inputs(model, "conv"), ((0, 0), (1, 1), (0, 0)))
    patches = np.stack([inputs[:, n : n + 3].reshape(150, -1) for n in range(5)], 1).reshape(-1, 48)
    found = ops.convert_to_numpy(_factor(model, "conv")).reshape(48, 2)
    np.testing.assert_allclose(_cosines(patches, found), 1, atol=1e-4)
    attention = model.get_layer("attention")
    seen = []
    own = attention.output_dense.call
    attention.output_dense.call = lambda x: seen.append(ops.convert_to_numpy(x)) or own(x)
    model(X)
    rows = seen[0].reshape(-1, 16).astype("float64")
    found = ops.convert_to_numpy(attention.output_dense.lora_kernel_a).reshape(16, 2)
    np.testing.assert_allclose(_cosines(rows, found), 1, atol=1e-4)


@pytest.mark.parametrize("equation", ["btd,dnh->btnh", "btd,ndh->btnh"])  # Keras' order of heads, and Gemma's
def test_each_head_gets_the_directions_whatever_the_order_of_its_axes(equation):
    layer = layers.EinsumDense(equation, (None, 3, 4), name="query")
    model = keras.Sequential([layers.Input((5, 16)), layer])
    layer.enable_lora(2)
    initx.calibrate(model, X, "initx>EVA")
    found = ops.convert_to_numpy(layer.lora_kernel_a)
    heads = np.moveaxis(found, equation.split(",")[1].index("n"), 0)
    for head in heads:
        np.testing.assert_allclose(_cosines(X.reshape(-1, 16).astype("float64"), head), 1, atol=1e-4)


def test_whitened_columns_pass_signals_of_unit_size():
    model = _model()
    initx.calibrate(model, X, EVA(whiten=True), include="head")
    passed = _inputs(model, "head").reshape(150, -1) @ ops.convert_to_numpy(_factor(model, "head"))
    np.testing.assert_allclose(np.sqrt(np.mean(passed**2, axis=0)), 1, rtol=1e-3)


def test_directions_without_variance_can_still_learn():
    low = X @ np.diag([1.0] * 2 + [0.0] * 14).astype("float32")
    model = keras.Sequential([layers.Input((5, 16)), layers.Dense(4, name="d")])
    enable_lora(model, {"d": 3})
    initx.calibrate(model, low, EVA(whiten=True))
    sizes = np.linalg.norm(ops.convert_to_numpy(model.get_layer("d").lora_kernel_a), axis=0)
    np.testing.assert_allclose(sizes[2], 1.0, rtol=1e-4)
    assert (sizes[:2] > 0).all()


def test_eva_after_pissa_gives_the_base_back():
    model = _model()
    before = ops.convert_to_numpy(model(X))
    initx.initialize(model, "PiSSA")
    initx.calibrate(model, X, "initx>EVA")
    np.testing.assert_allclose(ops.convert_to_numpy(model(X)), before, atol=1e-4)


def test_a_start_that_fails_forgets_nothing_of_the_one_before():
    model = _without_adapters()
    enable_lora(model, {"query": 2, "value": 2, "conv": 2, "head": 4})
    before = ops.convert_to_numpy(model(X))
    initx.initialize(model, "PiSSA")
    with pytest.raises(ValueError, match=r"`head`: .*at most half"):
        initx.calibrate(model, (X, Y), "initx>LoRAGA", loss=LOSS)
    initx.initialize(model, "LoRA", seed=1)
    np.testing.assert_allclose(ops.convert_to_numpy(model(X)), before, atol=1e-4)


def test_batches_and_arrays_give_the_same_adapters():
    whole, batches = _model(), _model()
    initx.calibrate(whole, X, "initx>EVA")
    initx.calibrate(batches, iter([X[:40], X[40:100], X[100:]]), "initx>EVA")
    for one, other in zip(whole.weights, batches.weights, strict=True):
        one, other = ops.convert_to_numpy(one), ops.convert_to_numpy(other)
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_ranks_go_to_the_directions_that_explain_the_largest_shares():
    model = _model()
    attention, seen = model.get_layer("attention"), {}
    for name, layer in (
        ("attention/query", attention.query_dense),
        ("attention/value", attention.value_dense),
        ("attention/attention_output", attention.output_dense),
        ("head", model.get_layer("head")),
    ):
        own = layer.call

        def call(x, own=own, name=name):
            seen[name] = ops.convert_to_numpy(x)
            return own(x)

        layer.call = call
    model(X)
    widths = dict.fromkeys(seen, 16) | {"head": 30}
    rows = {name: values.reshape(-1, widths[name]).astype("float64") for name, values in seen.items()}
    inputs = np.pad(_inputs(model, "conv"), ((0, 0), (1, 1), (0, 0)))
    patches = np.stack([inputs[:, n : n + 3].reshape(150, -1) for n in range(5)], 1)
    rows["conv"] = patches.reshape(-1, 48)
    shares = {}
    for name, values in rows.items():
        squares = np.linalg.svd(values, compute_uv=False) ** 2
        shares |= {(name, number): share for number, share in enumerate(squares[:4] / squares.sum())}
    best = sorted(shares, key=shares.get, reverse=True)[:10]
    expected = {name: sum(key[0] == name for key in best) for name in rows}
    model = _model()
    assert initx.calibrate(model, X, "initx>EVA").ranks == expected


def _plain():
    entry = layers.Input((5, 16))
    return keras.Model(entry, layers.Dense(6, name="head")(layers.Flatten()(entry)))


def test_lora_ga_splits_the_leading_directions_of_the_gradient_and_keeps_the_function():
    model = _model()
    before = ops.convert_to_numpy(model(X))
    head = model.get_layer("head")
    features = _inputs(model, "head").reshape(150, -1)
    logits = before.astype("float64")
    chances = np.exp(logits - logits.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    gradient = features.T @ (chances - np.eye(6)[Y]) / 150
    report = initx.calibrate(model, (X, Y), LoRAGA(gamma=4), loss=LOSS)
    assert report.calibrated == 5
    assert report.samples == 150
    np.testing.assert_allclose(ops.convert_to_numpy(model(X)), before, atol=1e-4)
    left, _, right = np.linalg.svd(gradient, full_matrices=False)
    size = 6**0.25 / 2
    a, b = ops.convert_to_numpy(head.lora_kernel_a), ops.convert_to_numpy(head.lora_kernel_b)
    np.testing.assert_allclose(np.abs(left[:, :2].T @ a), size * np.eye(2), atol=1e-3)
    np.testing.assert_allclose(np.abs(right[2:4] @ b.T), size * np.eye(2), atol=1e-3)


def test_plain_lora_comes_back_from_a_trained_lora_ga():
    model = _model()
    original = [ops.convert_to_numpy(weight) for weight in model.weights if "lora" not in weight.name]
    report = initx.calibrate(model, (X, Y), "initx>LoRAGA", loss=LOSS)
    for weight in model.trainable_variables:
        if weight.name == "lora_kernel_b":
            weight.assign(1.3 * weight)
    keras.utils.set_random_seed(0)
    fresh = _without_adapters()
    for weight, value in zip(fresh.weights, original, strict=True):
        weight.assign(value)
    report.as_lora(model).apply(fresh)
    np.testing.assert_allclose(ops.convert_to_numpy(fresh(X)), ops.convert_to_numpy(model(X)), atol=1e-4)


def _without_adapters():
    entry = layers.Input((5, 16))
    h = layers.LayerNormalization(name="norm")(entry)
    y = entry + layers.MultiHeadAttention(4, 4, name="attention")(h, h)
    c = layers.Conv1D(6, 3, padding="same", name="conv")(y)
    return keras.Model(entry, layers.Dense(6, name="head")(layers.Flatten()(c)))


def test_an_adapter_that_names_its_law_is_found_without_an_argument():
    layer = layers.Dense(6, name="head")
    model = keras.Sequential([layers.Input((16,)), layer])
    layer.enable_lora(2, a_initializer="initx>EVA")
    report = initx.calibrate(model, X[:, 0])
    assert [row.path for row in report.rows] == ["head/lora_kernel_a"]
    assert report.calibrated == 1


def test_what_eva_cannot_start_says_so():
    model = keras.Sequential([layers.Input((4,), dtype="int32"), layers.Embedding(9, 6, name="words")])
    model.add(layers.Flatten())
    model.add(layers.Dense(5, name="head"))
    enable_lora(model, {"words": 2, "head": 2})
    tokens = np.random.default_rng(0).integers(0, 9, (30, 4))
    with pytest.warns(UserWarning, match="numbers of words"):
        report = initx.calibrate(model, tokens, "initx>EVA")
    assert [bool(row.note) for row in report.rows] == [True, False]
    grouped = keras.Sequential([layers.Input((5, 8)), layers.Conv1D(8, 3, groups=2, name="c")])
    enable_lora(grouped, {"c": 2})
    with pytest.warns(UserWarning, match="its convolution has groups"):
        initx.calibrate(grouped, X[:, :, :8], "initx>EVA")
    quantized = _plain()
    quantized.get_layer("head").quantize("int8")
    enable_lora(quantized, {"head": 2})
    for law in ("initx>EVA", "initx>LoRAGA"):
        with pytest.warns(UserWarning, match="its base is quantized: start the adapter before `quantize`"):
            initx.calibrate(quantized, (X, Y), law, loss=LOSS)
    wide = keras.Sequential([layers.Input((4,)), layers.Dense(8, name="d")])
    enable_lora(wide, {"d": 6})
    with pytest.warns(UserWarning, match="its rank is larger than its 4 inputs"):
        initx.calibrate(wide, X[:, 0, :4], "initx>EVA")
    with pytest.raises(ValueError, match=r"EVA needs adapters.*enable_lora"):
        initx.calibrate(_plain(), X, "initx>EVA")
    with pytest.raises(ValueError, match="`data` must be given: EVA takes what the layers get"):
        initx.calibrate(model, None, "initx>EVA")
    with pytest.raises(ValueError, match="`targets` must be given"):
        initx.calibrate(model, tokens, "initx>LoRAGA", loss="mse")
    with pytest.raises(ValueError, match=r"starts adapters on data.*calibrate"):
        initx.initialize(model, "initx>EVA")
    large = _model(rank=4)
    before = [ops.convert_to_numpy(weight) for weight in large.weights]
    with pytest.raises(ValueError, match="`attention/.*at most half .*Leave it out with `exclude`"):
        initx.calibrate(large, (X, Y), "initx>LoRAGA", loss=LOSS)
    for weight, value in zip(large.weights, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)
