"""Warm-up: the records that a server replays, and what must not get into them."""

import sys

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx.saved_model import _verify, _warmup
from keras_initx.saved_model._worker import load
from support import exported_models

pytest.importorskip("tensorflow_serving")
pytestmark = pytest.mark.tensorflow


def records(version):
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    file = version / "assets.extra" / "tf_serving_warmup_requests"
    raw = tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    return [prediction_log_pb2.PredictionLog.FromString(record) for record in raw]


def test_each_row_is_a_request_that_tensorflow_serving_understands(tmp_path):
    import tensorflow as tf

    model, rows = exported_models.several()
    exported = initx.export(model, tmp_path / "net", warmup=list(rows.values()), labels=["no", "yes"])
    found = records(tmp_path / "net" / "1")
    assert exported.warmup_records == len(found) == 5
    for number, log in enumerate(found[:4]):
        request = log.predict_log.request
        assert (request.model_spec.name, request.model_spec.signature_name) == ("net", "serving_default")
        for name, values in rows.items():
            sent = tf.make_ndarray(request.inputs[name])
            np.testing.assert_array_equal(sent, values[number : number + 1])
            assert sent.dtype == values.dtype
    assert found[4].classify_log.request.model_spec.signature_name == "classify"
    assert len(found[4].classify_log.request.input.example_list.examples) == 1
    assert str(exported).endswith("; warm-up records: 5)")


@pytest.mark.parametrize("kind", ["dict", "float64", "tf.data", "strings", "integers"])
def test_rows_come_as_predict_takes_them_and_leave_in_the_dtype_of_the_input(tmp_path, kind):
    import tensorflow as tf

    model, rows = exported_models.words() if kind == "strings" else exported_models.dense()
    name, values = next(iter(rows.items()))
    given = {
        "dict": {name: values},
        "float64": values if kind == "strings" else values.astype("float64"),
        "tf.data": tf.data.Dataset.from_tensor_slices(values).batch(3),
        "strings": tf.constant(values),
        "integers": np.ones((4, 6), int),
    }[kind]
    assert initx.export(model, tmp_path, warmup=given).warmup_records == 4
    dtype = records(tmp_path / "1")[0].predict_log.request.inputs[name].dtype
    assert dtype == (tf.string if kind == "strings" else tf.float32).as_datatype_enum


def test_a_subclassed_model_takes_its_dtypes_from_them(tmp_path):
    model, rows = exported_models.subclassed()
    initx.export(model, tmp_path, warmup=rows["tokens"].astype("int32"))
    signature = initx.saved_model.inspect(tmp_path).versions[0].signatures["serving_default"]
    assert signature["inputs"] == {"tokens": "int32[?, 5]"}


class Pair(keras.Model):
    """Two inputs, each an argument; it multiplies, so that their order tells."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def build(self, left_shape, right_shape):
        self.dense.build(left_shape)

    def call(self, left, right):
        return self.dense(left) * right


class Difference(keras.Model):
    """Without a `build` of its own, for which Keras remembers the first argument alone."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, left, right=None):
        return self.dense(left) - (0 if right is None else self.dense(right))


@pytest.mark.parametrize("form", [tuple, list, lambda pair: {"right": pair[1], "left": pair[0]}])
def test_inputs_that_keras_forgets_come_from_the_rows(tmp_path, form):
    model, pair = Difference(), (np.ones((2, 3), "float32"), np.arange(6, dtype="float32").reshape(2, 3))
    expected = model(*pair)
    exported = initx.export(model, tmp_path, warmup=form(pair))
    assert exported.row_wise == ("serve", "serving_default")
    with load(exported.path) as call:
        served = call("serving_default", {"left": pair[0], "right": pair[1]})
    np.testing.assert_allclose(served["output_0"], expected, rtol=1e-5)


