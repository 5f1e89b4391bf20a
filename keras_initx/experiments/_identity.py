"""The identity of an object, in a form that is the same in every process: no address, no order of a set."""

import functools
import hashlib
import json
import math
import types
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_initx._types import Tensor, Variable

__all__ = ["code_of", "identify", "identity_of"]


def identify(initializer: object, label: str) -> Any:
    """Returns the identity of an initializer or a strategy, to tell two initializers of one label apart.

    >>> identify(keras.initializers.Constant(2.0), "two")["config"]
    {'value': 2.0}

    Args:
        initializer: An initializer, a strategy, a function, or None.
        label: Its label, for the error.

    Returns:
        Plain dicts, lists, texts and numbers.

    Raises:
        ValueError: If the initializer holds an object without a stable identity.
    """
    return json.loads(json.dumps(identity_of(initializer, f"initializers[{label!r}]")))


def identity_of(value: object, name: str) -> Any:
    """Returns the contents of a value in dicts, lists, texts and numbers.

    Args:
        value: Any object.
        name: The argument that the value comes from, for the error.

    Raises:
        ValueError: If the value holds an object without a stable identity, such as an open file.
    """
    try:
        return _told(value, ())
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"`store` needs initializers with an identity that is the same in every process. Received: "
            f"`{name}`, which holds an object without one ({type(error).__name__}: {error}). Give its class "
            "a `get_config` of numbers and texts, or leave `store` out."
        ) from error


def code_of(function: object) -> Any:
    """Returns the code of a function, with the numbers and texts that it holds, in lists and texts.

    Other objects that the function holds do not count: a list that a callback fills, for example, may have
    other contents in the next process.

    >>> code_of(lambda trial: []) == code_of(lambda trial: [trial])
    False

    Args:
        function: A function, or a `functools.partial` of a function. Of another object only the class counts.
    """
    if isinstance(function, functools.partial):
        held = [*function.args, *sorted(function.keywords.items())]
        return [code_of(function.func), _plain(held)]
    if not isinstance(function, types.FunctionType):
        return None if function is None else _path(type(function))
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    inner = [code_of(cell) for cell in cells if isinstance(cell, types.FunctionType)]
    return [_path(function), _told(function.__code__, ()), _plain([function.__defaults__, *cells]), inner]


def _plain(value: object) -> Any:
    """Returns the numbers and texts of a value, and nothing else."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value if isinstance(item, tuple | bool | int | float | str)]
    return repr(value)


def _told(value: Any, within: tuple[int, ...]) -> Any:
    """Returns the contents of a value as JSON holds them.

    Each kind of object needs its own way to a form that does not change between processes: sets are sorted,
    bytes are hashed, functions are their code, and other objects are their config or their state.

    Args:
        value: Any object.
        within: Ids of the objects that hold this value, to end at an object that holds itself.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)  # JSON has no such number, and NaN does not equal itself
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if id(value) in within:
        return "itself"
    within = (*within, id(value))
    if isinstance(value, Mapping):
        pairs = [[_told(key, within), _told(item, within)] for key, item in value.items()]
        if all(isinstance(key, str) for key, _ in pairs):
            return dict(sorted(pairs))
        return sorted(pairs, key=json.dumps)
    if isinstance(value, list | tuple):
        return [_told(item, within) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_told(item, within) for item in value), key=json.dumps)
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, np.ndarray | keras.Variable) or keras.ops.is_tensor(value):
        return _told_array(value, within)
    if isinstance(value, type):
        return _path(value)
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, types.CodeType):
        parts = (value.co_code, value.co_names, value.co_varnames, value.co_consts)
        return [_told(part, within) for part in parts]
    if isinstance(value, types.FunctionType):
        return _told_function(value, within)
    return _told_object(value, within)


def _told_array(value: np.ndarray | Variable | Tensor, within: tuple[int, ...]) -> Any:
    array = np.asarray(keras.ops.convert_to_numpy(value) if not isinstance(value, np.ndarray) else value)
    content = array.tolist() if array.dtype == object else array.tobytes()
    return [str(array.dtype), list(array.shape), _told(content, within)]


def _told_function(value: types.FunctionType, within: tuple[int, ...]) -> Any:
    """Returns a function as its name, its code and its held values: two lambdas can have the same name."""
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    held = (value.__defaults__, value.__kwdefaults__, cells, value.__code__)
    return [_path(value), *(_told(part, within) for part in held)]


def _told_object(value: Any, within: tuple[int, ...]) -> Any:
    """Returns an object as its class and its state: its config, or the parts by which Python copies it."""
    kind = type(value)
    if isinstance(value, keras.layers.Layer):  # only shapes: each process may draw the values anew
        return [_path(kind), [[list(weight.shape), weight.dtype] for weight in value.weights]]
    # The config of Keras' base class is empty, whatever the object holds.
    told = getattr(kind, "get_config", None)
    if told not in (None, keras.initializers.Initializer.get_config):
        return {"class_name": _path(kind), "config": _told(value.get_config(), within)}
    made = value.__reduce_ex__(2)
    if isinstance(made, str):  # the object is a global variable of this name
        return f"{getattr(value, '__module__', '')}.{made}"
    return [_told(list(part) if hasattr(part, "__next__") else part, within) for part in made]


def _path(named: Callable[..., Any]) -> str:
    return f"{named.__module__}.{named.__qualname__}"
