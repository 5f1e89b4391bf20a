"""Warm-up requests replayed before a version answers."""

import pathlib

import numpy as np
import pytest

from keras_initx.serving import ServingError
from keras_initx.serving._limits import Limits
from keras_initx.serving._loaded import LoadedModel
from keras_initx.serving._opening import open_version
from keras_initx.serving._warm_up import warm_up
from support import served_models
from support.served_models import example, half_plus_two, warm_up_file

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def folder(tmp_path):
    return half_plus_two(tmp_path, 1)


@pytest.fixture
def ran(monkeypatch):
    """What the model was asked: `[(signature, first input, outputs)]`."""
    seen = []
    run = LoadedModel.run

    def watched(self, signature, inputs, outputs):
        seen.append((signature.key, next(iter(inputs.values())).tolist(), list(outputs)))
        return run(self, signature, inputs, outputs)

    monkeypatch.setattr(LoadedModel, "run", watched)
    return seen


def log(kind, signature):
    """A `PredictionLog` and its request, whose inputs are still to come."""
    from tensorflow_serving.apis import prediction_log_pb2

    message = prediction_log_pb2.PredictionLog()
    request = getattr(message, kind).request
    request.model_spec.name = "half"
    request.model_spec.signature_name = signature
    return message, request


def predict(value=(1.0,), name="x", signature="", outputs=()):
    import tensorflow as tf

    message, request = log("predict_log", signature)
    request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    request.output_filter.extend(outputs)
    return message.SerializeToString()


def of_examples(kind, signature, values, with_context=False):
    message, request = log(kind, signature)
    if with_context:
        examples = request.input.example_list_with_context
        examples.context.ParseFromString(example(x=9.0, shared=1.0))
    else:
        examples = request.input.example_list
    for value in values:
        examples.examples.add().ParseFromString(example(x=value))
    return message.SerializeToString()


def session_run():
    from tensorflow_serving.apis import prediction_log_pb2

    message = prediction_log_pb2.PredictionLog()
    message.session_run_log.request.feed.add(name="x")
    return message.SerializeToString()


def warm(folder):
    model = LoadedModel(folder)
    try:
        warm_up(model)
    finally:
        model.close()


def test_predict_classify_and_regress_are_replayed(folder, ran):
    warm_up_file(
        folder,
        predict(np.float32([1, 2])),
        predict(np.float32([3]), outputs=["y"], signature="serving_default"),
        of_examples("classify_log", "classify", [1.0]),
        of_examples("regress_log", "regress", [2.0, 3.0]),
        of_examples("regress_log", "regress", [4.0], with_context=True),
    )
    warm(folder)
    assert ran[:4] == [
        ("serving_default", [1.0, 2.0], ["y"]),
        ("serving_default", [3.0], ["y"]),
        ("classify", [example(x=1.0)], ["scores"]),
        ("regress", [example(x=2.0), example(x=3.0)], ["outputs"]),
    ]
    import tensorflow as tf

    (merged,) = ran[4][1]
    features = tf.train.Example.FromString(merged).features.feature
    assert {name: list(value.float_list.value) for name, value in features.items()} == {
        "x": [4.0],
        "shared": [1.0],
    }


def test_multi_inference_is_replayed(folder, ran):
    from tensorflow_serving.apis import prediction_log_pb2

    message = prediction_log_pb2.PredictionLog()
    request = message.multi_inference_log.request
    for signature in ("classify", "regress"):
        request.tasks.add(method_name=f"tensorflow/serving/{signature}").model_spec.signature_name = signature
    request.input.example_list.examples.add().ParseFromString(example(x=5.0))
    warm_up_file(folder, message.SerializeToString())
    warm(folder)
    assert [(key, value) for key, value, _ in ran[:2]] == [
        (key, [example(x=5.0)]) for key in ("classify", "regress")
    ]


