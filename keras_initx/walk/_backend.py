"""Operations that a backend ran, as operations of Keras."""

from typing import Any

import keras

__all__ = ["of_backend"]

# Activations with arguments stand for themselves in `_operations`: these are the functions.
_FUNCTIONS = {"Elu": "elu", "Erf": "erf", "Gelu": "gelu", "Sin": "sin", "Cos": "cos", "Softmax": "softmax"}


def of_backend(name: str) -> keras.Operation:
    """Returns an operation of a class of this name, which counts as Keras' own.

    Args:
        name: Name of the class of a Keras operation, or another name, which no table knows.
    """
    function = getattr(keras.ops, _FUNCTIONS.get(name, ""), None)

    def call(_: keras.Operation, *args: Any) -> Any:
        if function is None:
            raise TypeError(f"{name} stands for an operation of the backend, which cannot be called")
        return function(*args)

    made: type[keras.Operation] = type(name, (keras.Operation,), {"__module__": "keras.ops", "call": call})
    return made()
