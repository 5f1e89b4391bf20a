"""Whatever is exported answers as the model does, in a process that has neither Keras nor the package."""

import json
import pathlib
import re
import textwrap

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx.saved_model import _export
from keras_initx.saved_model._states import States
from support import exported_models, forked

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def model():
    return exported_models.dense()[0]


SERVE = """
    import sys, json, pathlib
    sys.modules["keras_initx"] = sys.modules["keras"] = None
    import numpy as np, tensorflow as tf
    for folder in sorted(pathlib.Path({folder!r}).iterdir()):
        rows = dict(np.load(folder / "rows.npz", allow_pickle=True))
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            meta = tf.compat.v1.saved_model.load(session, ["serve"], str(folder / "1"))
            signature = meta.signature_def["serving_default"]
            assert signature.method_name == "tensorflow/serving/predict"
            assert all(info.tensor_shape.dim[0].size == -1 for info in signature.inputs.values())
            feeds = {{signature.inputs[name].name: value for name, value in rows.items()}}
            served = session.run({{name: info.name for name, info in signature.outputs.items()}}, feeds)
        function = tf.saved_model.load(str(folder / "1")).signatures["serving_default"]
        loaded = function(**{{name: tf.constant(value) for name, value in rows.items()}})
        for name, value in served.items():
            np.testing.assert_allclose(loaded[name].numpy(), value, atol=1e-5)
        np.savez(folder / "served.npz", **served)
    """


def test_a_clean_process_answers_as_predict_does_for_every_kind_of_model(tmp_path):
    expected = {}
    for name, build in exported_models.MODELS.items():
        model, rows = build()
        exported = initx.export(model, tmp_path / name)
        assert exported.version == 1
        np.savez(tmp_path / name / "rows.npz", **rows)
        values = exported_models.predict(model, rows)
        keys = list(_outputs(exported))
        expected[name] = dict(zip(keys, values, strict=True))
    code = textwrap.dedent(SERVE.format(folder=str(tmp_path)))
    forked.run(["-c", code], preload="tensorflow", check=True)
    for name, values in expected.items():
        served = dict(np.load(tmp_path / name / "served.npz"))
        assert served.keys() == values.keys()
        for key, value in values.items():
            tolerance = 2e-2 if name in ("mixed", "half") else 1e-5
            np.testing.assert_allclose(served[key], value, tolerance, tolerance, err_msg=f"{name} {key}")
        assert any(np.ptp(value, axis=0).max() > 1e-3 for value in values.values()), name  # it is no constant


def _outputs(exported):
    """Names of the outputs in the order in which the model's structure is flattened."""
    folder = initx.saved_model.inspect(pathlib.Path(exported.path).parent)
    names = folder.versions[0].signatures["serving_default"]["outputs"]
    order = {"class.scores": 0, "price": 1, "memory": 0, "memory_1": 1, "memory_2": 2, "half": 0, "sum": 1}
    return sorted(names, key=lambda name: order.get(name, 0))


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("dense", {"features": "float32[?, 6]"}, {"pets": "float32[?, 3]"}),
        (
            "several",
            {"numbers": "float32[?, 4]", "words": "int32[?, 3]"},
            {"class.scores": "float32[?, 2]", "price": "float32[?, 1]"},
        ),
        (
            "by_keys",
            {"a": "float32[?, 2]", "b": "float32[?, 2]"},
            {"half": "float32[?, 3]", "sum": "float32[?, 3]"},
        ),
        (
            "states",
            {"series": "float32[?, ?, 2]"},
            {"memory": "float32[?, 3]", "memory_1": "float32[?, 3]", "memory_2": "float32[?, 3]"},
        ),
        ("words", {"text": "string[?, 1]"}, {"mood": "float32[?, 2]"}),
        (
            "subclassed",
            {"tokens": "float32[?, 5]"},
            {"scores": "float32[?, 5, 2]", "tokens": "float32[?, 5]"},
        ),
        ("half", {"x": "float32[?, 8]"}, {"y": "float32[?, 4]"}),
    ],
)
def test_names_shapes_and_dtypes_of_the_default_signature(tmp_path, name, inputs, outputs):
    model, _ = exported_models.MODELS[name]()
    initx.export(model, tmp_path / "m")
    signature = initx.saved_model.inspect(tmp_path / "m").versions[0].signatures["serving_default"]
    assert signature == {"method": "predict", "inputs": inputs, "outputs": outputs}


