"""The warm-up file: requests that a server replays when it loads a version.

The first request of a program is slow, because TensorFlow builds its kernels then. Replayed requests take
this time before the first client asks.
"""

import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import tree

from _initx_saved_model import WARMUP
from keras_initx._types import Data, Model
from keras_initx.data import take_pair
from keras_initx.extras import require
from keras_initx.saved_model._endpoints import CLASSIFY, Endpoint, predict
from keras_initx.saved_model._rows import fixed_batch

if TYPE_CHECKING:
    from types import ModuleType

    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

_MOST = 1000  # records; TensorFlow Serving refuses a version with more


def take_rows(model: Model, warmup: Data, labelled: bool, signature: list[Any]) -> list[np.ndarray]:
    """Checks the warm-up rows of a user, and returns them in the order of the model's inputs.

    Args:
        model: The model.
        warmup: Rows as `model.predict` takes them.
        labelled: Whether the file will hold one more request, for the signature `classify`.
        signature: The specs of the model's inputs, from `input_signature`.

    Raises:
        ImportError: If the extra `serve` is not installed.
        ValueError: If the rows do not fit the model, or if there are too many.
    """
    import_log()
    size = fixed_batch(model)
    # A request has one row, or as many rows as a model with a fixed batch size takes.
    most = (_MOST - labelled) * (size or 1)
    warmup = _by_input(model, warmup, signature)
    try:
        rows = tree.flatten(take_pair(model, warmup, size or most + 1)[0])
    except ValueError as error:
        # `take_pair` speaks of the argument `data` of other functions.
        raise ValueError(str(error).replace("`data`", "`warmup`")) from error
    if len(rows[0]) > most:
        raise ValueError(
            f"`warmup` must hold at most {most} rows: TensorFlow Serving refuses a version with more than "
            f"{_MOST} warm-up records. Received: more. Pass a few typical rows."
        )
    return rows


def _by_input(model: Model, warmup: Data, signature: list[Any]) -> Data:
    """Returns the rows of a subclassed model as a list, in the order of the arguments of its `call`.

    The rows of other models are returned as they are.
    """
    if hasattr(model, "inputs"):
        return warmup
    specs = tree.flatten(predict("serve", model, signature=signature).specs)
    names = [spec.name for spec in specs]
    if isinstance(warmup, dict) and set(warmup) == set(names):
        warmup = [warmup[name] for name in names]
    elif len(names) > 1 and isinstance(warmup, tuple):
        warmup = list(warmup)  # `take_pair` would read a tuple of two as rows and their targets
    given = len(warmup) if isinstance(warmup, list) and all(hasattr(one, "shape") for one in warmup) else 1
    if len(names) > 1 and given != len(names):
        raise ValueError(
            f"`warmup` must hold an array for each of the inputs {names}, as a tuple or by name. "
            f"Received: {f'a list of {given}' if isinstance(warmup, list) else type(warmup).__name__}."
        )
    return warmup


def import_log() -> "ModuleType":
    """Returns the module with the message of the records; raises ImportError if it is not installed."""
    require("tensorflow_serving", extra="serve", purpose="`warmup`")
    from tensorflow_serving.apis import prediction_log_pb2

    return prediction_log_pb2


def write_warmup(
    folder: pathlib.Path, name: str, run: Sequence[tuple[Endpoint, list[np.ndarray]]], size: int
) -> int:
    """Writes the warm-up file, and returns the number of its records.

    Args:
        folder: The version's folder.
        name: The name of the model on a server.
        run: The signatures to ask, each with the rows to send.
        size: The number of rows in a record.
    """
    import tensorflow as tf

    (folder / WARMUP).parent.mkdir(exist_ok=True)
    records = 0
    with tf.io.TFRecordWriter(str(folder / WARMUP)) as writer:
        for endpoint, rows in run:
            for start in range(0, len(rows[0]), size):
                log = _log(endpoint, name, [leaf[start : start + size] for leaf in rows])
                writer.write(log.SerializeToString())
                records += 1
    return records


def read_warmup(folder: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the requests in a warm-up file: the name of the signature, and its inputs by name.

    Args:
        folder: The version's folder; a version without a warm-up file yields nothing.
    """
    import tensorflow as tf

    if not (folder / WARMUP).exists():
        return
    message = import_log().PredictionLog
    for record in tf.data.TFRecordDataset(str(folder / WARMUP)).as_numpy_iterator():
        log = message.FromString(record)
        if log.WhichOneof("log_type") == "predict_log":
            request = log.predict_log.request
            feeds = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        else:
            request = log.classify_log.request
            examples = request.input.example_list.examples
            feeds = {"inputs": [example.SerializeToString() for example in examples]}
        yield request.model_spec.signature_name, feeds


def _log(endpoint: Endpoint, name: str, rows: list[np.ndarray]) -> "PredictionLog":
    """Returns one record: a request of TensorFlow Serving, wrapped in the message that it logs."""
    import tensorflow as tf

    log = import_log().PredictionLog()
    classify = endpoint.method == CLASSIFY
    request = log.classify_log.request if classify else log.predict_log.request
    request.model_spec.name, request.model_spec.signature_name = name, endpoint.key
    if classify:
        # The rows of this signature are serialized examples; the request holds them as messages.
        examples = map(tf.train.Example.FromString, rows[0])
        request.input.example_list.examples.extend(examples)
    else:
        for key, leaf in endpoint.feeds(rows).items():
            request.inputs[key].CopyFrom(tf.make_tensor_proto(leaf))
    return log
