"""What an object is, in a form that another process finds the same: no address, no order of a set."""

import functools
import hashlib
import json
import math
import types
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

__all__ = ["code_of", "identify", "identity_of"]


def identify(scheme: Any, label: str) -> Any:
    """Returns what an initializer or a strategy is, so that two of one label can be told apart.

    >>> identify(keras.initializers.Constant(2.0), "two")["config"]
    {'value': 2.0}

    Args:
        scheme: An initializer, a strategy, a function, or None.
        label: Its label, for the error.

    Returns:
        Plain dicts, lists, texts and numbers.

    Raises:
        ValueError: If it holds what nothing stable identifies.
    """
    return json.loads(json.dumps(identity_of(scheme, f"initializers[{label!r}]")))


def identity_of(value: Any, name: str) -> Any:
    """Returns what a value is made of, as JSON can hold it.

    Args:
        value: Anything.
        name: Where it is from, for the error.

    Raises:
        ValueError: If it holds what nothing stable identifies, such as an open file.
    """
    try:
        return _told(value, ())
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"`store` needs an identity that another process finds the same. Received: `{name}`, which holds "
            f"what has none ({type(error).__name__}: {error}). Give its class a `get_config` of numbers and "
            "texts, or leave `store` out."
        ) from error


def code_of(function: Any) -> Any:
    """Returns what a function does, as JSON can hold it: its code, and the numbers and texts that it holds.

    What else it holds, such as a list that it fills, may be another the next time.

    >>> code_of(lambda trial: []) == code_of(lambda trial: [trial])
    False

    Args:
        function: A function, a `functools.partial` of one, or another object, of which the class is told.
    """
    if isinstance(function, functools.partial):
        held = [*function.args, *sorted(function.keywords.items())]
        return [code_of(function.func), _plain(held)]
    if not isinstance(function, types.FunctionType):
        return None if function is None else _path(type(function))
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    inner = [code_of(cell) for cell in cells if isinstance(cell, types.FunctionType)]
    return [_path(function), _told(function.__code__, ()), _plain([function.__defaults__, *cells]), inner]


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value if isinstance(item, tuple | bool | int | float | str)]
    return repr(value)


def _told(value: Any, within: tuple[int, ...]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)  # JSON has none, and NaN is not itself
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


def _told_array(value: Any, within: tuple[int, ...]) -> Any:
    array = np.asarray(keras.ops.convert_to_numpy(value) if not isinstance(value, np.ndarray) else value)
    content = array.tolist() if array.dtype == object else array.tobytes()
    return [str(array.dtype), list(array.shape), _told(content, within)]


def _told_function(value: types.FunctionType, within: tuple[int, ...]) -> Any:
    """A function by its code and by what it holds: two lambdas of one line have one name."""
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    held = (value.__defaults__, value.__kwdefaults__, cells, value.__code__)
    return [_path(value), *(_told(part, within) for part in held)]


def _told_object(value: Any, within: tuple[int, ...]) -> Any:
    """An object by its class and its state: its config, or that by which Python copies it."""
    kind = type(value)
    if isinstance(value, keras.layers.Layer):  # its values may be drawn anew by each process
        return [_path(kind), [[list(weight.shape), weight.dtype] for weight in value.weights]]
    # That of Keras' base class is empty, whatever the object holds.
    told = getattr(kind, "get_config", None)
    if told not in (None, keras.initializers.Initializer.get_config):
        return {"class_name": _path(kind), "config": _told(value.get_config(), within)}
    made = value.__reduce_ex__(2)
    if isinstance(made, str):  # a global of that name
        return f"{getattr(value, '__module__', '')}.{made}"
    return [_told(list(part) if hasattr(part, "__next__") else part, within) for part in made]


def _path(named: Any) -> str:
    return f"{named.__module__}.{named.__qualname__}"
