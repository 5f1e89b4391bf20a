"""Signatures beside the default: functions, models, and labels for TensorFlow Serving's Classify call."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx.saved_model._worker import load
from support import exported_models

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def model():
    return exported_models.dense()[0]


def signatures_of(folder):
    return initx.saved_model.inspect(folder).versions[0].signatures


def example(**features):
    import tensorflow as tf

    kinds = {int: "int64_list", float: "float_list", bytes: "bytes_list"}
    found = tf.train.Example()
    for name, values in features.items():
        getattr(found.features.feature[name], kinds[type(values[0])]).value.extend(values)
    return found.SerializeToString()


def test_models_functions_and_pairs_become_signatures(model, tmp_path, rng):
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "pairs")])
    def total(pairs):
        return {"total": tf.reduce_sum(pairs, 1)}

    exported = initx.export(
        model,
        tmp_path,
        signatures={
            "hidden": keras.Model(model.inputs, model.layers[0].output),
            "twice": lambda features: model(features) * 2,
            "product": (lambda left, right: left @ right, [keras.InputSpec("float32", (None, 3))] * 2),
            "total": total,
        },
    )
    assert exported.signatures == ("hidden", "product", "serve", "serving_default", "total", "twice")
    found = signatures_of(tmp_path)
    assert {facts["method"] for facts in found.values()} == {"predict"}
    assert found["hidden"] == {
        "method": "predict",
        "inputs": {"features": "float32[?, 6]"},
        "outputs": {model.layers[0].name: "float32[?, 5]"},
    }
    assert found["product"]["inputs"] == {"left": "float32[?, 3]", "right": "float32[?, 3]"}
    assert found["total"]["outputs"] == {"total": "float32[?]"}
    inputs = rng.standard_normal((3, 6)).astype("float32")
    expected = 2 * model.predict(inputs, verbose=0)
    with load(tmp_path / "1") as call:
        np.testing.assert_allclose(
            call("twice", {"features": inputs})["output_0"], expected, rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(call("total", {"pairs": [[1, 2]]})["total"], [3])


def test_outputs_of_one_name_are_told_apart(tmp_path):
    inputs = layers.Input((2,), name="x")
    shared = layers.Dense(2, name="both")
    model = keras.Model(inputs, [shared(inputs), shared(inputs * 2)])
    initx.export(model, tmp_path)
    assert list(signatures_of(tmp_path)["serving_default"]["outputs"]) == ["both", "both_1"]


@pytest.mark.parametrize(
    ("signatures", "message"),
    [
        ({"serving_default": len}, "`signatures` must have names .* Received: 'serving_default'"),
        ({"a/b": len}, "`signatures` must have names .* Received: 'a/b'"),
        ({3: len}, "Received: 3"),
        ([len], "`signatures` must be a dict from names to functions or models. Received: list"),
        ({"odd": 3}, "`signatures` must be models, functions, or pairs .* Received: odd=3"),
        ({"odd": (len, 3)}, "`signatures` must be models, functions, or pairs"),
    ],
)
def test_what_is_no_signature_is_refused(model, tmp_path, signatures, message):
    with pytest.raises(ValueError, match=message):
        initx.export(model, tmp_path / "new", signatures=signatures)
    assert list(tmp_path.iterdir()) == []


def test_a_function_that_cannot_be_traced_says_so(model, tmp_path):
    wrong = (lambda x: x @ x, [keras.InputSpec("float32", (None, 3, 4))])
    with pytest.raises(ValueError, match="`model` and `signatures` must be such that Keras can export"):
        initx.export(model, tmp_path / "new", signatures={"wrong": wrong})
    assert list(tmp_path.iterdir()) == []


class Holder:
    """An object of no framework."""

    def __init__(self):
        self.names = layers.StringLookup(vocabulary=["a", "b", "c"], invert=True, num_oov_indices=0)


def test_a_lookup_table_is_found_wherever_a_function_holds_it(model, tmp_path):
    import tensorflow as tf

    holder = Holder()
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["x", "y"], [5, 6]), -1)

    def label(features):
        return {"label": holder.names(keras.ops.argmax(model(features), -1))}

    word = (lambda words: {"number": table.lookup(words)}, [tf.TensorSpec([None], tf.string, "words")])
    initx.export(model, tmp_path, signatures={"label": label, "word": word})
    rows = exported_models.dense()[1]["features"]
    with load(tmp_path / "1") as call:
        assert call("word", {"words": ["y", "z"]})["number"].tolist() == [6, -1]
        labels = call("label", {"features": rows})["label"]
    expected = np.array([b"a", b"b", b"c"])[model.predict(rows, verbose=0).argmax(-1)]
    assert labels.tolist() == expected.tolist()


def test_a_ragged_output_is_refused_and_its_cure_works(tmp_path):
    text = layers.Input((), dtype="string", name="text")

    def vectorized(ragged):
        return keras.Model(text, layers.TextVectorization(vocabulary=["a"], ragged=ragged)(text))

    with pytest.raises(
        ValueError, match=r"dense tensors: .* a RaggedTensor. .*`TextVectorization\(ragged=False\)`"
    ):
        initx.export(vectorized(True), tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    assert initx.export(vectorized(False), tmp_path).difference == 0

    import tensorflow as tf

    class Dense(layers.Layer):
        def call(self, inputs):
            return inputs.to_tensor()

        def compute_output_spec(self, inputs):
            return keras.KerasTensor((None, None), inputs.dtype)

    assert tf.rank(vectorized(True)(tf.constant(["a a", "a"]))) == 2
    ragged = layers.TextVectorization(vocabulary=["a"], ragged=True)(text)
    assert initx.export(keras.Model(text, Dense()(ragged)), tmp_path).difference == 0


def test_an_error_tells_what_stands_below():
    from keras_initx.saved_model._endpoints import reason

    error = AssertionError(
        "\x1b[1mException encountered when calling a layer\n\nSee the information below:\n\n\tName: x"
    )
    assert reason(error) == "AssertionError: See the information below: Name: x"


def test_labels_make_the_classify_signature_of_tensorflow_serving(model, tmp_path, rng):
    import tensorflow as tf

    exported = initx.export(model, tmp_path, labels=["cat", "dog", "no pet"])
    assert exported.signatures == ("classify", "serve", "serving_default")
    inputs = rng.standard_normal((3, 6)).astype("float32")
    expected = model.predict(inputs, verbose=0)
    rows = [example(features=row.tolist()) for row in inputs]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path / "1"))
        methods = {name: definition.method_name for name, definition in meta.signature_def.items()}
        assert methods["classify"] == tf.compat.v1.saved_model.signature_constants.CLASSIFY_METHOD_NAME
        assert methods["serving_default"] == tf.compat.v1.saved_model.signature_constants.PREDICT_METHOD_NAME
        definition = meta.signature_def["classify"]
        assert list(definition.inputs) == ["inputs"]
        assert {name: info.dtype for name, info in definition.outputs.items()} == {
            "classes": tf.string.as_datatype_enum,
            "scores": tf.float32.as_datatype_enum,
        }
        outputs = {name: info.name for name, info in definition.outputs.items()}
        served = session.run(outputs, {definition.inputs["inputs"].name: rows})
    assert served["classes"].tolist() == [[b"cat", b"dog", b"no pet"]] * 3
    np.testing.assert_allclose(served["scores"], expected, rtol=1e-5, atol=1e-6)
    loaded = tf.saved_model.load(str(tmp_path / "1")).signatures["classify"](inputs=tf.constant(rows))
    np.testing.assert_allclose(loaded["scores"].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_strings_integers_and_open_axes_come_from_examples(tmp_path):
    model, _ = exported_models.words()
    initx.export(model, tmp_path / "words", labels=["sad", "glad"])
    with load(tmp_path / "words" / "1") as call:
        scores = call("classify", {"inputs": [example(text=[b"a bad day"])]})["scores"]
    import tensorflow as tf

    expected = model.predict(tf.constant([["a bad day"]]), verbose=0)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)

    tokens = layers.Input((None,), dtype="int32", name="tokens")
    hidden = layers.GlobalAveragePooling1D()(layers.Embedding(9, 4, mask_zero=True)(tokens))
    model = keras.Model(tokens, layers.Dense(2)(hidden))
    initx.export(model, tmp_path / "tokens", labels=["sad", "glad"])
    with load(tmp_path / "tokens" / "1") as call:
        rows = [example(tokens=[1, 2, 3]), example(tokens=[4])]
        scores = call("classify", {"inputs": rows})["scores"]
    expected = model.predict(np.array([[1, 2, 3], [4, 0, 0]], "int32"), verbose=0)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint32", "float16", "float64"])
def test_labels_stand_beside_inputs_of_every_number(tmp_path, dtype):
    inputs = layers.Input((2,), dtype=dtype, name="x")
    model = keras.Model(inputs, layers.Dense(2)(keras.ops.cast(inputs, "float32")))
    exported = initx.export(model, tmp_path, labels=["no", "yes"], warmup=np.ones((1, 2), dtype))
    assert exported.warmup_records == 2


def test_labels_go_to_the_output_of_their_width(tmp_path):
    model, _ = exported_models.several()
    assert "classify" in initx.export(model, tmp_path, labels=["no", "yes"]).signatures
    with pytest.raises(
        ValueError, match="`labels` must be as many .* 3 labels and the outputs .*class.scores"
    ):
        initx.export(model, tmp_path, labels=["a", "b", "c"])


@pytest.mark.parametrize("labels", ["abc", [], ["a", "a", "b"], [1, 2, 3], 3])
def test_what_are_no_labels_is_refused(model, tmp_path, labels):
    with pytest.raises(ValueError, match="`labels` must be a list of different strings. Received: labels="):
        initx.export(model, tmp_path / "new", labels=labels)
    assert list(tmp_path.iterdir()) == []


def test_inputs_that_no_example_holds_are_refused(tmp_path):
    inputs = layers.Input((None, None, 3), name="image")
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(inputs)))
    with pytest.raises(ValueError, match="`labels` need inputs that a tf.train.Example can hold"):
        initx.export(model, tmp_path / "new", labels=["a", "b"])