def test_an_input_without_a_name_is_called_as_it_is_after_saving(tmp_path):
    model = keras.Sequential([layers.Input((2,)), layers.Dense(1)])
    model.save(tmp_path / "m.keras")
    for number, one in enumerate((model, keras.saving.load_model(tmp_path / "m.keras"))):
        initx.export(one, tmp_path / "m")
        signature = initx.saved_model.inspect(tmp_path / "m").versions[0].signatures["serving_default"]
        assert re.fullmatch("input_layer(_[0-9]+)?", next(iter(signature["inputs"]))), number


def test_a_backbone_of_keras_hub(tmp_path):
    keras_hub = pytest.importorskip("keras_hub")
    model = keras_hub.models.BertBackbone(
        vocabulary_size=30,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=12,
    )
    exported = initx.export(model, tmp_path)
    assert exported.difference < 1e-4
    signature = initx.saved_model.inspect(tmp_path).versions[0].signatures["serving_default"]
    assert sorted(signature["inputs"]) == ["padding_mask", "segment_ids", "token_ids"]
    assert sorted(signature["outputs"]) == ["pooled_output", "sequence_output"]


def test_a_model_that_is_preprocessing_alone(tmp_path):
    word = layers.Input((), dtype="string", name="word")
    lookup = layers.StringLookup(vocabulary=["a", "b"], name="number")
    assert initx.export(keras.Model(word, lookup(word)), tmp_path).difference == 0
    signature = initx.saved_model.inspect(tmp_path).versions[0].signatures["serving_default"]
    assert signature["outputs"] == {"number": "int64[?]"}


class Noise(layers.Layer):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.seeds = kind, keras.random.SeedGenerator(1)

    def call(self, inputs):
        import tensorflow as tf

        shape = keras.ops.shape(inputs)
        if self.kind == "tensorflow":
            return inputs + tf.random.normal(shape)
        return inputs + keras.random.normal(shape, seed=self.seeds if self.kind == "own seeds" else None)


@pytest.mark.parametrize("kind", ["own seeds", "global seeds", "tensorflow"])
def test_models_that_answer_at_random_are_exported(tmp_path, kind):
    inputs = layers.Input((3,))
    model = keras.Model(inputs, Noise(kind)(inputs))
    seeds = [np.array(variable) for variable in model.non_trainable_variables]
    exported = initx.export(model, tmp_path, labels=["a", "b", "c"])
    assert exported.difference is None or (exported.difference < 1e-4 and kind != "tensorflow")
    for before, after in zip(seeds, model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_layer_told_to_run_as_in_training_answers_as_predict_does(tmp_path):
    inputs = layers.Input((3,))
    model = keras.Model(inputs, layers.Dropout(0.5)(inputs, training=True))
    assert initx.export(model, tmp_path).difference == 0


def test_stateful_layers_of_a_fixed_batch_keep_their_states(tmp_path):
    inputs = layers.Input(batch_shape=(4, 5, 2))
    model = keras.Model(inputs, layers.LSTM(3, stateful=True)(inputs))
    model.predict(np.ones((4, 5, 2)), verbose=0)
    before = [np.array(variable) for variable in model.non_trainable_variables]
    assert initx.export(model, tmp_path).difference < 1e-4
    for value, variable in zip(before, model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(value, variable)


def test_a_difference_refuses_the_export_and_leaves_nothing(model, tmp_path, monkeypatch):
    original = _export.write

    def tampered(one, endpoints, folder):
        one.layers[0].kernel.assign(one.layers[0].kernel * 1.01)
        try:
            return original(one, endpoints, folder)
        finally:
            one.layers[0].kernel.assign(one.layers[0].kernel / 1.01)

    monkeypatch.setattr(_export, "write", tampered)
    with pytest.raises(
        ValueError, match="must answer as before once it is exported. Received: output `pets`"
    ):
        initx.export(model, tmp_path / "new" / "net")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"y": np.ones((2, 3), "float32")}, "`y` .* differs by 1 of its largest entry"),
        ({"y": np.full((2, 3), np.nan, "float32")}, "differs by inf"),
        ({"y": np.zeros((2, 2), "float32")}, r"was \('float32', \(2, 3\)\) and is \('float32', \(2, 2\)\)"),
        ({"z": np.zeros((2, 3), "float32")}, r"`y` .* was .* and is None"),
    ],
)
def test_comparison_tells_what_differs(model, outputs, message):
    from keras_initx.saved_model import _check
    from keras_initx.saved_model._endpoints import Endpoint

    endpoint = Endpoint("other", lambda x: {"y": x * 0}, [keras.InputSpec("float32", (None, 3))])
    object.__setattr__(endpoint, "run", lambda rows: {"y": np.zeros((2, 3), "float32")})
    run, expected = [(endpoint, [])], [{"y": np.zeros((2, 3), "float32")}]
    with pytest.raises(ValueError, match=message):
        _check.compare(model, run, expected, [outputs], States(model, []))


