"""The inputs of a model, as specs of the arguments of its `call`."""

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_initx._keras_internals import export_signature
from keras_initx._types import Data, Model
from keras_initx.saved_model._rows import fixed_batch


def input_signature(model: Model, warmup: Data | None = None) -> list[Any]:
    """Returns the specs of the arguments of a model's `call`.

    Keras remembers the shapes of the arguments that the model's `build` takes, and of no others. For a
    subclassed model the shapes of the other arguments are read from the warm-up rows.

    Args:
        model: A built model.
        warmup: Rows for each argument, as a tuple, a list or a dict by name; or any other rows that `export`
            takes.

    Raises:
        ValueError: If an argument has no default, and neither Keras nor the rows tell its shape.
    """
    signature = export_signature(model)
    if size := fixed_batch(model):
        # Keras' export makes every batch axis free. The state of a stateful layer has the fixed size, and
        # fails on any other.
        def fixed(spec: keras.InputSpec) -> keras.InputSpec:
            return keras.InputSpec(spec.dtype, (size, *spec.shape[1:]), name=spec.name)

        return list(tree.map_structure(fixed, signature))
    if hasattr(model, "inputs"):  # a functional model tells all its inputs
        return signature
    needed, possible = _arguments(model.call)
    given: Any = warmup
    if isinstance(warmup, dict) and set(needed) <= set(warmup) <= set(possible):
        given = tuple(warmup[name] for name in possible if name in warmup)
        # The signature passes its inputs by position, so it cannot skip an argument.
        if set(warmup) != set(possible[: len(given)]):
            raise ValueError(
                "`warmup` may leave out only the last arguments of `call`. "
                f"Received: {sorted(warmup)} of {possible}. Add the arguments before them."
            )
    if (
        isinstance(given, tuple | list)
        and len(signature) < len(given) <= len(possible)
        and all(hasattr(one, "shape") for one in given)
    ):
        return [keras.InputSpec(_dtype_name(one), (None, *one.shape[1:])) for one in given]
    if len(needed) > len(signature):
        raise ValueError(
            f"`warmup` must have rows for each argument of `call`, as a tuple or by name: {needed}. Keras "
            f"remembers the shapes of {len(signature)} alone. Received: {type(warmup).__name__}."
        )
    return signature


def _arguments(call: Callable[..., Any]) -> tuple[list[str], list[str]]:
    """Returns the names of the arguments that `call` needs, and of all arguments that may be inputs.

    An argument may be an input if it has no default, or the default None. Keras sets `training` and `mask`.
    """
    parameters = [
        parameter
        for name, parameter in inspect.signature(call).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and name not in ("training", "mask")
    ]
    needed = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
    return needed, [p.name for p in parameters if p.default in (p.empty, None)]


def _dtype_name(rows: np.ndarray) -> str:
    """Returns the dtype of rows as Keras names it; NumPy has several dtypes for strings."""
    kind = getattr(rows.dtype, "kind", None)
    return "string" if kind in tuple("OSUT") else keras.backend.standardize_dtype(rows.dtype)
