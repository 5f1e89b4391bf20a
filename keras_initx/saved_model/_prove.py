"""`prove_row_wise`: writes the proof of row-wise signatures for a version that has none."""

import os
import pathlib
import tempfile
from typing import TYPE_CHECKING

import numpy as np

from _initx_saved_model import local, write_proof
from keras_initx.saved_model._differences import tolerance_of
from keras_initx.saved_model._endpoints import reason, sentence
from keras_initx.saved_model._process import WorkerError, opened
from keras_initx.saved_model._row_wise import prove
from keras_initx.saved_model._rows import draw_rows
from keras_initx.saved_model._warmup import read_warmup

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["prove_row_wise"]


def prove_row_wise(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Proves which signatures of a SavedModel are row-wise, and writes the proof into its folder.

    `export` does this for the versions that it writes. Use this function for a version of an earlier release,
    or for a folder that `model.export` wrote.

    A row-wise signature gives a row the same answer alone and next to any other rows. `initx serve` runs the
    rows of several requests together if the signature is proven, and each request alone if it is not.

    The proof is an experiment in another process. It runs each signature that takes numbers on the warm-up
    rows of the version, or on drawn rows if there are none: alone, and next to other rows, among them zeros,
    huge numbers, NaN and infinity. The result is in `assets.extra/initx_row_wise.json`.

    >>> import tempfile
    >>> import keras
    >>> model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.export(folder, verbose=False)
    ...     print(prove_row_wise(folder))
    ('serve', 'serving_default')

    Args:
        path: The folder of one version, such as `saved_models/digits/1`. A SavedModel is a program, and this
            function runs it: pass only a SavedModel that you trust.

    Returns:
        The names of the proven signatures, sorted. `inspect` tells why the others are not proven.

    Raises:
        ValueError: If the folder does not hold a SavedModel, or the SavedModel cannot be loaded.
    """
    from google.protobuf.message import DecodeError

    folder = local(path, "Copy the version's folder to this machine, and prove the copy.")
    if not (folder / "saved_model.pb").is_file():
        raise ValueError(
            "`path` must be the folder of a version, with saved_model.pb in it. Received: "
            f"path={os.fspath(path)!r}. Pass a folder such as 'saved_models/digits/1'."
        )
    warm: dict[str, list[dict[str, np.ndarray]]] = {}
    for name, feeds in read_warmup(folder):
        warm.setdefault(name, []).append(feeds)
    try:
        with tempfile.TemporaryDirectory() as scratch, opened(folder, pathlib.Path(scratch)) as ask:
            found = {
                # Without the model, neither hints about its inputs nor the dtypes of its layers are known.
                name: prove(ask, name, specs, _rows(specs, warm.get(name, [])), (), tolerance_of())
                for name, specs in _definitions(folder).items()
            }
    except (WorkerError, IndexError, DecodeError) as error:
        told = sentence(str(error)) if isinstance(error, WorkerError) else reason(error)
        told = told.rstrip(".")
        raise ValueError(
            f"`path` must be a SavedModel that can be loaded. Received: path={os.fspath(path)!r}: {told}. "
            "Export the model again."
        ) from error
    return write_proof(folder, found)


def _definitions(folder: pathlib.Path) -> dict[str, list["tf.TensorSpec"]]:
    """Returns the inputs of each signature, sorted by name, without running it."""
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


def _rows(specs: list["tf.TensorSpec"], warm: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    """Returns the warm-up rows of a signature, or drawn rows if there are none.

    Of rows with several shapes it takes all rows with the shape of the first.
    """
    if any(spec.dtype.name == "string" or spec.shape.rank is None for spec in specs):
        return []  # such a signature is never proven, so it is not run
    alike = [feeds for feeds in warm if _shapes(feeds) == _shapes(warm[0])]
    if alike:
        return [np.concatenate([feeds[spec.name] for feeds in alike]) for spec in specs]
    return draw_rows(specs)


def _shapes(feeds: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: np.shape(value)[1:] for name, value in feeds.items()}
