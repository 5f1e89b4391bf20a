"""Models from a file or from a name."""

import importlib
import inspect
import pathlib
import sys
from typing import Any

__all__ = ["MODEL_HELP", "is_named", "load_model"]

MODEL_HELP = "a .keras file, or module:function that builds one, such as keras.applications:ResNet50"


def is_named(source: str) -> bool:
    """Whether it is `module:function`, and no file."""
    module, colon, _ = source.rpartition(":")
    return bool(colon and module) and not pathlib.Path(source).is_file()


def load_model(source: str, input_shape: tuple[int, ...] | None = None) -> Any:
    """Loads a file, or builds a model by its name, or says why not in a ValueError.

    Args:
        source: A `.keras` file, or `module:function`. The module is imported, also from the folder in which
            the command runs; a parameter `weights` is given None, so that nothing is downloaded.
        input_shape: Passed to the function.
    """
    import keras

    module, _, name = source.rpartition(":")
    named = is_named(source)
    if not named and input_shape is not None:
        raise ValueError(f"`--input-shape` is for models by name. Received: a file, {source!r}.")
    if not named and not pathlib.Path(source).is_file():
        raise ValueError(f"`model` must be {MODEL_HELP}. Received: {source!r}, which is no file.")
    try:
        model = _build(module, name, input_shape) if named else keras.saving.load_model(source)
    except Exception as error:  # zipfile's, h5py's, Keras' own, the module's
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        what = "that can be called" if named else "that Keras can load"
        raise ValueError(f"`model` must be {MODEL_HELP}, {what}. Received: {source!r}: {reason}") from error
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`model` must name a function that returns a Keras model. Received: {source!r}, which returns "
            f"{type(model).__name__}."
        )
    return model


def _build(module: str, name: str, input_shape: tuple[int, ...] | None) -> Any:
    if "" not in sys.path:
        sys.path.append("")  # last, so that nothing is shadowed
    function = getattr(importlib.import_module(module), name)
    options: dict[str, Any] = {}
    if "weights" in inspect.signature(function).parameters:
        options["weights"] = None
    if input_shape is not None:
        options["input_shape"] = input_shape
    return function(**options)
