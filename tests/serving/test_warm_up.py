"""Warm-up requests replayed before a version answers."""

import numpy as np
import pytest
import served_models
from served_models import example, half_plus_two, warm_up_file

from keras_initx.serving import ServingError
from keras_initx.serving._loaded import LoadedModel
from keras_initx.serving._model import _open
from keras_initx.serving._warm_up import warm_up

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
    assert [(key, value) for key, value, _ in ran] == [
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
    error, _ = _open(str(folder), str(folder.parent))
    assert isinstance(error, ServingError)


def test_a_file_that_is_no_tfrecord_fails_the_load_and_an_empty_one_does_not(folder, ran):
    warm_up_file(folder)
    warm(folder)
    assert ran == []
    (folder / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"not a record file at all")
    with pytest.raises(ServingError, match="warm-up record 0") as caught:
        warm(folder)
    assert caught.value.code == "INVALID_ARGUMENT"


def test_without_a_file_zeros_warm_what_takes_numbers_and_may_fail(tmp_path, ran):
    import tensorflow as tf

    def build():
        v1 = tf.compat.v1
        x = v1.placeholder(tf.int32, [None, None, 3], "x")
        text = v1.placeholder(tf.string, [None], "text")
        fixed = v1.placeholder(tf.float32, [2], "fixed")
        positive = v1.debugging.assert_positive(x)
        with tf.control_dependencies([positive]):
            strict = x + 1
        return {
            "numbers": ({"x": x}, {"y": x * 2}),
            "strict": ({"x": x}, {"y": strict}),
            "text": ({"text": text}, {"y": tf.strings.length(text)}),
            "fixed": ({"fixed": fixed}, {"y": fixed * 2}),
        }

    warm(served_models.save(tmp_path, 1, build))
    zeros = [[[0, 0, 0]]]
    assert ran == [("numbers", zeros, ["y"]), ("strict", zeros, ["y"])]