def test_an_argument_of_unknown_shape_asks_for_rows(tmp_path):
    class Needed(Difference):
        def call(self, left, right):
            return super().call(left, right)

    model, rows = Needed(), np.ones((2, 3), "float32")
    model(rows, rows)
    for warmup in (None, rows, {"right": rows}):
        with pytest.raises(ValueError, match=r"must have rows for each argument of `call`.*'left', 'right'"):
            initx.export(model, tmp_path, warmup=warmup)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("form", [tuple, list, lambda pair: {"right": pair[1], "left": pair[0]}])
def test_inputs_that_are_arguments_come_in_order_or_by_name(tmp_path, form):
    model, pair = Pair(), (np.ones((2, 3), "float32"), np.arange(4, dtype="float32").reshape(2, 2))
    expected = model(*pair)
    exported = initx.export(model, tmp_path, warmup=form(pair))
    assert exported.warmup_records == 2
    with load(exported.path) as call:
        served = call("serving_default", {"left": pair[0], "right": pair[1]})
    np.testing.assert_allclose(served["output_0"], expected, rtol=1e-5)


def test_too_few_arrays_are_told_with_the_inputs(tmp_path):
    model, rows = Pair(), np.ones((2, 3), "float32")
    model(rows, rows[:, :2])
    for warmup, received in ((rows, "ndarray"), ([rows], "a list of 1"), ({"left": rows}, "dict")):
        with pytest.raises(
            ValueError, match=rf"`warmup` must hold .* \['left', 'right'\].* Received: {received}"
        ):
            initx.export(model, tmp_path / "new", warmup=warmup)
    assert list(tmp_path.iterdir()) == []


def test_a_fixed_batch_makes_records_of_its_size(tmp_path):
    inputs = layers.Input(batch_shape=(4, 5, 2))
    model = keras.Model(inputs, layers.LSTM(3)(inputs))
    assert initx.export(model, tmp_path, warmup=np.ones((4, 5, 2))).warmup_records == 1


@pytest.mark.parametrize(
    ("warmup", "message"),
    [
        (np.ones((2, 5)), "`warmup` must have the structure of the model's inputs"),
        (np.ones((0, 6)), "`warmup` must hold at least one row"),
        (np.full((2, 6), np.nan), "`warmup` must be finite"),
        (np.array([["a"] * 6]), "`warmup` must have the structure .* takes the dtype float32"),
        (3, "`warmup` must be an array"),
        (np.ones((1001, 6)), "`warmup` must hold at most 1000 rows"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path, warmup, message):
    model, _ = exported_models.dense()
    with pytest.raises(ValueError, match=message):
        initx.export(model, tmp_path / "new", warmup=warmup)
    assert list(tmp_path.iterdir()) == []


def test_labels_take_one_of_the_thousand(tmp_path):
    model, _ = exported_models.dense()
    assert initx.export(model, tmp_path, warmup=np.ones((1000, 6))).warmup_records == 1000
    with pytest.raises(ValueError, match="`warmup` must hold at most 999 rows"):
        initx.export(model, tmp_path, warmup=np.ones((1000, 6)), labels=["a", "b", "c"])


def test_a_record_that_fails_in_the_server_fails_the_export(tmp_path, monkeypatch):
    model, rows = exported_models.dense()
    original = _warmup._log

    def broken(endpoint, name, values):
        return original(endpoint, name, [leaf[:, :5] for leaf in values])

    monkeypatch.setattr(_warmup, "_log", broken)
    with pytest.raises(ValueError, match="`model` must run as a SavedModel .* Received: .*: .*Error: "):
        initx.export(model, tmp_path / "new", warmup=rows["features"])
    assert list(tmp_path.iterdir()) == []
    assert _verify.read_warmup is _warmup.read_warmup


def test_without_the_extra_the_cure_is_told(tmp_path, monkeypatch):
    model, rows = exported_models.dense()
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.raises(ImportError, match=r"`warmup` needs tensorflow_serving\..*keras-initx\[serve\]"):
        initx.export(model, tmp_path / "new", warmup=rows["features"])
    initx.export(model, tmp_path / "plain")
