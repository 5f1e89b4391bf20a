"""Requests that a server replays as it loads a version: TensorFlow Serving's warm-up file."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from keras import tree

from keras_initx.data import take_pair
from keras_initx.extras import require
from keras_initx.saved_model._endpoints import CLASSIFY, Endpoint, predict
from keras_initx.saved_model._rows import fixed_batch

FILE = pathlib.Path("assets.extra", "tf_serving_warmup_requests")
_MOST = 1000  # more make TensorFlow Serving refuse the version


def take_rows(model: Any, warmup: Any, labelled: bool, signature: list[Any]) -> list[np.ndarray]:
    """Checks what a user gave for warm-up, and returns it in the order of the model's inputs.

    Args:
        model: The model.
        warmup: Rows as `model.predict` takes them.
        labelled: Whether a request for the labels comes on top.
        signature: As `input_signature` returns it.

    Raises:
        ImportError: If the extra `serve` is not installed.
        ValueError: If they do not fit the model, or are too many.
    """
    import_log()
    size = fixed_batch(model)
    most = (_MOST - labelled) * (size or 1)
    warmup = _by_input(model, warmup, signature)
    try:
        rows = tree.flatten(take_pair(model, warmup, size or most + 1)[0])
    except ValueError as error:
        raise ValueError(str(error).replace("`data`", "`warmup`")) from error
    if len(rows[0]) > most:
        raise ValueError(
            f"`warmup` must hold at most {most} rows: TensorFlow Serving refuses a version with more than "
            f"{_MOST} warm-up records. Received: more. Pass a few that are typical."
        )
    return rows


def _by_input(model: Any, warmup: Any, signature: list[Any]) -> Any:
    """Returns rows for a model whose inputs are the arguments of its `call` as a list in their order."""
    if hasattr(model, "inputs"):
        return warmup
    specs = tree.flatten(predict("serve", model, signature=signature).specs)
    names = [spec.name for spec in specs]
    if isinstance(warmup, dict) and set(warmup) == set(names):
        warmup = [warmup[name] for name in names]
    elif len(names) > 1 and isinstance(warmup, tuple):
        warmup = list(warmup)  # a pair would be taken for rows and their targets
    given = len(warmup) if isinstance(warmup, list) and all(hasattr(one, "shape") for one in warmup) else 1
    if len(names) > 1 and given != len(names):
        raise ValueError(
            f"`warmup` must hold an array for each of the inputs {names}, as a tuple or by name. "
            f"Received: {given if isinstance(warmup, list) else type(warmup).__name__}."
        )
    return warmup


def import_log() -> Any:
    """Returns the module of the records' message, or raises ImportError where it is not installed."""
    require("tensorflow_serving", extra="serve", purpose="`warmup`")
    from tensorflow_serving.apis import prediction_log_pb2

    return prediction_log_pb2


def write_warmup(
    folder: pathlib.Path, name: str, run: Sequence[tuple[Endpoint, list[Any]]], size: int
) -> int:
    """Writes a record for each row, and returns how many.

    Args:
        folder: The version's folder.
        name: The model's name on a server.
        run: The signatures to ask, with the rows to ask each.
        size: Rows of a record.
    """
    import tensorflow as tf

    (folder / FILE).parent.mkdir(exist_ok=True)
    records = 0
    with tf.io.TFRecordWriter(str(folder / FILE)) as writer:
        for endpoint, rows in run:
            for start in range(0, len(rows[0]), size):
                log = _log(endpoint, name, [leaf[start : start + size] for leaf in rows])
                writer.write(log.SerializeToString())
                records += 1
    return records


def read_warmup(folder: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the requests of a version: the signature, and its inputs by name.

    Args:
        folder: The version's folder.
    """
    import tensorflow as tf

    if not (folder / FILE).exists():
        return
    message = import_log().PredictionLog
    for record in tf.data.TFRecordDataset(str(folder / FILE)).as_numpy_iterator():
        log = message.FromString(record)
        if log.WhichOneof("log_type") == "predict_log":
            request = log.predict_log.request
            feeds = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        else:
            request = log.classify_log.request
            examples = request.input.example_list.examples
            feeds = {"inputs": [example.SerializeToString() for example in examples]}
        yield request.model_spec.signature_name, feeds


def _log(endpoint: Endpoint, name: str, rows: list[Any]) -> Any:
    import tensorflow as tf

    log = import_log().PredictionLog()
    classify = endpoint.method == CLASSIFY
    request = log.classify_log.request if classify else log.predict_log.request
    request.model_spec.name, request.model_spec.signature_name = name, endpoint.key
    if classify:
        examples = map(tf.train.Example.FromString, rows[0])
        request.input.example_list.examples.extend(examples)
    else:
        for key, leaf in endpoint.feeds(rows).items():
            request.inputs[key].CopyFrom(tf.make_tensor_proto(leaf))
    return log