@pytest.mark.parametrize(
    ("records", "told"),
    [
        (lambda: [b"no protobuf"], "warm-up record 1"),
        (
            lambda: [predict(np.float32([1])), predict(np.int32([1]), name="z")],
            r"record 2: .*differ in \['x', 'z'\]",
        ),
        (lambda: [predict(signature="none")], "no signature 'none', only"),
        (lambda: [predict(np.float32([1]), outputs=["w"])], r"differ in \['w'\]"),
        (lambda: [predict(np.float32([[1]]))], "Cannot feed value of shape"),
        (lambda: [predict([b"text"])], "warm-up record 1"),
        (lambda: [session_run()], "`session_run_log` cannot be replayed"),
        (lambda: [b""], "cannot be replayed"),
        (lambda: [of_examples("regress_log", "regress", [1.0])] * 1001, "more than 1000 records"),
    ],
)
def test_a_record_that_fails_fails_the_load(folder, records, told):
    warm_up_file(folder, *records())
    with pytest.raises(ServingError, match=f"tf_serving_warmup_requests.*{told}"):
        warm(folder)
    opened = open_version(str(folder), str(folder.parent), Limits(), None)
    assert opened.model is None
    assert isinstance(opened.error, ServingError)


def test_a_file_that_is_no_tfrecord_fails_the_load_and_an_empty_one_does_not(folder, ran):
    warm_up_file(folder)
    warm(folder)
    assert [key for key, _, _ in ran] == ["classify", "regress", "serving_default"]  # on drawn rows
    (folder / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"not a record file at all")
    with pytest.raises(ServingError, match="warm-up record 0") as caught:
        warm(folder)
    assert caught.value.code == "INVALID_ARGUMENT"


def simple(folder, version, function, shape=(None, 2)):
    """A version with one signature, of the function of floats `x`."""
    import tensorflow as tf

    def build():
        x = tf.compat.v1.placeholder(tf.float32, shape, "x")
        return {"serving_default": ({"x": x}, {"y": function(x)})}

    return served_models.save(folder, version, build)


def opened(path, before=None):
    found = open_version(str(path), str(path.parent), Limits(), before)
    if found.model is not None:
        found.model.close()
    return found


def test_without_a_file_a_drawn_row_warms_every_signature_and_may_be_refused(tmp_path, ran):
    import tensorflow as tf

    def build():
        v1 = tf.compat.v1
        x = v1.placeholder(tf.int32, [None, None, 3], "x")
        text = v1.placeholder(tf.string, [None], "text")
        fixed = v1.placeholder(tf.float32, [2], "fixed")
        anything = v1.placeholder(tf.float32, None, "anything")
        positive = v1.debugging.assert_positive(x)
        with tf.control_dependencies([positive]):
            strict = x + 1
        return {
            "numbers": ({"x": x}, {"y": x * 2}),
            "strict": ({"x": x}, {"y": strict}),
            "text": ({"text": text}, {"y": tf.strings.length(text)}),
            "fixed": ({"fixed": fixed}, {"y": fixed * 2}),
            "anything": ({"x": anything}, {"y": anything * 2}),
        }

    warm(served_models.save(tmp_path, 1, build))
    zeros = [[[0, 0, 0]]]
    assert ran == [
        ("fixed", [0, 0], ["y"]),
        ("numbers", zeros, ["y"]),
        ("strict", zeros, ["y"]),
        ("text", [b""], ["y"]),
    ]


def test_signatures_that_the_file_does_not_name_are_run_too(folder, ran):
    warm_up_file(folder, of_examples("classify_log", "classify", [1.0]))
    warm(folder)
    assert [key for key, _, _ in ran] == ["classify", "regress", "serving_default"]


def test_what_changes_the_model_is_not_run_on_drawn_rows(tmp_path):
    """A request of nobody's must leave no trace: two equal runs, the second of which sees the first."""
    import tensorflow as tf

    class Counter(tf.Module):
        def __init__(self):
            self.count = tf.Variable(0.0)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def add(self, x):
            return {"count": self.count.assign_add(tf.cast(tf.size(x), tf.float32))}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def read(self, x):
            return {"sum": x + self.count}

    counter = Counter()
    tf.saved_model.save(counter, str(tmp_path / "1"), {"add": counter.add, "read": counter.read})
    model = LoadedModel(tmp_path / "1")
    try:
        warm_up(model)
        assert {key: one.writes for key, one in model.signatures.items()} == {"add": True, "read": False}
        answer = model.run(model.signatures["read"], {"x": np.float32([1])}, ["sum"])
        assert answer["sum"].tolist() == [1.0]
    finally:
        model.close()


