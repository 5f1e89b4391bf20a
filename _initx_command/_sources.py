"""Data from files and data sets, and the words of errors."""

import contextlib
import pathlib
import re
import sys
from typing import TYPE_CHECKING

from _initx_command._loading import load

if TYPE_CHECKING:
    import tensorflow as tf

    from keras_initx._types import Data, Model

__all__ = ["DATA_HELP", "as_data", "as_option", "load_splits", "one_line", "parse_shape", "read_source"]

DATA_HELP = "an .npz file of x and y or of the model's inputs by name, an .npy file, or a data set of tfds"
_PAIR = ("x", "y", "sample_weight")


def read_source(source: str | None, option: str) -> "Data | None":
    """Reads an array, a dict of arrays, or a data set.

    Args:
        source: The path of an .npy or .npz file, or the name of a tfds data set. None and `"none"` give None.
        option: The option that named the source, for errors.

    Raises:
        ValueError: If the source cannot be read.
    """
    if source is None or source.lower() == "none":
        return None
    path = pathlib.Path(source)
    if path.suffix not in (".npy", ".npz"):
        return load_splits(source, option)["train"].batch(256)
    import zipfile

    import numpy as np

    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        message = f"`{option}` must be a file of numbers that NumPy can read. Received: {source!r}: "
        raise ValueError(message + one_line(error)) from error
    if path.suffix == ".npy":
        return found
    if not found.files:
        raise ValueError(f"`{option}` must hold arrays. Received: {source!r}, which is empty.")
    return dict(found) if len(found.files) > 1 else found[found.files[0]]


def as_data(found: "Data | None", model: "Model | None" = None) -> "Data | None":
    """Returns (x, y) or (x, y, sample_weight) for a file with arrays of these names; other data as they are.

    Args:
        found: The result of `read_source`.
        model: The model that gets the data. If its inputs have the names x and y, the file holds inputs.
    """
    if not isinstance(found, dict) or not {"x", "y"} <= found.keys() <= set(_PAIR):
        return found
    inputs = {tensor.name for tensor in getattr(model, "inputs", None) or ()}
    return found if found.keys() <= inputs else tuple(found[name] for name in _PAIR if name in found)


def load_splits(name: str, option: str) -> "dict[str, tf.data.Dataset]":
    """Loads the splits of a tfds data set, by their names.

    Args:
        name: The name of the data set.
        option: The option that named it, for errors.

    Raises:
        ValueError: If the data set cannot be loaded, or does not have a split `train`.
    """
    load()
    try:
        from keras_initx import datasets

        with contextlib.redirect_stdout(sys.stderr):  # tfds prints its progress, and stdout is for the answer
            splits = datasets.load(name, None)[0]
    except ValueError as error:  # tfds answers with its grammar
        raise ValueError(
            f"`{option}` must be an .npy or .npz file, or name a data set of tfds. Received: {name!r}: "
            f"{one_line(error)}"
        ) from error
    except (ImportError, ConnectionError) as error:
        raise ValueError(f"`{option}` cannot be loaded. Received: {name!r}: {error}") from error
    if "train" not in splits:
        raise ValueError(f"`{option}` must have a split train. Received: {name!r}, with {sorted(splits)}.")
    return splits


def parse_shape(text: str | None, name: str = "shape") -> tuple[int, ...] | None:
    """Reads a shape such as 256,128 or 3x3x64x128; None for None.

    Args:
        text: The shape as text.
        name: The argument that named it, for errors.

    Raises:
        ValueError: If the text is not a shape.
    """
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}([x,][0-9]{1,18})*", text):
        raise ValueError(
            f"`{name}` must be counts with commas or x between them. Received: {text!r}. "
            "Write 256,128 or 3x3x64x128."
        )
    return tuple(int(size) for size in re.split("[x,]", text))


def as_option(name: str) -> str:
    """Returns the option of an argument's name: `--max-queue` for max_queue."""
    return f"`--{name.replace('_', '-')}`"


def one_line(error: BaseException) -> str:
    r"""Returns the message of an error in one line, without the frame that Keras puts around it.

    >>> one_line(ValueError("Exception encountered when calling Dense.call().\n\nToo wide.\n\nArguments"))
    'Too wide.'

    Args:
        error: An error.
    """
    lines = re.sub(r"\x1b\[\d+m", "", str(error)).splitlines()
    said = (line for line in lines if line.strip() and not line.startswith("Exception encountered"))
    return next(said, type(error).__name__)
