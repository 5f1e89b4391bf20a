"""Tables of layers and operations without kernels: which activate, gate, normalize or pass on a signal."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, tree

from keras_initx._keras_internals import flatten_layers
from keras_initx._types import Activation, Layer
from keras_initx.walk._kernels import known_class
from keras_initx.walk._layers import (
    ACTIVATION_LAYERS,
    ACTIVATIONS,
    NORMALIZATIONS,
    PARAMETRIC,
    with_effect,
)
from keras_initx.walk._trace import Step

__all__ = [
    "MIXTURES", "MOVES", "PASSING", "PRODUCTS", "SUMS", "activation_at", "activation_of", "class_name",
    "is_gate", "is_normalization", "is_softmax", "label_of", "named", "number_in", "numbers_of",
]  # fmt: skip

MOVES = with_effect("moves")
SUMS, PRODUCTS, MIXTURES = with_effect("sums"), with_effect("multiplies"), with_effect("mixes")
# Layers and operations through which a signal passes with its distribution about unchanged.
PASSING = with_effect("moves", "passes")


def class_name(step: Step) -> str:
    """Returns the name of a step's class; for a user's subclass, the name of the nearest class of Keras."""
    names = (cls.__name__ for cls in type(step.operation).__mro__ if cls.__module__.startswith("keras."))
    return next(names, type(step.operation).__name__)


def is_softmax(steps: Sequence[Step], index: int) -> bool:
    """Tells whether a step is a softmax; JAX has it written out, as exp(x) over its sum."""
    if class_name(steps[index]) == "Softmax":
        return True
    parents = steps[index].parents
    if class_name(steps[index]) not in ("Divide", "TrueDivide") or len(parents) != 2:
        return False
    exponential, total = parents
    if class_name(steps[exponential]) != "Exp":
        return False
    while total != exponential and len(steps[total].parents) == 1:
        (total,) = steps[total].parents
    return total == exponential


def is_normalization(operation: keras.Operation | None) -> bool:
    """Tells whether an operation normalizes: a layer of Keras, or another of such a name, not a block."""
    if isinstance(operation, NORMALIZATIONS):
        return True
    if not isinstance(operation, layers.Layer) or isinstance(operation, layers.Wrapper):
        return False
    named_so = type(operation).__name__.endswith(("Norm", "Normalization"))
    return named_so and not flatten_layers(operation, include_self=False)


def is_gate(activation: Activation) -> bool:
    """Tells whether an activation may end a gate: a sigmoid, or a function that is bounded like a sigmoid."""
    return isinstance(activation, str) and activation in ("sigmoid", "hard_sigmoid", "relu6")


def label_of(activation: Activation) -> str:
    """Returns the name of an activation that is given as a name or as an operation."""
    return activation if isinstance(activation, str) else type(activation).__name__.lower()


def activation_at(step: Step) -> Any:
    """Returns the activation of a step as `activation_of` does; "relu" for the larger of a signal and 0."""
    if class_name(step) == "Maximum" and 0 in numbers_of(step):
        return "relu"
    return activation_of(step.operation)


def numbers_of(step: Step) -> list[float | None]:
    """Returns the operands of an operation of Keras that are numbers, and None for every other one."""
    return [number_in(one) for one in tree.flatten(step.arguments)]


def number_in(value: object) -> float | None:
    """Returns a number, or a constant of the backend or of NumPy without axes, as a float; else None."""
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, keras.Variable | keras.KerasTensor) or len(getattr(value, "shape", " ")):
        return None
    try:
        return float(value)  # type: ignore[arg-type]  # an array of any framework
    except (TypeError, ValueError):
        return None


def activation_of(operation: keras.Operation | None) -> Any:
    """Returns the activation that ends a layer or operation: "" if linear, None if the table knows none."""
    if isinstance(operation, layers.Activation):
        operation = operation.activation
        return "" if operation is keras.activations.linear else named(operation)
    if isinstance(operation, ACTIVATION_LAYERS):
        return _named_layer(operation)
    if isinstance(operation, layers.Layer):
        if known_class(operation) is None or isinstance(operation, layers.RNN | layers.Bidirectional):
            return None
        activation = getattr(operation, "activation", None)
        if activation is None:
            return "" if hasattr(operation, "activation") else None
        return "" if activation is keras.activations.linear else named(activation)
    name = type(operation).__name__
    return ACTIVATIONS.get(name) or (operation if name in PARAMETRIC else None)


def named(activation: Activation) -> Any:
    """Returns Keras' name of an activation; the activation itself if Keras has no name for it."""
    name = getattr(activation, "__name__", "")
    return name if getattr(keras.activations, name or "?", None) is activation else activation


def _named_layer(layer: Layer) -> Any:
    if type(layer) is layers.ReLU and not layer.negative_slope and not layer.threshold:
        return {None: "relu", 6.0: "relu6"}.get(layer.max_value, layer)
    return layer