def looped(folder, changes=False, broken=False):
    """A sum by a loop, whose body alone may use an operation, change a variable, or fail."""
    import tensorflow as tf

    class Summed(tf.Module):
        def __init__(self):
            self.count = tf.Variable(0.0)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def __call__(self, x):
            def body(step, total):
                if changes:
                    self.count.assign_add(1.0)
                if broken:
                    tf.debugging.assert_less(step, 0)
                return step + 1, total + tf.reduce_sum(tf.tile(tf.reverse(x, [0]), [2])) / 2

            return {"y": x + tf.while_loop(lambda step, _: step < 2, body, (0, 0.0))[1]}

    summed = Summed()
    tf.saved_model.save(summed, str(folder), {"serving_default": summed.__call__})
    return folder


@pytest.mark.parametrize("changes", [False, True])
def test_what_only_a_loop_does_is_known(tmp_path, changes):
    model = LoadedModel(looped(tmp_path / "1", changes))
    assert model.signatures["serving_default"].writes is changes
    model.close()


def test_a_loop_that_fails_never_replaces_one_that_runs(tmp_path):
    before = LoadedModel(looped(tmp_path / "1"))
    found = opened(looped(tmp_path / "2", broken=True), before)
    before.close()
    assert found.model is None
    assert "fails on a row of zeros" in str(found.error)


@pytest.mark.parametrize("stateful", [True, False])
@pytest.mark.parametrize("kind", ["numpy_function", "py_function"])
def test_python_code_of_another_process_is_refused(tmp_path, kind, stateful):
    import tensorflow as tf

    class Double(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def __call__(self, x):
            more = {"stateful": stateful} if kind == "numpy_function" else {}
            return {"y": tf.cond(tf.size(x) > 0, lambda: self.code(x, **more), lambda: x)}

        def code(self, x, **more):
            return getattr(tf, kind)(lambda value: value * 2, [x], tf.float32, **more)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def plain(self, x):
            return {"y": x}

    double = Double()
    tf.saved_model.save(double, str(tmp_path / "1"), {"serving_default": double.__call__})
    error = opened(tmp_path / "1").error
    assert error.code == "FAILED_PRECONDITION"
    assert "signature 'serving_default' calls Python code" in error.message
    tf.saved_model.save(double, str(tmp_path / "2"), {"serving_default": double.plain})
    assert opened(tmp_path / "2").error is None  # the code is in the file still, and no signature reaches it


def test_an_operation_without_a_kernel_here_is_refused(tmp_path):
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("has the kernel")

    class OnGpuAlone(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
        def __call__(self, x):
            state, weights = tf.zeros([1, 1, 2]), tf.zeros([200])
            run = tf.raw_ops.CudnnRNN(input=x[:, None], input_h=state, input_c=state, params=weights)
            return {"y": run.output[:, 0]}

    module = OnGpuAlone()
    tf.saved_model.save(module, str(tmp_path / "1"), {"serving_default": module.__call__})
    error = opened(tmp_path / "1").error
    assert "signature 'serving_default' cannot run here: No OpKernel was registered" in error.message


def exported_strict(folder):
    """A model that refuses zeros, exported with requests of its own."""
    import keras
    import tensorflow as tf

    import keras_initx as initx

    class Positive(keras.layers.Layer):
        def call(self, x):
            with tf.control_dependencies([tf.debugging.assert_positive(x)]):
                return tf.identity(x)

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape)

    x = keras.Input((2,), name="x")
    model = keras.Model(x, Positive(name="y")(x))
    return pathlib.Path(initx.export(model, folder, version=3, warmup=np.float32([[1, 2]])).path)


def test_a_row_that_the_version_before_takes_must_not_fail(tmp_path):
    import tensorflow as tf

    def positive(x):
        with tf.control_dependencies([tf.compat.v1.debugging.assert_positive(x)]):
            return tf.identity(x)

    plain, strict = simple(tmp_path, 1, lambda x: x), simple(tmp_path, 2, positive)
    before, alike = LoadedModel(plain), LoadedModel(strict)
    try:
        error = opened(strict, before).error
        assert "fails on a row of zeros or empty strings, which" in error.message
        assert "export the model with requests of your own (`warmup=`), or start the server" in error.message
        assert opened(strict).error is None
        assert opened(strict, alike).error is None  # it refuses that row as well
        assert opened(exported_strict(tmp_path), before).error is None  # the cure
    finally:
        before.close()
        alike.close()
