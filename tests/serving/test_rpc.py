"""The gRPC interface on real SavedModels, without a server: what each message is answered."""

import numpy as np
import pytest

from keras_initx.serving._errors import ServingError
from keras_initx.serving._loaded import DTYPES
from keras_initx.serving._rpc import METHODS
from support.served_graphs import TYPES, Fixed, wait, write_all

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return Fixed(write_all(tmp_path_factory.mktemp("rpc")), {"old": 1})


@pytest.fixture
def apis():
    """All messages by name."""
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        inference_pb2,
        predict_pb2,
        regression_pb2,
    )

    modules = (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        inference_pb2,
        predict_pb2,
        regression_pb2,
    )
    return {
        name: getattr(module, name) for module in modules for name in module.DESCRIPTOR.message_types_by_name
    }


RESPONSES = {
    "Predict": "PredictResponse",
    "Classify": "ClassificationResponse",
    "Regress": "RegressionResponse",
    "MultiInference": "MultiInferenceResponse",
    "GetModelMetadata": "GetModelMetadataResponse",
    "GetModelStatus": "GetModelStatusResponse",
}


@pytest.fixture
def call(models, apis):
    def call(method, request):
        service = "ModelService" if method == "GetModelStatus" else "PredictionService"
        found = METHODS[f"/tensorflow.serving.{service}/{method}"](request.SerializeToString(), models)
        return apis[RESPONSES[method]].FromString(wait(found))

    return call


@pytest.fixture
def request_of(apis):
    def request_of(model="", signature="", version=None, label=None, **inputs):
        import tensorflow as tf

        request = apis["PredictRequest"]()
        if model:
            request.model_spec.name = model
        request.model_spec.signature_name = signature
        if version is not None:
            request.model_spec.version.value = version
        if label:
            request.model_spec.version_label = label
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        return request

    return request_of


def refused(call, method, request, code, message):
    with pytest.raises(ServingError, match=message) as caught:
        call(method, request)
    assert caught.value.code == code


def test_predict_tells_the_version_that_answered(call, request_of):
    import tensorflow as tf

    for choice, number, add in (({}, 123, 3), ({"version": 1}, 1, 2), ({"label": "old"}, 1, 2)):
        response = call("Predict", request_of("half", x=np.float32([[1, 2], [3, 4]]), **choice))
        spec = response.model_spec
        assert (spec.name, spec.version.value, spec.signature_name) == ("half", number, "serving_default")
        assert list(response.outputs) == ["y"]
        assert list(response.outputs["y"].float_val) == [0.5 + add, 1 + add, 1.5 + add, 2 + add]
        assert tf.make_ndarray(response.outputs["y"]).shape == (2, 2)


@pytest.mark.parametrize("type_", [*sorted(TYPES), "half", "bfloat16", "complex64", "complex128", "uint16"])
@pytest.mark.parametrize("as_content", [True, False])
def test_every_type_goes_there_and_back(call, request_of, type_, as_content):
    import tensorflow as tf

    values = [value.encode() for value in TYPES[type_]] if type_ == "string" else TYPES.get(type_, [1, 2])
    dtype = tf.bfloat16.as_numpy_dtype if type_ == "bfloat16" else DTYPES[type_]
    tensor = np.array(values, dtype)
    request = request_of("types", type_, x=tensor)
    if not as_content:
        # TensorFlow writes fields for one element, content for more.
        parts = [tf.make_tensor_proto(tensor[at : at + 1]) for at in range(2)]
        request.inputs["x"].ClearField("tensor_content")
        (field,) = [name.name for name, _ in parts[0].ListFields() if name.name.endswith("_val")]
        request.inputs["x"].ClearField(field)
        getattr(request.inputs["x"], field).extend([v for part in parts for v in getattr(part, field)])
    found = call("Predict", request).outputs["y"]
    assert not found.tensor_content
    np.testing.assert_array_equal(tf.make_ndarray(found), tensor)
    assert tf.make_ndarray(found).dtype == dtype


