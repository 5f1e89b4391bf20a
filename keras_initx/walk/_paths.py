"""Paths of layers within a model."""

import itertools

from keras_initx._keras_internals import flatten_layers
from keras_initx._types import Layer, Model

__all__ = ["layer_paths"]


def layer_paths(model: Model) -> dict[int, str]:
    """Returns the path of every layer of a model, by `id(layer)`.

    Keras' own `path` of a variable leaves out the names of nested functional models.

    >>> import keras
    >>> dense = keras.layers.Dense(1, name="d")
    >>> model = keras.Sequential([keras.layers.Input((2,)), keras.Sequential([dense], name="in")])
    >>> layer_paths(model)[id(dense)]
    'in/d'

    Args:
        model: A Keras model or layer.

    Returns:
        The names of the layers that lead to a layer, joined by slashes. The name of the model itself is left
        out, since Keras numbers it anew in each process. If two layers have the same path, the second gets a
        number.
    """
    paths: dict[int, str] = {id(model): ""}
    taken: set[str] = set()

    def visit(parent: Layer) -> None:
        for layer in flatten_layers(parent, include_self=False, recursive=False):
            if id(layer) in paths:
                continue
            path = f"{paths[id(parent)]}/{layer.name}".removeprefix("/")
            # Keras allows layers of equal names side by side within a subclassed model.
            number = next(n for n in itertools.count() if (f"{path}_{n}" if n else path) not in taken)
            paths[id(layer)] = f"{path}_{number}" if number else path
            taken.add(paths[id(layer)])
            visit(layer)

    visit(model)
    return paths
