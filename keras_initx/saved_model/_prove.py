"""`prove_row_wise`: the proof of `export`, for a version that has none."""

import os
import pathlib
import tempfile
from typing import Any

import numpy as np

from _initx_saved_model import local, write_proof
from keras_initx.saved_model._differences import tolerance_of
from keras_initx.saved_model._endpoints import reason, sentence
from keras_initx.saved_model._process import WorkerError, opened
from keras_initx.saved_model._row_wise import prove
from keras_initx.saved_model._rows import draw_rows
from keras_initx.saved_model._warmup import read_warmup

__all__ = ["prove_row_wise"]


def prove_row_wise(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Writes beside a SavedModel which of its signatures are row-wise, as `export` does for its own.

    A row-wise signature answers a row as it answers the row alone, whatever rows stand beside it. Of these
    `initx serve` runs the rows of several requests together; without the proof it runs each request alone.
    Each signature of numbers is run in a process of its own, on the warm-up rows of the version or on rows
    that are drawn: alone, and next to others, zeros, huge numbers, NaN and infinity among them.

    >>> import tempfile
    >>> import keras
    >>> model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.export(folder, verbose=False)
    ...     print(prove_row_wise(folder))
    ('serve', 'serving_default')

    Args:
        path: The folder of one version, of this package or of `model.export`. A SavedModel is a program: only
            give one that you trust.

    Returns:
        The names of the signatures that are proven, sorted. `inspect` tells why others are not.

    Raises:
        ValueError: If there is no SavedModel, or one that cannot be loaded.
    """
    from google.protobuf.message import DecodeError

    folder = local(path)
    if not (folder / "saved_model.pb").is_file():
        raise ValueError(
            "`path` must be the folder of a version, with saved_model.pb in it. Received: "
            f"path={os.fspath(path)!r}."
        )
    warm: dict[str, list[dict[str, Any]]] = {}
    for name, feeds in read_warmup(folder):
        warm.setdefault(name, []).append(feeds)
    try:
        with tempfile.TemporaryDirectory() as scratch, opened(folder, pathlib.Path(scratch)) as ask:
            found = {
                name: prove(ask, name, specs, _rows(specs, warm.get(name, [])), (), tolerance_of())
                for name, specs in _definitions(folder).items()
            }
    except (WorkerError, IndexError, DecodeError) as error:
        told = sentence(str(error)) if isinstance(error, WorkerError) else reason(error)
        raise ValueError(
            f"`path` must be a SavedModel that can be loaded. Received: path={os.fspath(path)!r}: {told}"
        ) from error
    return write_proof(folder, found)


def _definitions(folder: pathlib.Path) -> dict[str, list[Any]]:
    """The inputs of each signature, read without running it."""
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    message = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    return {
        key: [
            tf.TensorSpec(info.tensor_shape, tf.as_dtype(info.dtype), name)
            for name, info in sorted(definition.inputs.items())
        ]
        for key, definition in message.meta_graphs[0].signature_def.items()
        if not key.startswith("__")
    }


def _rows(specs: list[Any], warm: list[dict[str, Any]]) -> list[np.ndarray]:
    if any(spec.dtype.name == "string" or spec.shape.rank is None for spec in specs):
        return []
    alike = [feeds for feeds in warm if _shapes(feeds) == _shapes(warm[0])]
    if alike:
        return [np.concatenate([feeds[spec.name] for feeds in alike]) for spec in specs]
    return draw_rows(specs)


def _shapes(feeds: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: np.shape(value)[1:] for name, value in feeds.items()}
