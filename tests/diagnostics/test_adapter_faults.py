"""What Keras does to adapters, named with cures that work."""

import keras
import numpy as np
from keras import layers, ops

import keras_initx as initx
from keras_initx.adapters import enable_lora

X = np.random.default_rng(0).normal(size=(64, 5, 64)).astype("float32")
Y = np.random.default_rng(1).integers(0, 6, 64)


def _model(alpha=None):
    keras.utils.set_random_seed(0)
    entry = layers.Input((5, 64))
    h = layers.LayerNormalization()(entry)
    y = entry + layers.MultiHeadAttention(16, 4, name="attention")(h, h)
    head = layers.Dense(6, name="head", lora_rank=4, lora_alpha=alpha)
    model = keras.Model(entry, head(layers.Flatten()(y)))
    initx.initialize(model, seed=1)
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def _verdicts(model):
    return {(v.path, v.kind): v for v in initx.diagnose(model, (X, Y), seed=1).verdicts}


def _state(model):
    alphas = [getattr(layer, "lora_alpha", None) for layer in model._flatten_layers()]
    return [ops.convert_to_numpy(weight) for weight in model.weights], alphas


def test_a_lost_alpha_is_named_and_its_cure_brings_it_back():
    model = _model(alpha=16)
    weights, alphas = _state(model)
    verdict = _verdicts(model)["head", "adapter"]
    assert "counts by 4 / 4" in verdict.message
    assert "lora_alpha=16" in verdict.message
    after, same = _state(model)
    assert same == alphas
    assert all(map(np.array_equal, after, weights))
    exec(verdict.cure, {"initx": initx, "model": model})
    assert model.get_layer("head").lora_alpha == 16
    assert not _verdicts(model)
    assert not _verdicts(_model())


def test_a_factor_of_the_wrong_fan_and_copies_are_cured_without_touching_the_base():
    model = _model()
    attention = model.get_layer("attention")
    attention.query_dense.enable_lora(4)
    for layer in (attention.key_dense, attention.value_dense):
        layer.enable_lora(4, a_initializer=keras.initializers.HeUniform(seed=1))
    found = _verdicts(model)
    told = found["attention/query", "variance"]
    assert "16 times too small: Keras reads the fan 1024" in told.message
    assert "the true fan is 64" in told.message
    assert ("attention/key/lora_kernel_a", "duplicate") in found
    bases = {w.path: ops.convert_to_numpy(w) for w in model.weights if "lora" not in w.name}
    for verdict in found.values():
        exec(verdict.cure, {"initx": initx, "model": model})
    assert not _verdicts(model)
    kept = [weight for weight in model.weights if weight.path in bases]
    assert all(np.array_equal(ops.convert_to_numpy(weight), bases[weight.path]) for weight in kept)


def test_an_adapter_of_zeros_as_in_a_loaded_model_is_named(tmp_path):
    model = _model()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    verdict = _verdicts(loaded)["head", "adapter"]
    assert "both zero" in verdict.message
    exec(verdict.cure, {"initx": initx, "model": loaded})
    assert ("head", "adapter") not in _verdicts(loaded)


def test_the_row_of_an_adapted_kernel_has_the_size_of_the_real_first_update():
    model = _model()
    model.get_layer("attention").query_dense.enable_lora(4, lora_alpha=8)
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rows = {row.path: row for row in initx.diagnose(model, (X, Y), seed=1).rows}
    kernels = {
        "head": model.get_layer("head"),
        "attention/query": model.get_layer("attention").query_dense,
    }
    before = {path: ops.convert_to_numpy(layer.kernel) for path, layer in kernels.items()}
    model.train_on_batch(X, Y)
    for path, layer in kernels.items():
        change = ops.convert_to_numpy(layer.kernel) - before[path]
        size = np.sqrt(np.mean(change**2) / np.mean(before[path] ** 2))
        np.testing.assert_allclose(rows[path].update_ratio, size, rtol=0.02)


def test_a_start_along_directions_is_no_fault_and_a_healthy_model_passes_its_check():
    model = _model()
    enable_lora(model, {"query": 4, "value": 4})
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for start in (
        lambda: initx.initialize(model, "LoRA", seed=1),
        lambda: initx.calibrate(model, X, "initx>EVA"),
    ):
        start()
        report = initx.diagnose(model, (X, Y), seed=1)
        assert not report.verdicts
        assert not report.unseen
        report.check()


def test_an_adapted_kernel_shows_its_signal():
    model = _model()
    rows = {row.path: row for row in initx.diagnose(model, (X, Y), seed=1).rows}
    head = model.get_layer("head")
    features = ops.convert_to_numpy(keras.Model(model.inputs, head.input)(X))
    outputs = features @ ops.convert_to_numpy(head.kernel) + ops.convert_to_numpy(head.bias)
    np.testing.assert_allclose(rows["head"].preactivation_std, outputs.std(), rtol=1e-3)
