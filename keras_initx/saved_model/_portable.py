"""The portable file: a `.keras` file that loads where this package is not installed.

The config of a layer names its initializer, so Keras needs this package to load it, although a trained model
never draws its weights again. The portable file names one of Keras' own initializers instead.
"""

import json
import pathlib
import zipfile
from collections.abc import Callable
from typing import TypeAlias

import keras
import numpy as np

import keras_initx.initializers as initializers
from keras_initx._types import Model
from keras_initx.gains import compute_gain
from keras_initx.saved_model._endpoints import reason

# A part of a config: a dict, a list, a string, a number or None.
_Node: TypeAlias = object
_Replace: TypeAlias = Callable[[keras.initializers.Initializer], keras.initializers.Initializer]

_PREFIX = "initx>"
# Keras calls a truncated normal distribution "normal".
_DISTRIBUTIONS = {"normal": "untruncated_normal", "orthogonal": "untruncated_normal"}
_MODES = {"fan_geom": "fan_avg"}  # Keras does not have the geometric mean of the fans


def write_portable(model: Model, file: pathlib.Path) -> pathlib.Path:
    """Saves a model with Keras' own initializers in place of this package's, and loads the file as a check.

    Args:
        model: The model. It is not changed.
        file: The file to write.

    Raises:
        ValueError: If the model has a layer of this package, cannot be loaded again, or has other weights
            then.
    """
    whole = file.with_name(f"whole-{file.name}")
    model.save(whole)
    # To load a layer draws its weights first. The nearest initializer may refuse: `Orthogonal`, for
    # example, does not draw in bfloat16. `VarianceScaling` draws every kernel.
    for replace in (_nearest, _variance):
        _rewrite(whole, file, replace)
        try:
            loaded = keras.saving.load_model(file, compile=False)
            break
        except Exception as error:
            failure = error
    else:
        raise ValueError(
            f"`portable` needs a model that Keras can load. Received: `{model.name}`, which cannot be loaded "
            f"again: {reason(failure).rstrip('.')}. Leave `portable` out, or correct the layer."
        ) from failure
    for before, after in zip(model.weights, loaded.weights, strict=True):
        values = [keras.ops.convert_to_numpy(weight).tobytes() for weight in (before, after)]
        if values[0] != values[1]:
            raise ValueError(
                f"`portable` must keep the weights. Received: `{model.name}`, which loads with another value "
                f"of {before.path}. Leave `portable` out."
            )
    return file


def _rewrite(source: pathlib.Path, target: pathlib.Path, replace: _Replace) -> None:
    """Copies a `.keras` file, with other initializers in its config; the weights are copied as they are."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename == "config.json":
                config = _without_package(json.loads(content), replace)
                content = json.dumps(config).encode()
            new.writestr(entry, content)


def _without_package(node: _Node, replace: _Replace) -> _Node:
    """Returns a part of a config with every initializer of this package replaced, at any depth."""
    if isinstance(node, list):
        return [_without_package(item, replace) for item in node]
    # A layer's config may hold the name of an initializer alone, such as "initx>HeScaled".
    if isinstance(node, str) and node in initializers.names():
        return keras.saving.serialize_keras_object(replace(initializers.get(node)))
    if not isinstance(node, dict):
        return node
    if str(node.get("registered_name")).startswith(_PREFIX):
        thing = keras.saving.deserialize_keras_object(node)
        if isinstance(thing, keras.initializers.Initializer):
            return keras.saving.serialize_keras_object(replace(thing))
        raise ValueError(
            f"`portable` needs a model of Keras' own layers. Received: {node['class_name']} "
            f"`{getattr(thing, 'name', '')}`, which only keras_initx has. Leave `portable` out, and install "
            "keras_initx where the model is loaded."
        )
    return {key: _without_package(value, replace) for key, value in node.items()}


def _nearest(initializer: keras.initializers.Initializer) -> keras.initializers.Initializer:
    """Returns the initializer of Keras that is nearest to an initializer.

    It need not draw the same values: the values of the model are in its weights, and loading sets them.
    """
    name = type(initializer).__name__
    if f"{_PREFIX}{name}" not in initializers.names():
        return initializer
    # ICNR repeats the draw of another initializer.
    if name == "ICNR":
        return _nearest(initializer.initializer)
    if name == "ConstantFill":
        return keras.initializers.Constant(initializer.value)
    if name in ("IRNN", "IdentityScaled"):
        return keras.initializers.Identity(initializer.gain)
    if name == "PriorBias" and np.ndim(initializer.prior) == 0:
        return keras.initializers.Constant(float(initializer((1,), "float32")[0]))
    # Keras has no law for these biases, and zeros are its own default for a bias. Laws of heads draw zeros.
    if name in ("ChronoBias", "ClassMeans", "LabelPrior", "LinearProbe", "PriorBias", "UniformGateBias"):
        return keras.initializers.Zeros()
    families = initializers.FAMILIES
    if type(initializer) in (*families["orthogonal"], *families["structured"], initializers.LSUV):
        return keras.initializers.Orthogonal(initializer.gain, seed=initializer.seed)
    return _variance(initializer)


def _variance(initializer: keras.initializers.Initializer) -> keras.initializers.Initializer:
    """Returns the `VarianceScaling` with the initializer's variance, as far as its attributes tell."""
    mode, distribution = (
        getattr(initializer, "mode", "fan_in"),
        getattr(initializer, "distribution", "normal"),
    )
    activation = getattr(initializer, "activation", None)
    gain = getattr(initializer, "gain", 1.0) * compute_gain(activation, backward=mode == "fan_out")
    return keras.initializers.VarianceScaling(
        scale=gain**2,
        mode=_MODES.get(mode, mode),
        distribution=_DISTRIBUTIONS.get(distribution, distribution),
        seed=getattr(initializer, "seed", None),
    )
