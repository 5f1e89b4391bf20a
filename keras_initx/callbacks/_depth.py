"""The layers of a model numbered in the order in which they run, as TensorBoard is to sort them."""

import dataclasses
from typing import Any

import keras
import numpy as np

import keras_initx.walk as walk
from keras_initx._keras_internals import flatten_layers, own_variables

__all__ = ["NumberedLayer", "number_layers"]


@dataclasses.dataclass(frozen=True, eq=False)
class NumberedLayer:
    """A layer that has something to show.

    Attributes:
        tag: Its number and its path within the model.
        layer: The layer.
        weights: The variables that it owns, by their tags.
        is_shown: Whether its outputs are: it has kernels, or applies an activation.
    """

    tag: str
    layer: Any
    weights: dict[str, Any]
    is_shown: bool


def number_layers(model: Any) -> list[NumberedLayer]:
    """Returns the layers that own weights, have kernels within or apply an activation, by depth.

    >>> layers = keras.layers
    >>> model = keras.Sequential([layers.Input((4,)), layers.Dense(3, name="in"), layers.ReLU(name="relu")])
    >>> [(numbered.tag, list(numbered.weights)) for numbered in number_layers(model)]
    [('0_in', ['0_in/kernel', '0_in/bias']), ('1_relu', [])]

    Args:
        model: A built Keras model.

    Returns:
        The layers in the order in which they first run, each once; one that a trace does not see after the
        one that Keras lists before it.
    """
    found = list({id(layer): layer for layer in flatten_layers(model)}.values())
    paths, variables = walk.layer_paths(model), _variables(found)
    nodes = [node for node in walk.trace(model).nodes if isinstance(node.operation, keras.layers.Layer)]
    steps: dict[int, int] = {}
    run_in: dict[int, Any] = {}  # the layer that runs a layer: a recurrent one its cell, say, in a loop
    for step, node in enumerate(nodes):
        for layer in flatten_layers(node.operation):
            steps.setdefault(id(layer), step)
            if not node.opaque:
                run_in.setdefault(id(layer), node.operation)
    owners = [site.layer for site in walk.iter_kernels(model, trace=False)]
    shown = {id(run_in.get(id(layer), layer)) for layer in owners}
    shown |= {id(node.operation) for node in nodes if node.activation is not None and not node.kernels}

    depths: dict[int, float] = {}
    last = -1.0
    for layer in found:
        # One that the trace sees through runs when the first of those that it holds does.
        depth = min(steps.get(id(inner), np.inf) for inner in flatten_layers(layer))
        depths[id(layer)] = last = depth if np.isfinite(depth) else last
    rows = [layer for layer in found if id(layer) in shown or id(layer) in variables]
    rows.sort(key=lambda layer: depths[id(layer)])
    digits = len(str(len(rows) - 1))
    numbered = []
    for number, layer in enumerate(rows):
        tag = f"{number:0{digits}d}_{paths[id(layer)]}"
        weights = _tagged(f"{tag}/".replace("_/", "_"), variables.get(id(layer), []))
        numbered.append(NumberedLayer(tag, layer, weights, id(layer) in shown))
    return numbered


def _variables(layers: list[Any]) -> dict[int, list[Any]]:
    """The weights that each layer owns; a wrapper may hold those of what it wraps, which comes later."""
    owners = {id(variable): (layer, variable) for layer in layers for variable in own_variables(layer)}
    found: dict[int, list[Any]] = {}
    for layer, variable in owners.values():
        found.setdefault(id(layer), []).append(variable)
    return found


def _tagged(prefix: str, variables: list[Any]) -> dict[str, Any]:
    tags: dict[str, Any] = {}
    for variable in variables:
        taken = sum(other.name == variable.name for other in tags.values())
        tags[f"{prefix}{variable.name}{f'_{taken + 1}' if taken else ''}"] = variable
    return tags
