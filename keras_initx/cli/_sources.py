"""What the command line reads data from, and how it tells of what fails."""

import contextlib
import pathlib
import sys
import zipfile
from typing import Any

from keras_initx.checks import first_line

__all__ = ["DATA_HELP", "as_data", "as_option", "load_splits", "read_source"]

DATA_HELP = "an .npz file of x and y or of the inputs by name, an .npy file, or a data set of tfds"
_PAIR = ("x", "y", "sample_weight")


def read_source(source: str, option: str) -> Any:
    """Reads an array, a dict of arrays, or a data set, or says why not in a ValueError.

    Args:
        source: A path of an .npy or .npz file, the name of a tfds data set, or none, for None.
        option: The option that gave it, for the errors.
    """
    import numpy as np

    if source.lower() == "none":
        return None
    path = pathlib.Path(source)
    if path.suffix not in (".npy", ".npz"):
        return load_splits(source, option)["train"].batch(256)
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        message = f"`{option}` must be a file of numbers that NumPy can read. Received: {source!r}: "
        raise ValueError(message + first_line(error)) from error
    if path.suffix == ".npy":
        return found
    if not found.files:
        raise ValueError(f"`{option}` must hold arrays. Received: {source!r}, which is empty.")
    return dict(found) if len(found.files) > 1 else found[found.files[0]]


def as_data(found: Any, model: Any = None) -> Any:
    """Makes a pair (x, y), or a triple with sample weights, of a file that holds these; leaves all else.

    Args:
        found: What `read_source` returned.
        model: The model that the data is for: its inputs may have the names x and y themselves.
    """
    if not isinstance(found, dict) or not {"x", "y"} <= found.keys() <= set(_PAIR):
        return found
    inputs = {tensor.name for tensor in getattr(model, "inputs", None) or ()}
    return found if found.keys() <= inputs else tuple(found[name] for name in _PAIR if name in found)


def load_splits(name: str, option: str) -> dict[str, Any]:
    """Loads the splits of a data set of tfds by their names, or says why not in a ValueError.

    Args:
        name: Its name.
        option: The option that gave it, for the errors.
    """
    try:
        from keras_initx import datasets

        with contextlib.redirect_stdout(sys.stderr):  # where tfds says that it prepares one
            splits = datasets.load(name, None)[0]
    except ValueError as error:  # tfds answers with its grammar
        raise ValueError(
            f"`{option}` must be an .npy or .npz file, or name a data set of tfds. Received: {name!r}: "
            f"{first_line(error)}"
        ) from error
    except (ImportError, ConnectionError) as error:
        raise ValueError(f"`{option}` cannot be loaded. Received: {name!r}: {error}") from error
    if "train" not in splits:
        raise ValueError(f"`{option}` must have a split train. Received: {name!r}, with {sorted(splits)}.")
    return splits


def as_option(name: str) -> str:
    """An argument's name as the command has it: `--max-queue` for max_queue."""
    return f"`--{name.replace('_', '-')}`"
