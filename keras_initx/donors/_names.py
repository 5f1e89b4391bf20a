"""`Names`: the names that a user gave to the layers of a model, apart from those that Keras made."""

import re
from collections.abc import Iterable
from typing import Any

import keras

from keras_initx._keras_internals import flatten_layers
from keras_initx._types import Layer, Model
from keras_initx.walk import layer_paths

__all__ = ["Names", "plain", "stem"]

_NUMBER = re.compile(r"\d+[a-z]?(?![a-z])")  # also with a letter, as in block2b_add
_WRAPPED = re.compile("^(forward|backward)_")  # Keras names the layers of a Bidirectional so


class Names:
    """The names of a model's weights.

    Args:
        model: The model.
        weights: Its weights.
    """

    def __init__(self, model: Model, weights: Iterable[Any]) -> None:
        paths = layer_paths(model)
        self._layers = {paths[id(layer)]: layer for layer in flatten_layers(model) if id(layer) in paths}
        self._paths = paths
        self._of = {id(w): self._name(w) for w in weights}

    def of(self, weight: Any) -> str:
        """Returns the name of a weight: its path, without the numbers of names that Keras made.

        Empty if no user named a layer of the path: Keras did, or the code of a layer's class.
        """
        return self._of[id(weight)]

    def family(self, weight: Any) -> str:
        """Returns the name of a weight without any number: one for all blocks that are numbered."""
        return _NUMBER.sub("#", self._of[id(weight)])

    def numbers(self, weight: Any) -> list[str]:
        """Returns the numbers in the name of a weight."""
        return _NUMBER.findall(self._of[id(weight)])

    def part(self, weight: Any) -> str:
        """Returns the name of the kind of block that a weight is in; empty if it has no number."""
        family = self.family(weight)
        return stem(family) if "#" in family else ""

    def last(self, weight: Any) -> str:
        """Returns the name of a weight's own layer, and of the weight; empty if Keras made it."""
        return "" if _is_automatic(weight.layer) else f"{weight.layer.name}:{weight.kernel.name}"

    def _name(self, weight: Any) -> str:
        path, told, given = "", [], False
        for name in filter(None, self._paths.get(id(weight.layer), "").split("/")):
            path = f"{path}/{name}".removeprefix("/")
            layer = self._layers.get(path)
            if layer is None or not _is_automatic(layer):
                given = True
            elif not given and isinstance(layer, keras.Model):
                continue
            elif not given and layer is not weight.layer:
                return ""  # the names within are those of a class
            else:
                name = plain(name)
            told.append(name)
        return f"{'/'.join(told)}:{weight.kernel.name}" if given else ""


def plain(path: str) -> str:
    """Returns a path without the numbers in it."""
    return re.sub(r"_?\d+", "", path)


def stem(family: str) -> str:
    """Returns what a family shares with the others of its block: the name up to the first number."""
    return family.partition("#")[0]


def _is_automatic(layer: Layer) -> bool:
    """Whether Keras made the name of a layer: from its class, with a number."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
    name = re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
    return plain(_WRAPPED.sub("", layer.name)) == plain(name)
