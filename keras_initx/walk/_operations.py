"""What layers and operations without kernels do to a signal: activate, gate, normalize or pass it on."""

from typing import Any

import keras
from keras import layers

from keras_initx._keras_internals import flatten_layers
from keras_initx._types import Activation, Layer
from keras_initx.walk._kernels import known_class
from keras_initx.walk._trace import Step

__all__ = [
    "MIXTURES", "PASSING", "PRODUCTS", "SUMS", "activation_of", "class_name", "is_gate", "is_normalization",
    "label_of", "named",
]  # fmt: skip

# Activations by the class of the operation that computes them without arguments.
_ACTIVATIONS = {
    "ReLU": "relu", "Relu": "relu", "Relu6": "relu6", "Sigmoid": "sigmoid", "Softplus": "softplus",
    "Softsign": "softsign", "SoftShrink": "soft_shrink", "SparsePlus": "sparse_plus", "Silu": "silu",
    "SquarePlus": "squareplus", "LogSigmoid": "log_sigmoid", "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu", "Selu": "selu", "HardTanh": "hard_tanh", "TanhShrink": "tanh_shrink",
    "HardShrink": "hard_shrink", "SparseSigmoid": "sparse_sigmoid", "Tanh": "tanh", "Exp": "exponential",
}  # fmt: skip
# Those with arguments stand for themselves, as callables.
_PARAMETRIC = ("Celu", "Elu", "Gelu", "LeakyRelu", "Threshold", "Erf", "Sin", "Cos", "Softmax")
_ACTIVATION_LAYERS = (
    layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.PReLU, layers.Softmax,
)  # fmt: skip
_NORMALIZATIONS = (
    layers.BatchNormalization, layers.GroupNormalization, layers.LayerNormalization,
    layers.RMSNormalization, layers.UnitNormalization, layers.Normalization,
)  # fmt: skip
SUMS = ("Add", "Subtract", "Average")
PRODUCTS = ("Multiply",)
MIXTURES = ("Dot", "DotProductAttention", "Einsum", "Matmul")
# Layers and operations through which a signal passes with its distribution about unchanged.
PASSING = {
    "Cast", "Concatenate", "ConvertToTensor", "Copy", "ExpandDims", "Flatten", "GetItem", "Identity",
    "BroadcastTo", "Moveaxis", "Pad", "Permute", "Ravel", "Repeat", "RepeatVector", "Reshape", "Rescaling",
    "Roll", "Slice", "Split", "Squeeze", "Stack", "StopGradient", "Swapaxes", "Take", "TakeAlongAxis", "Tile",
    "Transpose", "Unstack", "Where", "ActivityRegularization", "AlphaDropout", "Dropout", "DropPath",
    "GaussianDropout", "GaussianNoise",
    "StochasticDepth", "Masking", "Resize", "TimeDistributed", "Flip", "Resizing",
    *(f"SpatialDropout{n}D" for n in (1, 2, 3)),
    *(f"{name}{n}D" for n in (1, 2, 3) for name in ("Cropping", "UpSampling", "ZeroPadding")),
    *(f"{kind}Pooling{n}D" for n in (1, 2, 3) for kind in ("Max", "Average", "GlobalMax", "GlobalAverage")),
    *("AveragePool", "Divide", "MaxPool", "Mean", "Negative"),
}  # fmt: skip


def class_name(step: Step) -> str:
    """Returns the name of a step's class; that of Keras' class for its subclasses."""
    names = (cls.__name__ for cls in type(step.operation).__mro__ if cls.__module__.startswith("keras."))
    return next(names, type(step.operation).__name__)


def is_normalization(operation: keras.Operation | None) -> bool:
    """Whether an operation normalizes: Keras' layers, and others of such a name that hold no layers."""
    if isinstance(operation, _NORMALIZATIONS):
        return True
    if not isinstance(operation, layers.Layer) or isinstance(operation, layers.Wrapper):
        return False
    named_so = type(operation).__name__.endswith(("Norm", "Normalization"))
    return named_so and not flatten_layers(operation, include_self=False)


def is_gate(activation: Activation) -> bool:
    """Whether an activation is one of those that gates end with: a sigmoid, or what is bounded as one is."""
    return isinstance(activation, str) and activation in ("sigmoid", "hard_sigmoid", "relu6")


def label_of(activation: Activation) -> str:
    """The name of an activation, whether it is a name or an operation."""
    return activation if isinstance(activation, str) else type(activation).__name__.lower()


def activation_of(operation: keras.Operation | None) -> Any:
    """The activation that ends a layer or operation: None if it has none to speak of, "" if it is linear."""
    if isinstance(operation, layers.Activation):
        operation = operation.activation
        return "" if operation is keras.activations.linear else named(operation)
    if isinstance(operation, _ACTIVATION_LAYERS):
        return _named_layer(operation)
    if isinstance(operation, layers.Layer):
        if known_class(operation) is None or isinstance(operation, layers.RNN | layers.Bidirectional):
            return None
        activation = getattr(operation, "activation", None)
        if activation is None:
            return "" if hasattr(operation, "activation") else None
        return "" if activation is keras.activations.linear else named(activation)
    name = type(operation).__name__
    return _ACTIVATIONS.get(name) or (operation if name in _PARAMETRIC else None)


def named(activation: Activation) -> Any:
    """Keras' name of an activation; the activation itself where it has none."""
    name = getattr(activation, "__name__", "")
    return name if getattr(keras.activations, name or "?", None) is activation else activation


def _named_layer(layer: Layer) -> Any:
    if type(layer) is layers.ReLU and not layer.negative_slope and not layer.threshold:
        return {None: "relu", 6.0: "relu6"}.get(layer.max_value, layer)
    return layer
