"""What weights were before training: told by their layer, or by a fresh copy of it."""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import keras

from keras_initx.state import seeded, stream_seed
from keras_initx.walk import KernelSite, Weight, own_initializer

__all__ = ["Origins", "is_adapted"]

# What Keras keeps for the thread beside random numbers: building a layer must leave it as it was.
_COUNTERS = ("object_name_uids", "uninitialized_variables")


def is_adapted(weight: KernelSite | Weight) -> bool:
    """Whether a weight holds what its layer's `adapt` read off data, which is no training."""
    return hasattr(weight.layer, "adapt") and not weight.kernel.trainable


class Origins:
    """What the weights of a model were drawn with when their layers were built.

    Keras' own layers name most of their initializers in attributes. All others are asked by a copy: a layer
    of the same config, built for the same shapes in a scope that lets it make variables without values, so
    that it takes no memory. A layer that needs values to be built is built for real, by itself.

    Args:
        seed: Seed of the draws of those that are built for real.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._copies: dict[int, dict[int, Any]] = {}

    def of(self, weight: KernelSite | Weight) -> Any:
        """Returns what a weight was drawn with, or None where nothing tells."""
        told = own_initializer(weight) if isinstance(weight, KernelSite) else weight.initializer
        layer = weight.layer
        if told is not None and type(layer).build.__module__.startswith("keras."):
            return told
        if id(layer) not in self._copies:
            stream = stream_seed(self.seed, weight.path.rpartition("/")[0])
            self._copies[id(layer)] = _initial(layer, stream)
        return self._copies[id(layer)].get(id(weight.kernel), told)


def _initial(layer: Any, seed: int) -> dict[int, Any]:
    """Returns by the ids of a layer's own variables what a copy of it draws them with."""
    own = _variables(layer)
    for valueless in (True, False):
        with contextlib.suppress(Exception), _aside(seed, valueless):  # a user's layer may raise anything
            copies = _variables(_copy(layer))
            if [tuple(v.shape) for v in copies] == [tuple(v.shape) for v in own]:
                initializers = [v._initializer if valueless else FreshValue(v.value) for v in copies]
                return {id(v): i for v, i in zip(own, initializers, strict=True) if i is not None}
    return {}


def _copy(layer: Any) -> Any:
    classes = {type(sub).__name__: type(sub) for sub in layer._flatten_layers()}
    with keras.saving.custom_object_scope(classes):
        copy = type(layer).from_config(layer.get_config())
    if len(_variables(copy)) < len(_variables(layer)):
        copy.build_from_config(layer.get_build_config())
    return copy


def _variables(layer: Any) -> list[Any]:
    return [*layer._trainable_variables, *layer._non_trainable_variables]


@contextlib.contextmanager
def _aside(seed: int, valueless: bool) -> Iterator[None]:
    """Lets layers be built without a trace: counts of names and random numbers go on as if none was."""
    state: Any = sys.modules[keras.layers.Layer.__module__].global_state
    kept = {name: state.get_global_attribute(name) for name in _COUNTERS}
    for name, value in kept.items():
        state.set_global_attribute(name, None if value is None else value.copy())
    scope = keras.StatelessScope(initialize_variables=False) if valueless else contextlib.nullcontext()
    try:
        with seeded(seed), scope, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what Keras cannot build: the caller says what that means
            yield
    finally:
        for name, value in kept.items():
            state.set_global_attribute(name, value)


class FreshValue(keras.initializers.Initializer):
    """The value that a copy has."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return keras.ops.cast(self.value, dtype or keras.config.floatx())
