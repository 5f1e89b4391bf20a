"""A trained model to a versioned SavedModel folder that a server can be pointed at."""

import dataclasses
import os
import pathlib
import shutil
import tempfile
from typing import Any

import keras

__all__ = ["ExportedModel", "export"]


@dataclasses.dataclass(frozen=True)
class ExportedModel:
    """What `export` wrote.

    Attributes:
        path: The version's folder.
        version: Its number.
        signatures: Names of its signatures, sorted.
    """

    path: str
    version: int
    signatures: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a dict."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        """Formats the export as one line."""
        return f"{self.path} (version {self.version}; signatures: {', '.join(self.signatures)})"


def export(model: Any, path: str | os.PathLike[str]) -> ExportedModel:
    """Writes a model as the next version of a servable SavedModel.

    The version is written beside, loaded once as a check, and renamed into place: a reader of `path`, a
    polling server among them, sees a whole version or none, and an interrupted export leaves no version.
    `tf.saved_model.load` loads it in a process that has neither this package nor Keras.

    >>> model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export(model, folder).version, export(model, folder).version
    (1, 2)

    Args:
        model: A built Keras model.
        path: The model's folder, for example `saved_models/digits`. Versions are its subfolders with whole
            numbers as names.

    Returns:
        Where it was written, under which version, and with which signatures; `serving_default` is one.

    Raises:
        ValueError: If the model is not built, the backend is not TensorFlow, or `path` is a file. Nothing is
            written then.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise ValueError(f"`path` must be the model's folder. Received: path={path!r}.")
    root = pathlib.Path(path)
    _check(model, root)
    import tensorflow as tf

    existed = root.exists()
    root.mkdir(parents=True, exist_ok=True)
    # A name that is no number is no version to a server; the same folder makes the rename atomic.
    scratch = pathlib.Path(tempfile.mkdtemp(prefix=".exporting-", dir=root))
    try:
        model.export(scratch / "model", format="tf_saved_model", verbose=False)
        signatures = tuple(sorted(tf.saved_model.load(str(scratch / "model")).signatures))
        version = _rename_to_next_version(scratch / "model", root)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if not existed and not any(root.iterdir()):
            root.rmdir()
    return ExportedModel(str(root / str(version)), version, signatures)


def _check(model: Any, root: pathlib.Path) -> None:
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a Keras model. Received: model of type {type(model).__name__}.")
    if not model.built or not model.weights:
        raise ValueError(
            f"`model` must be built and have weights. Received: {type(model).__name__} `{model.name}`, "
            f"built={model.built}. Call it on one batch first."
        )
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "`export` needs the TensorFlow backend. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}. Save the model with `model.save`, load it "
            "in a process with KERAS_BACKEND=tensorflow, and export it there."
        )
    if root.exists() and not root.is_dir():
        raise ValueError(f"`path` must be a folder or not exist yet. Received: path={str(root)!r}, a file.")


def _rename_to_next_version(folder: pathlib.Path, root: pathlib.Path) -> int:
    while True:
        taken = [int(entry.name) for entry in root.iterdir() if entry.name.isdecimal()]
        version = max(taken, default=0) + 1
        try:
            folder.rename(root / str(version))
        except OSError:
            # Another export took the number in between; any other failure is not cured by trying again.
            if not (root / str(version)).exists():
                raise
        else:
            return version
