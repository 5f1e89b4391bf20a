"""Finds the function that a name, a config or a layer stands for, and words the refusals."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_initx._types import Activation, Tensor

# Gated linear units, value * gate(pre-activation), by the activation of their gate.
GATES = {"bilinear": "linear", "geglu": "gelu", "glu": "sigmoid", "reglu": "relu", "swiglu": "silu"}


def resolve(activation: Activation | Mapping[str, Any] | None) -> Callable[..., Tensor]:
    """Returns the function of a name, of a config or of a callable; raises ValueError if there is none."""
    try:
        return keras.activations.get(activation)
    except Exception as error:  # Keras raises errors of many classes here, for a bad config even KeyError
        if isinstance(activation, str):
            functions = {name for name in dir(keras.activations) if name[0] != "_"}
            known = sorted((functions | set(GATES)) - {"deserialize", "get", "serialize"})
            cure = f"Nearest: {difflib.get_close_matches(activation, known, cutoff=0.4) or known}."
            raise refusal("be the name of a Keras activation or gate", activation, cure) from error
        kinds = "be None, a name, a config, an activation layer or a callable"
        raise refusal(kinds, activation, f"Keras says: {error}") from error


def keras_name(function: Callable[..., Tensor] | None) -> str | None:
    """Returns the name of a function from `keras.activations`, or None for any other function."""
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) and getattr(keras.activations, name, None) is function else None


def refusal(rule: str, received: object, cure: str) -> ValueError:
    """Returns the error that says which rule an activation breaks, and how to mend it."""
    return ValueError(f"`activation` must {rule}. Received: activation={received!r}. {cure}")
