"""A `.keras` file that loads where this package is not installed."""

import json
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import keras_initx.initializers as initializers
from keras_initx.gains import compute_gain
from keras_initx.saved_model._endpoints import reason

_PREFIX = "initx>"
# Keras' "normal" is a truncated one.
_DISTRIBUTIONS = {"normal": "untruncated_normal", "orthogonal": "untruncated_normal"}
_MODES = {"fan_geom": "fan_avg"}


def write_portable(model: Any, file: pathlib.Path) -> pathlib.Path:
    """Saves a model with Keras' own initializers in place of this package's, and loads it as a check.

    Args:
        model: The model; it is not changed.
        file: Where to.

    Raises:
        ValueError: If something of this package is left that Keras has no like of.
    """
    whole = file.with_name(f"whole-{file.name}")
    model.save(whole)
    for replace in (_nearest, _variance):  # not every kernel can be drawn by the nearest
        _rewrite(whole, file, replace)
        try:
            loaded = keras.saving.load_model(file, compile=False)
            break
        except Exception as error:
            failure = error
    else:
        raise ValueError(
            f"`portable` needs a model that Keras can load. Received: `{model.name}`, which cannot be loaded "
            f"again: {reason(failure)}"
        ) from failure
    for before, after in zip(model.weights, loaded.weights, strict=True):
        values = [keras.ops.convert_to_numpy(weight).tobytes() for weight in (before, after)]
        if values[0] != values[1]:
            raise ValueError(f"`portable` changed the weight {before.path} of `{model.name}`.")
    return file


def _rewrite(source: pathlib.Path, target: pathlib.Path, replace: Callable[[Any], Any]) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename == "config.json":
                config = _without_package(json.loads(content), replace)
                content = json.dumps(config).encode()
            new.writestr(entry, content)


def _without_package(node: Any, replace: Callable[[Any], Any]) -> Any:
    if isinstance(node, list):
        return [_without_package(item, replace) for item in node]
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
            f"`{getattr(thing, 'name', '')}`, which only this package has. "
            "Install it where the model is loaded."
        )
    return {key: _without_package(value, replace) for key, value in node.items()}


def _nearest(initializer: Any) -> Any:
    """Returns Keras' nearest; the values that the model has are in its weights, whatever drew them."""
    name = type(initializer).__name__
    if f"{_PREFIX}{name}" not in initializers.names():
        return initializer
    if name == "ICNR":
        return _nearest(initializer.initializer)
    if name == "ConstantFill":
        return keras.initializers.Constant(initializer.value)
    if name in ("IRNN", "IdentityScaled"):
        return keras.initializers.Identity(initializer.gain)
    if name == "PriorBias" and np.ndim(initializer.prior) == 0:
        return keras.initializers.Constant(float(initializer((1,), "float32")[0]))
    if name in ("ChronoBias", "LabelPrior", "PriorBias", "UniformGateBias"):
        return keras.initializers.Zeros()
    families = initializers.FAMILIES
    if type(initializer) in (*families["orthogonal"], *families["structured"], initializers.LSUV):
        return keras.initializers.Orthogonal(initializer.gain, seed=initializer.seed)
    return _variance(initializer)


def _variance(initializer: Any) -> Any:
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
