"""Models from a file, or from a function that builds them."""

import importlib
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from _initx_command._sources import one_line
from _initx_command._verb import Options

if TYPE_CHECKING:
    from keras_initx._types import Model

__all__ = ["RULE", "add_model", "add_modules", "check_model", "find_build", "is_named", "load_model"]

RULE = "a .keras file, or module:function that builds a model, such as keras.applications:ResNet50"
# How Keras names a class or function that it does not know.
_MISSING = re.compile(r"Could not (?:locate|deserialize) (\w+) '([^']+)'")


def add_model(options: Options, more: str = "") -> None:
    """Adds the model, and `--import` for the classes of its layers, to a verb.

    Args:
        options: The options of the verb.
        more: A further condition on the model, for the help text.
    """
    options.add("model", metavar="MODEL", help=RULE + more)
    add_modules(options)


def add_modules(options: Options) -> None:
    """Adds `--import` to a verb."""
    options.add(
        "--import",
        dest="modules",
        action="append",
        metavar="MODULE",
        help="import this module first, which registers the classes of the model's layers; may be repeated",
    )


def is_named(source: str) -> bool:
    """Returns whether a model is given as `module:function`, and not as a file."""
    module, colon, _ = source.rpartition(":")
    return bool(colon and module) and not pathlib.Path(source).is_file()


def check_model(source: str, input_shape: tuple[int, ...] | None = None, argument: str = "model") -> None:
    """Raises ValueError if a model is neither a file nor named. That needs no Keras.

    Args:
        source: A `.keras` file, or `module:function`.
        input_shape: The shape that the function gets, or None.
        argument: The name of the argument for errors.
    """
    if is_named(source):
        return
    if input_shape is not None:
        raise ValueError(
            f"`--input-shape` is for models by name, such as keras.applications:ResNet50. Received: a file, "
            f"{source!r}. Leave the option out."
        )
    if not pathlib.Path(source).is_file():
        raise ValueError(f"`{argument}` must be {RULE}. Received: {source!r}, which is not a file.")


def load_model(
    source: str,
    input_shape: tuple[int, ...] | None = None,
    modules: Sequence[str] | None = None,
    argument: str = "model",
) -> "Model":
    """Loads a model from a file, or builds it by its name.

    Args:
        source: A `.keras` file, or `module:function`. The module may lie in the folder in which the command
            runs. A parameter `weights` of the function gets None, so that nothing is downloaded.
        input_shape: The argument `input_shape` of the function; None to leave it out.
        modules: Modules to import before, or None.
        argument: The name of the argument for errors.

    Raises:
        ValueError: If a module, a file or a function cannot be found, or does not give a Keras model.
    """
    import keras

    check_model(source, input_shape, argument)
    for needed in modules or ():
        _import(needed)
    named = is_named(source)
    try:
        model = _build(source, input_shape) if named else keras.saving.load_model(source)
    except Exception as error:  # an error of zipfile, h5py, Keras or the user's module
        what = "which does not run" if named else "which Keras cannot load"
        reason = one_line(error) if named else _why_not_loaded(error)
        raise ValueError(f"`{argument}` must be {RULE}. Received: {source!r}, {what}: {reason}") from error
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`{argument}` must name a function that returns a Keras model. Received: {source!r}, which "
            f"returns {type(model).__name__}."
        )
    return model


def find_build(source: str, modules: Sequence[str] | None = None) -> Callable[[int], "Model"]:
    """Returns a function of a width that builds models, by its name.

    Args:
        source: `module:function`.
        modules: Modules to import before, or None.

    Raises:
        ValueError: If a module or the function cannot be found.
    """
    rule = "`build` must be module:function, a function of a width that returns a model"
    module, colon, name = source.rpartition(":")
    if not (colon and module and name):
        raise ValueError(f"{rule}. Received: {source!r}. Write my_model:build for def build(width).")
    for needed in modules or ():
        _import(needed)
    try:
        found = getattr(_find(module), name)
    except (Exception, SystemExit) as error:  # any error of the user's module; a script may exit
        raise ValueError(
            f"{rule}. Received: {source!r}, which cannot be imported: {one_line(error)}"
        ) from error
    if not callable(found):
        raise ValueError(f"{rule}. Received: {source!r}, which is {type(found).__name__}.")
    return found


def _import(module: str) -> None:
    try:
        _find(module)
    except (Exception, SystemExit) as error:  # any error of the user's module; a script may exit
        cure = (
            f"Name the module, not its file: {'.'.join(pathlib.Path(module).with_suffix('').parts)}."
            if module.endswith(".py")
            else "Run the command in the folder that holds the module or its package, or install the package."
            if isinstance(error, ModuleNotFoundError)
            else f"`python -c 'import {module}'` shows where."
        )
        raise ValueError(
            f"`--import` must name a module that can be imported from here. Received: {module!r}: "
            f"{type(error).__name__}: {one_line(error).rstrip('.')}. {cure}"
        ) from error


def _why_not_loaded(error: BaseException) -> str:
    """Returns the reason in words that help.

    Keras names a missing class in an inner error. Its outer errors speak about `from_config()`.
    """
    inner: BaseException | None = error
    while inner is not None:
        error = inner
        if missing := _MISSING.search(str(error)):
            return (
                f"the {missing[1]} {missing[2]!r} is not known here. By `--import`, name the module that "
                "defines it under `@keras.saving.register_keras_serializable()`."
            )
        inner = error.__cause__ or error.__context__
    return one_line(error)


def _find(module: str) -> ModuleType:
    if "" not in sys.path:
        sys.path.append("")  # the current folder, last, so that no file in it hides an installed module
    return importlib.import_module(module)


def _build(source: str, input_shape: tuple[int, ...] | None) -> object:
    import inspect

    module, _, name = source.rpartition(":")
    function = getattr(_find(module), name)
    options: dict[str, object] = {}
    if "weights" in inspect.signature(function).parameters:
        options["weights"] = None
    if input_shape is not None:
        options["input_shape"] = input_shape
    return function(**options)
