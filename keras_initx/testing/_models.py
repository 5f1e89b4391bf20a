"""The small layers, models and data that the checks run an initializer in."""

import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initx._keras_internals import flatten_layers
from keras_initx._types import Initializer, Layer, Model, Tensor
from keras_initx.calibration import CalibrationReport, calibrate
from keras_initx.initializers import Law
from keras_initx.testing._case import Case, bias_class, head_class
from keras_initx.walk import KernelSite, iter_kernels

__all__ = [
    "array",
    "calibrated",
    "data_of",
    "drawn_by",
    "initializer_in",
    "law_model",
    "layer_of",
    "model_of",
    "values",
    "zoo",
]

_ROWS = 64
_MARK = 0.625  # a number that every dtype holds exactly and that no default bias has


def array(tensor: Tensor) -> np.ndarray:
    """Returns a tensor as float64."""
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float64")))


def values(model: Model) -> list[np.ndarray]:
    """Returns copies of the weights of a model."""
    return [np.array(ops.convert_to_numpy(weight.value)) for weight in model.weights]


def layer_of(case: Case, initializer: Initializer) -> Layer:
    """Returns the layer of a case with an initializer in its place."""
    if case.layer is not None:
        return case.layer(initializer)
    place = "bias_initializer" if bias_class(case) else "kernel_initializer"
    return keras.layers.Dense(6, **{place: initializer})


def model_of(case: Case, initializer: Initializer) -> Model:
    """Returns a model of this layer alone."""
    return keras.Sequential([keras.layers.Input(case.input_shape), layer_of(case, initializer)])


def drawn_by(case: Case, initializer: Initializer) -> np.ndarray:
    """Returns the weights of a new layer that its initializer drew, as one flat array.

    Raises:
        ValueError: If the layer of the case does not use its argument.
    """
    # The other weights of the layer, such as a random kernel beside a bias, would hide that a draw repeats.
    # A layer with a marked constant in place of the initializer shows which weights are the initializer's.
    marked = model_of(case, keras.initializers.Constant(_MARK)).weights
    own = [place for place, weight in enumerate(marked) if (array(weight) == _MARK).any()]
    if not own:
        raise ValueError(
            "`layer` must use its argument as the initializer of a weight. Received: no such weight."
        )
    weights = model_of(case, initializer).weights
    return np.concatenate([array(weights[place]).ravel() for place in own])


def initializer_in(model: Model, cls: type) -> Any:
    """Returns the initializer of a class that a layer of a model holds, or None."""
    for layer in flatten_layers(model):
        for name in dir(layer):
            if name.endswith("initializer"):
                found = getattr(layer, name, None)
                if type(found) is cls:
                    return found
    return None


def law_model(case: Case, law: Law) -> tuple[Model, Layer]:
    """Returns a model of two linear layers, and the layer of the case in it, which holds the law.

    Activations are layers of their own, so that the output of a linear layer is its pre-activation. A law of
    heads or of their biases stands in the head of the model; any other law stands in the first layer.
    """
    own = layer_of(case, law)
    parts = [own, keras.layers.ReLU(), keras.layers.Dense(4)]
    if head_class(case):
        parts = [keras.layers.Dense(case.input_shape[-1]), keras.layers.ReLU(), own]
    model = keras.Sequential([keras.layers.Input(case.input_shape), *parts])
    if law.scope == "adapter":
        own.enable_lora(2, a_initializer=law)
    return model, own


def data_of(model: Model) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows of a model's input, and one-hot targets in the shape of its output."""
    generator = np.random.default_rng(0)
    inputs = generator.normal(0.5, 2.0, (_ROWS, *model.input_shape[1:])).astype("float32")
    *rest, classes = model.output_shape[1:]
    numbers = generator.integers(0, classes, (_ROWS, *rest))
    return inputs, np.eye(classes, dtype="float32")[numbers]


def calibrated(model: Model, law: Law | None) -> CalibrationReport:
    """Calibrates a model by a law, or by the layers' own laws, on `data_of(model)`."""
    inputs, targets = data_of(model)
    with warnings.catch_warnings():
        # A law may refuse the kernel of the other layer: the report says so, and that is all right.
        warnings.simplefilter("ignore", UserWarning)
        return calibrate(model, inputs, law, targets=targets, loss="mse", seed=1)


def zoo() -> Iterator[KernelSite]:
    """Yields the kernels of layers of many kinds."""
    layers = keras.layers
    image, series = (None, 8, 8, 4), (None, 5, 4)
    built: list[tuple[Layer, tuple[Any, ...]]] = [
        (layers.Dense(3), ((None, 4),)),
        (layers.Dense(3, use_bias=False), (series,)),
        (layers.Conv1D(3, 2), (series,)),
        (layers.Conv2D(6, 3, groups=2), (image,)),
        (layers.DepthwiseConv2D(3, depth_multiplier=2), (image,)),
        (layers.SeparableConv2D(6, 3), (image,)),
        (layers.Conv2DTranspose(6, 3), (image,)),
        (layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="e"), (series,)),
        (layers.Embedding(9, 4), ((None, 5),)),
        (layers.MultiHeadAttention(2, 3), (series, series)),
        (layers.LSTM(3), (series,)),
        (layers.GRU(3), (series,)),
        (layers.LayerNormalization(), (series,)),
    ]
    for layer, shapes in built:
        layer.build(*shapes)
        yield from iter_kernels(layer, trace=False)