def test_one_value_stands_for_a_whole_tensor(call, request_of):
    import tensorflow as tf

    request = request_of("several", "scalar", a=tf.zeros((3, 2)))
    request.inputs["a"].ClearField("tensor_content")
    request.inputs["a"].ClearField("float_val")
    request.inputs["a"].float_val.append(2.0)
    assert list(call("Predict", request).outputs["total"].float_val) == [12.0]
    request.inputs["a"].ClearField("float_val")
    assert list(call("Predict", request).outputs["total"].float_val) == [0.0]


def test_a_small_message_cannot_claim_a_large_tensor(call, request_of):
    request = request_of("half", x=np.float32([1]))
    for size in (2**40, 2**62, -1):
        request.inputs["x"].tensor_shape.dim[0].size = size
        refused(call, "Predict", request, "INVALID_ARGUMENT", "known shape of at most")
    request.inputs["x"].tensor_shape.dim[0].size = 1
    request.inputs["x"].tensor_content = b"abc"
    refused(call, "Predict", request, "INVALID_ARGUMENT", "tensor_content must hold 4 bytes. Received: 3")
    request.inputs["x"].ClearField("tensor_content")
    request.inputs["x"].float_val.extend([1, 2])
    refused(call, "Predict", request, "INVALID_ARGUMENT", "must hold 1 values. Received: ")


def test_outputs_are_filtered(call, request_of):
    request = request_of("several", a=np.float32([[1, 2]]), n=np.int64([4]))
    assert sorted(call("Predict", request).outputs) == ["next", "sum"]
    request.output_filter.append("sum")
    assert list(call("Predict", request).outputs) == ["sum"]
    request.output_filter.append("sum")
    refused(call, "Predict", request, "INVALID_ARGUMENT", "duplicate output tensor alias: sum")
    request.output_filter[1] = "other"
    message = "output tensor alias not found in signature: other Outputs expected to be in the set {next,sum}"
    refused(call, "Predict", request, "INVALID_ARGUMENT", message)


