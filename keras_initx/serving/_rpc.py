"""TensorFlow Serving's gRPC methods without a server: from the bytes of a request to the bytes of an answer.

The error texts are TensorFlow Serving's, word for word: clients may parse them. The messages are imported
inside of functions, because the imports take seconds.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np

import keras_initx.serving._inference as inference
import keras_initx.serving._messages as messages
from keras_initx.serving._configs import configs_of
from keras_initx.serving._errors import ServingError, invalid
from keras_initx.serving._loaded import Signature

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from tensorflow.core.framework.tensor_pb2 import TensorProto
    from tensorflow_serving.apis.classification_pb2 import ClassificationRequest, ClassificationResult
    from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest
    from tensorflow_serving.apis.inference_pb2 import InferenceTask
    from tensorflow_serving.apis.input_pb2 import Input
    from tensorflow_serving.apis.model_pb2 import ModelSpec
    from tensorflow_serving.apis.predict_pb2 import PredictRequest
    from tensorflow_serving.apis.regression_pb2 import RegressionRequest, RegressionResult

    # The messages that name a model.
    _Asked: TypeAlias = (
        ClassificationRequest | GetModelMetadataRequest | InferenceTask | PredictRequest | RegressionRequest
    )

__all__ = ["METHODS"]

_MessageT = TypeVar("_MessageT", bound="Message")


async def predict(request: bytes, models: inference.Versions) -> bytes:
    """Answers a `PredictRequest`."""
    from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

    asked = _parse(PredictRequest, request)
    version = _find(asked, models)
    key = asked.model_spec.signature_name or inference.DEFAULT
    signature = version.signatures.get(key)
    if signature is None:
        raise ServingError("FAILED_PRECONDITION", f'Serving signature key "{key}" not found.')
    _check_names(signature, asked.inputs)
    inputs = {
        name: messages.read_tensor(asked.inputs[name], spec.type, name)
        for name, spec in signature.inputs.items()
    }
    outputs = await inference.run(version, signature, inputs, _filter(signature, asked.output_filter))
    response = PredictResponse()
    _fill_spec(response.model_spec, version, key)
    for name, tensor in outputs.items():
        messages.write_tensor(tensor, response.outputs[name])
    return response.SerializeToString()


async def classify(request: bytes, models: inference.Versions) -> bytes:
    """Answers a `ClassificationRequest`."""
    from tensorflow_serving.apis.classification_pb2 import ClassificationRequest, ClassificationResponse

    version, signature, examples = _open(ClassificationRequest, request, models, "classify")
    found = await inference.classify(version, signature, examples)
    response = ClassificationResponse()
    _fill_spec(response.model_spec, version, signature.key)
    _fill_classes(response.result, *found)
    return response.SerializeToString()


async def regress(request: bytes, models: inference.Versions) -> bytes:
    """Answers a `RegressionRequest`."""
    from tensorflow_serving.apis.regression_pb2 import RegressionRequest, RegressionResponse

    version, signature, examples = _open(RegressionRequest, request, models, "regress")
    values = await inference.regress(version, signature, examples)
    response = RegressionResponse()
    _fill_spec(response.model_spec, version, signature.key)
    _fill_values(response.result, values)
    return response.SerializeToString()


async def multi_inference(request: bytes, models: inference.Versions) -> bytes:
    """Answers a `MultiInferenceRequest`, which runs several signatures of one model on the same examples."""
    from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest, MultiInferenceResponse

    asked = _parse(MultiInferenceRequest, request)
    tasks = _check_tasks(asked.tasks)
    version = _find(asked.tasks[0], models)
    examples = _examples(asked.input)
    chosen = [inference.choose(version, spec.signature_name, method) for spec, method in tasks]
    if len({signature.inputs["inputs"].tensor for signature in chosen}) > 1:
        raise invalid("Input tensor must be the same for all Signatures.")
    response = MultiInferenceResponse()
    for signature, (_, method) in zip(chosen, tasks, strict=True):
        result = response.results.add()
        _fill_spec(result.model_spec, version, signature.key)
        if method == "classify":
            found = await inference.classify(version, signature, examples)
            _fill_classes(result.classification_result, *found)
        else:
            _fill_values(result.regression_result, await inference.regress(version, signature, examples))
    return response.SerializeToString()


async def get_model_metadata(request: bytes, models: inference.Versions) -> bytes:
    """Answers a `GetModelMetadataRequest`."""
    from tensorflow_serving.apis.get_model_metadata_pb2 import (
        GetModelMetadataRequest,
        GetModelMetadataResponse,
    )

    asked = _parse(GetModelMetadataRequest, request)
    if not asked.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    if not asked.metadata_field:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in asked.metadata_field:
        if field != "signature_def":
            raise invalid(f"Metadata field {field} is not supported")
    version = _find(asked, models)
    response = GetModelMetadataResponse()
    _fill_spec(response.model_spec, version, "")
    response.metadata["signature_def"].Pack(messages.signature_def_map(version))
    return response.SerializeToString()


async def get_model_status(request: bytes, models: inference.Versions) -> bytes:
    """Answers a `GetModelStatusRequest`. A label in it is ignored, as in TensorFlow Serving."""
    from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest

    asked = _parse(GetModelStatusRequest, request)
    if not asked.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec = asked.model_spec
    number = spec.version.value if spec.HasField("version") else None
    return messages.status(models, spec.name, number).SerializeToString()


async def reload_config(request: bytes, models: inference.Versions) -> bytes:
    """Answers a `ReloadConfigRequest`: its configuration replaces the one that is served."""
    from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest, ReloadConfigResponse

    asked = _parse(ReloadConfigRequest, request)
    try:
        configs = configs_of(asked.config)
    except ValueError as error:
        raise invalid(str(error)) from error
    await models.reload(configs)
    return ReloadConfigResponse().SerializeToString()


# All methods by the path that a client calls.
METHODS: dict[str, Callable[[bytes, inference.Versions], Awaitable[bytes]]] = {
    "/tensorflow.serving.PredictionService/Predict": predict,
    "/tensorflow.serving.PredictionService/Classify": classify,
    "/tensorflow.serving.PredictionService/Regress": regress,
    "/tensorflow.serving.PredictionService/MultiInference": multi_inference,
    "/tensorflow.serving.PredictionService/GetModelMetadata": get_model_metadata,
    "/tensorflow.serving.ModelService/GetModelStatus": get_model_status,
    "/tensorflow.serving.ModelService/HandleReloadConfigRequest": reload_config,
}


def _parse(message: type[_MessageT], request: bytes) -> _MessageT:
    from google.protobuf.message import DecodeError

    try:
        return message.FromString(request)
    except DecodeError:
        raise invalid(f"The request is no {message.DESCRIPTOR.name}") from None


def _find(
    asked: "_Asked",
    models: inference.Versions,
) -> inference.Served:
    """Returns the version that a message asks for in its `model_spec`."""
    if not asked.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec = asked.model_spec
    if not spec.name:
        raise invalid("ModelSpec has no name specified.")
    number = spec.version.value if spec.HasField("version") else None
    return models.find(spec.name, number, spec.version_label or None)


def _open(
    message: "type[ClassificationRequest] | type[RegressionRequest]",
    request: bytes,
    models: inference.Versions,
    method: str,
) -> tuple[inference.Served, Signature, list[bytes]]:
    """Returns the version, the signature and the serialized examples that a request asks for."""
    asked = _parse(message, request)
    version = _find(asked, models)
    signature = inference.choose(version, asked.model_spec.signature_name, method)
    return version, signature, _examples(asked.input)


def _check_names(signature: Signature, inputs: "Mapping[str, TensorProto]") -> None:
    if inputs.keys() == signature.inputs.keys():
        return
    sent, wanted = sorted(inputs), sorted(signature.inputs)
    extra, missing = (sorted(set(a) - set(b)) for a, b in ((sent, wanted), (wanted, sent)))
    raise invalid(
        f"input size does not match signature: {len(sent)}!={len(wanted)} len({{{','.join(sent)}}}) != "
        f"len({{{','.join(wanted)}}}). Sent extra: {{{','.join(extra)}}}. Missing but required: "
        f"{{{','.join(missing)}}}."
    )


def _filter(signature: Signature, names: Sequence[str]) -> tuple[str, ...]:
    """Checks the names of the outputs that a request wants. They may be empty, which means all outputs."""
    for at, name in enumerate(names):
        if name not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set "
                f"{{{','.join(signature.outputs)}}}."
            )
        if name in names[:at]:
            raise invalid(f"duplicate output tensor alias: {name}")
    return tuple(names)


def _examples(asked: "Input") -> list[bytes]:
    """Returns the serialized examples of an `Input`, each over the context that all of them share."""
    kind = asked.WhichOneof("kind")
    if kind is None:
        raise invalid("Input is empty.")
    listed = getattr(asked, kind)
    # Protobuf reads serialized messages that follow one another as one message; the later one wins.
    context = listed.context.SerializeToString() if kind == "example_list_with_context" else b""
    return [context + example.SerializeToString() for example in listed.examples]


def _check_tasks(tasks: "Sequence[InferenceTask]") -> "list[tuple[ModelSpec, str]]":
    """Returns the model spec and the method (`classify` or `regress`) of each task."""
    if not tasks:
        raise invalid("Inference request must have at least one task.")
    found, seen = [], set()
    for task in tasks:
        if not task.model_spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if task.model_spec.name != tasks[0].model_spec.name:
            raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        key = task.model_spec.signature_name or inference.DEFAULT
        if key in seen:
            raise invalid(f"Duplicate evaluation of signature: {key}")
        method = task.method_name.removeprefix("tensorflow/serving/")
        if method not in ("classify", "regress"):
            raise ServingError("UNIMPLEMENTED", f"Unsupported signature method_name: {task.method_name}")
        seen.add(key)
        found.append((task.model_spec, method))
    return found


def _fill_spec(spec: "ModelSpec", version: inference.Served, key: str) -> None:
    spec.name = version.name
    spec.version.value = version.number
    spec.signature_name = key


def _fill_classes(
    result: "ClassificationResult", classes: np.ndarray | None, scores: np.ndarray | None
) -> None:
    rows, width = (classes if classes is not None else scores).shape  # type: ignore[union-attr]  # one is there
    for row in range(rows):
        answer = result.classifications.add()
        for column in range(width):
            label = b"" if classes is None else classes[row, column]
            score = 0.0 if scores is None else scores[row, column]
            # The field is text: a label that is not UTF-8 loses bytes, but must not fail the request.
            answer.classes.add(label=label.decode("utf-8", "replace"), score=score)


def _fill_values(result: "RegressionResult", values: np.ndarray) -> None:
    for value in values.tolist():
        result.regressions.add(value=value)