def test_nan_and_infinity_equal_themselves(model):
    from keras_initx.saved_model import _check
    from keras_initx.saved_model._endpoints import Endpoint

    answer = {"x": np.array([[np.nan, np.inf, 1]], "float32"), "s": np.array([b"a"], object)}
    run = [(Endpoint("serve", dict, []), [])]
    copied = {name: value.copy() for name, value in answer.items()}
    assert _check.compare(model, run, [answer], [copied], States(model, [])) == 0


def test_a_failed_export_leaves_what_was_there(model, tmp_path, monkeypatch):
    initx.export(model, tmp_path)

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(_export, "write", fail)
    for path in (tmp_path, tmp_path / "new", tmp_path / "deep" / "er"):
        with pytest.raises(OSError, match="disk full"):
            initx.export(model, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]


def test_what_is_no_path_is_refused(model, tmp_path):
    for path in (None, "", 3):
        with pytest.raises(ValueError, match="`path` must be the model's folder. Received: path="):
            initx.export(model, path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="`path` must be a folder or not exist yet. Received: path="):
        initx.export(model, tmp_path / "file")


def test_what_is_no_built_model_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="`model` must be built. .* Call it on one batch first"):
        initx.export(keras.Sequential([layers.Dense(2)]), tmp_path / "new")
    with pytest.raises(ValueError, match="`model` must be a Keras model. Received: model of type Dense"):
        initx.export(model.layers[0], tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_input_that_cannot_be_drawn_asks_for_rows(tmp_path):
    import tensorflow as tf

    class Number(layers.Layer):
        def call(self, inputs):
            return tf.strings.to_number(inputs)

    inputs = layers.Input((), dtype="string", name="text")
    model = keras.Model(inputs, Number(name="number")(inputs))
    with pytest.raises(ValueError, match="`warmup` must hold rows .* pass a few real ones"):
        initx.export(model, tmp_path / "new")
    assert initx.export(model, tmp_path / "new", warmup=np.array(["1.5", "2"])).warmup_records == 2


def test_other_backends_are_told_the_way(model, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(
        ValueError, match="`export` needs the TensorFlow backend. Received: KERAS_BACKEND=jax"
    ):
        initx.export(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_report_is_readable_and_json(model, tmp_path):
    exported = initx.export(model, tmp_path)
    assert exported.signatures == ("serve", "serving_default")
    proven = "row-wise: serve, serving_default"
    assert str(exported) == f"{tmp_path / '1'} (version 1; signatures: serve, serving_default; {proven})"
    assert json.loads(json.dumps(exported.to_dict()))["warmup_records"] == 0
