"""Models from a file or from a name."""

import argparse
import importlib
import inspect
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

import keras

from keras_initx.checks import first_line

__all__ = ["MODEL_HELP", "add_model", "is_named", "load_model"]

MODEL_HELP = "a .keras file, or module:function that builds one, such as keras.applications:ResNet50"
# How Keras names a class or function that it does not know.
_MISSING = re.compile(r"Could not (?:locate|deserialize) (\w+) '([^']+)'")


def add_model(verb: argparse.ArgumentParser, more: str = "") -> None:
    """Adds the model, and `--import` for the classes that it is made of, to a verb.

    Args:
        verb: The verb's parser.
        more: What else the model must be.
    """
    verb.add_argument("model", help=MODEL_HELP + more)
    verb.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="import it first: it registers layers that the model is made of; may be repeated",
    )


def is_named(source: str) -> bool:
    """Whether it is `module:function`, and no file."""
    module, colon, _ = source.rpartition(":")
    return bool(colon and module) and not pathlib.Path(source).is_file()


def load_model(
    source: str, input_shape: tuple[int, ...] | None = None, modules: Sequence[str] = ()
) -> keras.Model:
    """Loads a file, or builds a model by its name, or says why not in a ValueError.

    Args:
        source: A `.keras` file, or `module:function`. The module is imported, also from the folder in which
            the command runs; a parameter `weights` is given None, so that nothing is downloaded.
        input_shape: Passed to the function.
        modules: Modules to import before.
    """
    module, _, name = source.rpartition(":")
    named = is_named(source)
    if not named and input_shape is not None:
        raise ValueError(f"`--input-shape` is for models by name. Received: a file, {source!r}.")
    if not named and not pathlib.Path(source).is_file():
        raise ValueError(f"`model` must be {MODEL_HELP}. Received: {source!r}, which is no file.")
    for needed in modules:
        _import(needed)
    try:
        model = _build(module, name, input_shape) if named else keras.saving.load_model(source)
    except Exception as error:  # zipfile's, h5py's, Keras' own, the module's
        reason = first_line(error) if named else _why_not_loaded(error)
        what = "that can be called" if named else "that Keras can load"
        raise ValueError(f"`model` must be {MODEL_HELP}, {what}. Received: {source!r}: {reason}") from error
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`model` must name a function that returns a Keras model. Received: {source!r}, which returns "
            f"{type(model).__name__}."
        )
    return model


def _import(module: str) -> None:
    try:
        _find(module)
    except Exception as error:  # whatever the module raises
        raise ValueError(
            f"`--import` must name a module that can be imported from here. Received: {module!r}: "
            f"{first_line(error)}"
        ) from error


def _why_not_loaded(error: BaseException) -> str:
    """What is the matter: Keras tells it in an inner error, and the outer ones speak of `from_config()`."""
    inner: BaseException | None = error
    while inner is not None:
        error = inner
        if missing := _MISSING.search(str(error)):
            return (
                f"the {missing[1]} {missing[2]!r} is not known here. By `--import`, name the module that "
                "defines it under `@keras.saving.register_keras_serializable()`."
            )
        inner = error.__cause__ or error.__context__
    return first_line(error)


def _find(module: str) -> Any:
    if "" not in sys.path:
        sys.path.append("")  # last, so that nothing is shadowed
    return importlib.import_module(module)


def _build(module: str, name: str, input_shape: tuple[int, ...] | None) -> Any:
    function = getattr(_find(module), name)
    options: dict[str, Any] = {}
    if "weights" in inspect.signature(function).parameters:
        options["weights"] = None
    if input_shape is not None:
        options["input_shape"] = input_shape
    return function(**options)