def test_errors_of_predict(call, request_of, apis):
    x = np.float32([1])
    for request, code, message in (
        (apis["PredictRequest"](), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (request_of("", x=x), "INVALID_ARGUMENT", "has no name"),
        (request_of("foo", x=x), "NOT_FOUND", r"Servable not found for request: Latest\(foo\)"),
        (request_of("half", version=7, x=x), "NOT_FOUND", r"Specific\(half, 7\)"),
        (
            request_of("half", label="new", x=x),
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: new",
        ),
        (request_of("half", "nope", x=x), "FAILED_PRECONDITION", 'Serving signature key "nope" not found.'),
        (
            request_of("half"),
            "INVALID_ARGUMENT",
            r"0!=1 len\({}\) != len\({x}\). Sent extra: {}. Missing but required: {x}",
        ),
        (request_of("half", x=x, z=x), "INVALID_ARGUMENT", "Sent extra: {z}. Missing but required: {}"),
        (request_of("half", z=x), "INVALID_ARGUMENT", "Sent extra: {z}. Missing but required: {x}"),
        (request_of("half", x=np.int32([1])), "INVALID_ARGUMENT", "must be of type float. Received: int32"),
        (
            request_of("several", "scalar", a=np.float32([1])),
            "INVALID_ARGUMENT",
            r"shape \[\?,2\]. Received: \[1\]",
        ),
    ):
        refused(call, "Predict", request, code, message)


def examples(request, *values, context=None):
    import tensorflow as tf

    where = request.input.example_list
    if context is not None:
        where = request.input.example_list_with_context
        where.context.features.feature["x"].float_list.value.append(context)
    for value in values:
        example = tf.train.Example()
        if value is not None:
            example.features.feature["x"].float_list.value.append(value)
        where.examples.append(example)
    return request


def with_spec(request, model, signature=""):
    request.model_spec.name, request.model_spec.signature_name = model, signature
    return request


def test_classify(call, apis):
    request = with_spec(apis["ClassificationRequest"](), "half", "classify_names")
    response = call("Classify", examples(request, 20.0, 10.0))
    assert response.model_spec.version.value == 123
    found = [[(c.label, c.score) for c in row.classes] for row in response.result.classifications]
    assert found == [[("half", 13.0)], [("half", 8.0)]]
    refused(
        call, "Classify", with_spec(request, "half"), "INVALID_ARGUMENT", "Expected classification signature"
    )


def test_regress_with_a_context(call, apis):
    request = with_spec(apis["RegressionRequest"](), "half", "regress_x_to_y")
    response = call("Regress", examples(request, None, 10.0, context=80.0))
    assert [value.value for value in response.result.regressions] == [43.0, 8.0]
    empty = with_spec(apis["RegressionRequest"](), "half", "regress_x_to_y")
    refused(call, "Regress", empty, "INVALID_ARGUMENT", "Input is empty")


def test_several_inferences_in_one(call, apis):
    request = apis["MultiInferenceRequest"]()
    for signature, method in (("regress_x_to_y", "regress"), ("classify_x_to_y", "classify")):
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        with_spec(task, "half", signature)
    response = call("MultiInference", examples(request, 20.0))
    assert response.results[0].regression_result.regressions[0].value == 13.0
    assert response.results[1].classification_result.classifications[0].classes[0].score == 13.0
    assert [r.model_spec.signature_name for r in response.results] == ["regress_x_to_y", "classify_x_to_y"]
    for change, code, message in (
        ({"signature_name": "regress_x_to_y"}, "INVALID_ARGUMENT", "Duplicate evaluation of signature"),
        ({"name": "other"}, "INVALID_ARGUMENT", "must access the same model name"),
        ({"name": ""}, "INVALID_ARGUMENT", "empty model name"),
    ):
        changed = apis["MultiInferenceRequest"].FromString(request.SerializeToString())
        for field, value in change.items():
            setattr(changed.tasks[1].model_spec, field, value)
        refused(call, "MultiInference", changed, code, message)
    request.tasks[1].method_name = "tensorflow/serving/predict"
    refused(call, "MultiInference", request, "UNIMPLEMENTED", "Unsupported signature method_name")
    refused(call, "MultiInference", apis["MultiInferenceRequest"](), "INVALID_ARGUMENT", "at least one task")


def test_metadata(call, apis):
    request = with_spec(apis["GetModelMetadataRequest"](), "half")
    refused(call, "GetModelMetadata", request, "INVALID_ARGUMENT", "at least one metadata_field")
    request.metadata_field.append("signature_def")
    response = call("GetModelMetadata", request)
    assert (response.model_spec.name, response.model_spec.version.value) == ("half", 123)
    definitions = apis["SignatureDefMap"]()
    assert response.metadata["signature_def"].Unpack(definitions)
    assert definitions.signature_def["serving_default"].inputs["x"].name == "x:0"
    request.metadata_field.append("size")
    refused(call, "GetModelMetadata", request, "INVALID_ARGUMENT", "Metadata field size is not supported")
    nameless = apis["GetModelMetadataRequest"](metadata_field=["signature_def"])
    refused(call, "GetModelMetadata", nameless, "INVALID_ARGUMENT", "Missing ModelSpec")


def test_status(call, apis):
    request = with_spec(apis["GetModelStatusRequest"](), "half")
    found = call("GetModelStatus", request).model_version_status
    assert [(s.version, s.State.Name(s.state), s.status.error_code) for s in found] == [
        (1, "AVAILABLE", 0),
        (123, "AVAILABLE", 0),
    ]
    request.model_spec.version.value = 123
    assert [s.version for s in call("GetModelStatus", request).model_version_status] == [123]
    request.model_spec.version.value = 9
    refused(call, "GetModelStatus", request, "NOT_FOUND", "Could not find version 9 of model half")
    refused(call, "GetModelStatus", with_spec(request, "foo"), "NOT_FOUND", "of model foo")
    refused(call, "GetModelStatus", apis["GetModelStatusRequest"](), "INVALID_ARGUMENT", "Missing ModelSpec")


@pytest.mark.parametrize("method", sorted(METHODS))
def test_bytes_that_are_no_message_are_an_error_of_the_client(models, method):
    for body in (b"\xff", b"\x00" * 40, b"\n\xff\xff\xff\xff\x0f"):
        with pytest.raises(ServingError) as caught:
            wait(METHODS[method](body, models))
        assert caught.value.code == "INVALID_ARGUMENT"
