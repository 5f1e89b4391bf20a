"""The nouns of the package's signatures.

Keras and the frameworks behind it have no common classes for a few of these, so their aliases say in a
comment what may stand there. A checker takes those for `Any`; a reader does not.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

__all__ = [
    "Activation",
    "Arrays",
    "Batch",
    "Data",
    "Initializer",
    "Layer",
    "Loss",
    "Model",
    "Optimizer",
    "Patterns",
    "Receive",
    "Scope",
    "Send",
    "Tensor",
    "Variable",
]

Model: TypeAlias = keras.Model
Layer: TypeAlias = keras.layers.Layer
Optimizer: TypeAlias = keras.optimizers.Optimizer
Variable: TypeAlias = keras.Variable

# A tensor of the backend: tf.Tensor, jax.Array or torch.Tensor. They share no base class.
Tensor: TypeAlias = Any
# What `kernel_initializer` takes: a name, a config, an initializer, or a function of shape and dtype.
Initializer: TypeAlias = str | Mapping[str, Any] | keras.initializers.Initializer | Callable[..., Tensor]
# An activation as `keras_initx.gains.compute_gain` takes it: a name, or a function, layer or operation.
Activation: TypeAlias = str | Callable[..., Tensor]
# One array, or a dict, list or tuple of arrays, nested as the model's inputs or targets are.
Arrays: TypeAlias = np.ndarray | Mapping[str, Any] | Sequence[Any]
# Arrays as the model is called on them: one for each input.
Batch: TypeAlias = Arrays
# What `fit` takes as x: arrays, or an iterable of batches (tf.data, PyDataset, DataLoader, generator).
Data: TypeAlias = Arrays | Iterable[Any]
# What `compile` takes as loss, for one output or for each of several.
Loss: TypeAlias = str | keras.Loss | Callable[..., Tensor] | Mapping[str, Any] | Sequence[Any]
# Patterns of paths (`"block3"`, `"*/query"`) or roles.
Patterns: TypeAlias = str | Sequence[str]

# The three arguments of an ASGI application (https://asgi.readthedocs.io).
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
