"""Runs a version before it answers: the requests that its folder brings along, else a row of zeros."""

import logging
import os
import pathlib
from typing import Any

import numpy as np

from keras_initx.serving._errors import ServingError
from keras_initx.serving._loaded import DTYPES, LoadedModel, Signature

__all__ = ["warm_up"]

_log = logging.getLogger(__name__)
FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")  # noqa: PTH118
MAX_RECORDS = 1000


def warm_up(model: LoadedModel) -> None:
    """Replays `assets.extra/tf_serving_warmup_requests`, a TFRecord file of `PredictionLog`.

    Without that file, each signature whose rows can be batched and whose inputs are numbers is run once on a
    row of zeros, and what fails is left alone.

    Raises:
        ServingError: A record cannot be read, names what the model has not, or fails; or there are more than
            1000.
    """
    path = pathlib.Path(model.path) / FILE
    if path.exists():
        _replay(model, path)
        return
    for signature in model.signatures.values():
        specs = signature.inputs.values()
        if signature.has_batch and all(spec.type in DTYPES and spec.type != "string" for spec in specs):
            try:
                model.run(signature, _zeros(signature), sorted(signature.outputs))
            except ServingError as error:
                _log.info("%s: zeros do not warm signature %r: %s", model.path, signature.key, error)


def _zeros(signature: Signature) -> dict[str, np.ndarray]:
    return {
        name: np.zeros([size or 1 for size in spec.shape or ()], DTYPES[spec.type])
        for name, spec in signature.inputs.items()
    }


def _replay(model: LoadedModel, path: pathlib.Path) -> None:
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis import prediction_log_pb2

    number = 0
    try:
        for number, record in enumerate(tf.data.TFRecordDataset(str(path)).as_numpy_iterator(), 1):
            if number > MAX_RECORDS:
                raise ServingError("INVALID_ARGUMENT", f"more than {MAX_RECORDS} records")
            _run(model, prediction_log_pb2.PredictionLog.FromString(record))
    except ServingError as error:
        raise ServingError(error.code, f"{path}: warm-up record {number}: {error.message}") from error
    except (DecodeError, tf.errors.OpError, KeyError, TypeError, ValueError) as error:
        raise ServingError("INVALID_ARGUMENT", f"{path}: warm-up record {number}: {error}") from error


def _run(model: LoadedModel, log: Any) -> None:
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        import tensorflow as tf

        request = log.predict_log.request
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        _run_signature(model, request.model_spec, inputs, request.output_filter)
    elif kind in ("classify_log", "regress_log"):
        request = getattr(log, kind).request
        _run_signature(model, request.model_spec, _examples(request.input))
    elif kind == "multi_inference_log":
        request = log.multi_inference_log.request
        for task in request.tasks:
            _run_signature(model, task.model_spec, _examples(request.input))
    else:
        raise ServingError(
            "UNIMPLEMENTED", f"`{kind}` cannot be replayed, only predict, classify and regress"
        )


def _run_signature(model: LoadedModel, spec: Any, inputs: Any, outputs: Any = ()) -> None:
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
