"""Activations in a config: how an initializer keeps the activation that it was given."""

import contextlib
from collections.abc import Mapping
from typing import Any

import keras

from keras_initx._types import Activation


def restore_activation(activation: Activation | Mapping[str, Any] | None) -> Activation | None:
    """Returns the activation of a saved config; any other activation as it is."""
    if isinstance(activation, Mapping):
        return keras.saving.deserialize_keras_object(activation)
    return activation


def save_activation(activation: Activation | None) -> str | dict[str, Any] | None:
    """Returns the form of an activation that a config can hold.

    Args:
        activation: None, a name, a function or an activation layer.

    Returns:
        None, a name or a dict.

    Raises:
        ValueError: If Keras could not find the activation again when it loads the config.
    """
    if activation is None or isinstance(activation, str):
        return activation
    found = saved = None
    # Keras writes a lambda as its bytecode, and refuses to read that back in safe mode.
    if getattr(activation, "__name__", "") != "<lambda>":
        saved = keras.saving.serialize_keras_object(activation)
        # Keras writes any function, registered or not. Only reading it back shows whether it is found.
        with contextlib.suppress(Exception):
            found = saved if isinstance(saved, str) else keras.saving.deserialize_keras_object(saved)
    if found is None or not (isinstance(activation, keras.layers.Layer) or found in (saved, activation)):
        raise ValueError(
            "`activation` must be a name, or a function that Keras can find again, to be saved in a config. "
            f"Received: activation={activation!r}. Register it with "
            '`@keras.saving.register_keras_serializable(package="...")`.'
        )
    return saved
