"""Numbers the layers of a model in the order in which they run, so that TensorBoard sorts them by depth.

A trace of the model gives the order, but it has one step per layer that it does not see through. Each layer
of the model gets a depth from it:

    layer of the model                          depth
    a step of its own (Dense, ReLU)             that step
    inside a step (the cell of an LSTM)         the step of the layer around it
    around steps (a nested model)               the first step among the layers inside it
    in no step (the trace failed, or it is      the depth of the layer that Keras lists before it
    not called)
"""

import dataclasses

import keras
import numpy as np

import keras_initx.walk as walk
from keras_initx._keras_internals import flatten_layers, own_variables
from keras_initx._types import Layer, Model, Variable

__all__ = ["NumberedLayer", "number_layers"]


@dataclasses.dataclass(frozen=True, eq=False)
class NumberedLayer:
    """A layer with weights or outputs to write to TensorBoard.

    Attributes:
        tag: Number of the layer, an underscore, and its path within the model.
        layer: The layer.
        weights: The variables that the layer owns, by their tags.
        is_shown: Whether to write the layer's outputs: it has kernels, or it is an activation.
    """

    tag: str
    layer: Layer
    weights: dict[str, Variable]
    is_shown: bool


def number_layers(model: Model) -> list[NumberedLayer]:
    """Returns the layers that own weights, run kernels, or are activations, in the order in which they run.

    >>> layers = keras.layers
    >>> model = keras.Sequential([layers.Input((4,)), layers.Dense(3, name="in"), layers.ReLU(name="relu")])
    >>> [(numbered.tag, list(numbered.weights)) for numbered in number_layers(model)]
    [('0_in', ['0_in/kernel', '0_in/bias']), ('1_relu', [])]

    Args:
        model: A built Keras model.

    Returns:
        Each layer once, at the place where it first runs. A layer that the trace does not see comes after the
        layer that Keras lists before it.
    """
    found = list({id(layer): layer for layer in flatten_layers(model)}.values())
    paths, variables = walk.layer_paths(model), _variables(found)
    nodes = [node for node in walk.trace(model).nodes if isinstance(node.operation, keras.layers.Layer)]
    steps: dict[int, int] = {}
    # The layer around a layer that has no step of its own: an LSTM for its cell. The outputs of the LSTM are
    # shown in place of the cell's, which run in a loop that the backend may trace.
    run_in: dict[int, Layer] = {}
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
        # A layer that the trace sees through has no step; it runs when the first layer inside it runs.
        depth = min(steps.get(id(inner), np.inf) for inner in flatten_layers(layer))
        depths[id(layer)] = last = depth if np.isfinite(depth) else last
    rows = [layer for layer in found if id(layer) in shown or id(layer) in variables]
    rows.sort(key=lambda layer: depths[id(layer)])
    digits = len(str(len(rows) - 1))  # leading zeros: TensorBoard sorts tags as text
    numbered = []
    for number, layer in enumerate(rows):
        tag = f"{number:0{digits}d}_{paths[id(layer)]}"
        weights = _tagged(f"{tag}/".replace("_/", "_"), variables.get(id(layer), []))
        numbered.append(NumberedLayer(tag, layer, weights, id(layer) in shown))
    return numbered


def _variables(layers: list[Layer]) -> dict[int, list[Variable]]:
    """The weights that each layer owns, by `id(layer)`."""
    # A wrapper may list the weights of the layer that it wraps as its own. Keras lists the wrapped layer
    # later, so that the later entry of this dict, which wins, is the true owner.
    owners = {id(variable): (layer, variable) for layer in layers for variable in own_variables(layer)}
    found: dict[int, list[Variable]] = {}
    for layer, variable in owners.values():
        found.setdefault(id(layer), []).append(variable)
    return found


def _tagged(prefix: str, variables: list[Variable]) -> dict[str, Variable]:
    """Variables by tag; variables of equal name in one layer are told apart by `_2` and so on."""
    tags: dict[str, Variable] = {}
    for variable in variables:
        taken = sum(other.name == variable.name for other in tags.values())
        tags[f"{prefix}{variable.name}{f'_{taken + 1}' if taken else ''}"] = variable
    return tags
