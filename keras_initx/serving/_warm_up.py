"""Runs a new version before it answers clients: first its recorded requests, then a row of zeros.

A warm-up does two things. The first real requests do not wait for TensorFlow's preparations, and a version
that cannot run on this machine is found out before it replaces one that can.
"""

import logging
import os
import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from keras_initx.serving._errors import ServingError
from keras_initx.serving._loaded import DTYPES, LoadedModel, Signature

if TYPE_CHECKING:
    from tensorflow_serving.apis.input_pb2 import Input
    from tensorflow_serving.apis.model_pb2 import ModelSpec
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

__all__ = ["warm_up"]

_log = logging.getLogger(__name__)
# Codes of a model that fails for every input.
_NOT_OF_VALUES = ("DATA_LOSS", "INTERNAL", "UNIMPLEMENTED", "UNKNOWN")
# Messages of a model that fails for every input. TensorFlow gives them the code of a wrong value.
_NO_KERNEL = ("No OpKernel was registered", "Cannot assign a device")
FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")  # noqa: PTH118
MAX_RECORDS = 1000


def warm_up(model: LoadedModel, before: LoadedModel | None = None) -> None:
    """Replays the requests in `assets.extra/tf_serving_warmup_requests`, then runs each other signature once.

    The file is a TFRecord file of `PredictionLog` messages. A signature that no record names runs on one row
    of zeros or empty strings, unless it changes the model's state.

    A signature may refuse the row of zeros, because zeros may be wrong input. But if there is no file of
    requests, and the version that answers now accepts the row, then the refusal is an error.

    Args:
        model: The new version.
        before: The version that the new one would replace, if there is one.

    Raises:
        ServingError: If a record cannot be read, fails, or names a signature, an input or an output that the
            model does not have; if there are more than 1000 records; if a signature cannot run in this
            process.
    """
    path = pathlib.Path(model.path) / FILE
    replayed: set[str] = set()
    if path.exists():  # real requests tell more about the model than a comparison on a row of zeros
        replayed, before = _replay(model, path), None
    for key, signature in model.signatures.items():
        specs = signature.inputs.values()
        known = all(spec.type in DTYPES and spec.shape is not None for spec in specs)
        if key not in replayed and known and not signature.writes:
            _run_first(model, signature, before)


def _run_first(model: LoadedModel, signature: Signature, before: LoadedModel | None) -> None:
    row = _drawn_row(signature)
    try:
        model.run(signature, row, sorted(signature.outputs))
    except ServingError as error:
        told = f"{model.path}: signature {signature.key!r} cannot run here: {error.message}"
        if error.code in _NOT_OF_VALUES or any(text in error.message for text in _NO_KERNEL):
            raise ServingError(error.code, told) from error
        if before is not None and _answers(before, signature, row):
            raise ServingError(
                error.code,
                f"{model.path}: signature {signature.key!r} fails on a row of zeros or empty strings, which "
                f"{before.path} answers: {error.message}. If it is right to refuse that row, export the "
                "model with requests of your own (`warmup=`), or start the server again.",
            ) from error
        _log.info("%s: a drawn row does not warm signature %r: %s", model.path, signature.key, error)


def _answers(before: LoadedModel, signature: Signature, row: dict[str, np.ndarray]) -> bool:
    same = before.signatures.get(signature.key)
    if same is None or same.writes or {*same.inputs} != {*signature.inputs}:
        return False
    try:
        before.run(same, row, sorted(same.outputs))
    except Exception:  # or it has been closed meanwhile
        return False
    return True


def _drawn_row(signature: Signature) -> dict[str, np.ndarray]:
    """Returns zeros or empty strings in the signature's shapes, with size 1 for each free dimension."""
    return {
        name: np.full(
            [size or 1 for size in spec.shape or ()], b"" if spec.type == "string" else 0, DTYPES[spec.type]
        )
        for name, spec in signature.inputs.items()
    }


def _replay(model: LoadedModel, path: pathlib.Path) -> set[str]:
    """Runs the requests in a file, and returns the names of the signatures that they ran."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis import prediction_log_pb2

    number, replayed = 0, set()  # 0 stays in the message if the file cannot be read at all
    try:
        for number, record in enumerate(tf.data.TFRecordDataset(str(path)).as_numpy_iterator(), 1):
            if number > MAX_RECORDS:
                raise ServingError("INVALID_ARGUMENT", f"more than {MAX_RECORDS} records")
            replayed |= _run(model, prediction_log_pb2.PredictionLog.FromString(record))
    except ServingError as error:
        raise ServingError(error.code, f"{path}: warm-up record {number}: {error.message}") from error
    except (DecodeError, tf.errors.OpError, KeyError, TypeError, ValueError) as error:
        raise ServingError("INVALID_ARGUMENT", f"{path}: warm-up record {number}: {error}") from error
    return replayed


def _run(model: LoadedModel, log: "PredictionLog") -> set[str]:
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        import tensorflow as tf

        request = log.predict_log.request
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        return {_run_signature(model, request.model_spec, inputs, request.output_filter)}
    if kind in ("classify_log", "regress_log"):
        request = getattr(log, kind).request
        return {_run_signature(model, request.model_spec, _examples(request.input))}
    if kind == "multi_inference_log":
        request = log.multi_inference_log.request
        examples = _examples(request.input)
        return {_run_signature(model, task.model_spec, examples) for task in request.tasks}
    raise ServingError("UNIMPLEMENTED", f"`{kind}` cannot be replayed, only predict, classify and regress")


def _run_signature(
    model: LoadedModel,
    spec: "ModelSpec",
    inputs: dict[str, np.ndarray] | np.ndarray,
    outputs: Iterable[str] = (),
) -> str:
    """Runs one signature on tensors by name, or on examples, which go to its only input."""
    key = spec.signature_name or "serving_default"
    if key not in model.signatures:
        raise ServingError("NOT_FOUND", f"no signature {key!r}, only {sorted(model.signatures)}")
    signature = model.signatures[key]
    if not isinstance(inputs, dict):
        inputs = dict.fromkeys(signature.inputs, inputs)
    wrong = {*outputs} - {*signature.outputs} or {*inputs} ^ {*signature.inputs}
    if wrong:
        raise ServingError("INVALID_ARGUMENT", f"signature {key!r} and the request differ in {sorted(wrong)}")
    model.run(signature, inputs, sorted(outputs or signature.outputs))
    return str(key)


def _examples(message: "Input") -> np.ndarray:
    """Returns the serialized examples of an `Input`, each merged over the context that all of them share."""
    shared = message.example_list_with_context.context
    examples = [*message.example_list.examples]
    for example in message.example_list_with_context.examples:
        merged = type(example)()
        merged.CopyFrom(shared)
        merged.MergeFrom(example)
        examples.append(merged)
    return np.array([example.SerializeToString() for example in examples], object)
