"""Runs a version before it answers: the requests that its folder brings along, and a row of zeros."""

import logging
import os
import pathlib
from typing import Any

import numpy as np

from keras_initx.serving._errors import ServingError
from keras_initx.serving._loaded import DTYPES, LoadedModel, Signature

__all__ = ["warm_up"]

_log = logging.getLogger(__name__)
# Codes of a model that fails whatever it is asked.
_NOT_OF_VALUES = ("DATA_LOSS", "INTERNAL", "UNIMPLEMENTED", "UNKNOWN")
# The same in words, for TensorFlow gives them the code of a wrong value.
_NO_KERNEL = ("No OpKernel was registered", "Cannot assign a device")
FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")  # noqa: PTH118
MAX_RECORDS = 1000


def warm_up(model: LoadedModel, before: LoadedModel | None = None) -> None:
    """Replays `assets.extra/tf_serving_warmup_requests`, then runs each signature that this left out once.

    That file is a TFRecord file of `PredictionLog`. A signature that it does not name runs on a row of zeros,
    or of empty strings; a signature that changes the model's state does not. A signature may refuse that row,
    unless there is no such file and the version that answers now takes the row.

    Args:
        model: The version that is to answer.
        before: The version that it is to replace, if there is one.

    Raises:
        ServingError: A record cannot be read, names what the model has not, or fails; there are more than
            1000; or a signature cannot run in this process.
    """
    path = pathlib.Path(model.path) / FILE
    replayed: set[str] = set()
    if path.exists():  # which tells what is typical of the model
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
    return {
        name: np.full(
            [size or 1 for size in spec.shape or ()], b"" if spec.type == "string" else 0, DTYPES[spec.type]
        )
        for name, spec in signature.inputs.items()
    }


def _replay(model: LoadedModel, path: pathlib.Path) -> set[str]:
    """Runs the file's requests, and returns the signatures that they named."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis import prediction_log_pb2

    number, replayed = 0, set()
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


def _run(model: LoadedModel, log: Any) -> set[str]:
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


def _run_signature(model: LoadedModel, spec: Any, inputs: Any, outputs: Any = ()) -> str:
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


def _examples(message: Any) -> np.ndarray:
    """The serialized examples of a tensorflow_serving `Input`; what they share is part of each."""
    shared = message.example_list_with_context.context
    examples = [*message.example_list.examples]
    for example in message.example_list_with_context.examples:
        merged = type(example)()
        merged.CopyFrom(shared)
        merged.MergeFrom(example)
        examples.append(merged)
    return np.array([example.SerializeToString() for example in examples], object)
