"""What weights were before training: told by their layer, or by a fresh copy of it."""

import contextlib
import inspect
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_initx._keras_internals import (
    NAME_COUNTS,
    UNINITIALIZED,
    flatten_layers,
    global_attribute,
    own_variables,
    pending_initializer,
    set_global_attribute,
)
from keras_initx._types import Initializer, Layer, Tensor, Variable
from keras_initx.state import seeded, stream_seed
from keras_initx.walk import KernelSite, Weight, own_initializer

__all__ = ["Origins", "is_adapted"]

# What Keras keeps for the thread beside random numbers: building a layer must leave it as it was.
_COUNTERS = (NAME_COUNTS, UNINITIALIZED)
_PATCHING = threading.RLock()


def is_adapted(weight: KernelSite | Weight) -> bool:
    """Whether a weight holds what its layer's `adapt` read off data, which is no training."""
    return hasattr(weight.layer, "adapt") and not weight.kernel.trainable


class Origins:
    """What the weights of a model were drawn with when their layers were built.

    Keras' own layers name most of their initializers in attributes. All others are asked by a copy: a layer
    of the same config, or of the same arguments where it has none, built for the same shapes in a scope that
    lets it make variables without values, so that it takes no memory. A layer that needs values to be built
    is built for real if it holds no other layers.

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


def _initial(layer: Layer, seed: int) -> dict[int, Any]:
    """Returns by the ids of a layer's own variables what a copy of it draws them with."""
    own = _variables(layer)
    # For real only what holds no other layers, or a model would be made twice.
    alone = not flatten_layers(layer, include_self=False)
    for valueless in (True, False)[: 1 + alone]:
        with contextlib.suppress(Exception), _aside(seed, valueless):  # a user's layer may raise anything
            copies = _variables(_copy(layer))
            if [tuple(v.shape) for v in copies] == [tuple(v.shape) for v in own]:
                initial = [pending_initializer(v) if valueless else FreshValue(v.value) for v in copies]
                pairs = zip(own, initial, strict=True)
                return {id(v): start for v, start in pairs if not _is_carried(v, start)}
    return {}


def _copy(layer: Layer) -> Any:
    classes = {type(sub).__name__: type(sub) for sub in flatten_layers(layer)}
    with keras.saving.custom_object_scope(classes):
        try:
            copy = type(layer).from_config(layer.get_config())
        except (NotImplementedError, TypeError, ValueError):
            copy = type(layer)(**_arguments(layer))
    if len(_variables(copy)) < len(_variables(layer)):
        copy.build_from_config(layer.get_build_config())
    return copy


def _arguments(layer: Layer) -> dict[str, Any]:
    """The arguments of a layer without a config, by the attributes that bear their names, or TypeError."""
    parameters = inspect.signature(type(layer).__init__).parameters
    named = [n for n, p in list(parameters.items())[1:] if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    found = {n: getattr(layer, n) if hasattr(layer, n) else vars(layer)[f"_{n}"] for n in named}
    if any(isinstance(v, keras.layers.Layer | keras.Variable) for v in keras.tree.flatten(found)):
        raise TypeError("to build a copy that holds the model's own layers would change these")
    more = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
    return found | ({"name": layer.name, "dtype": layer.dtype_policy} if more else {})


def _is_carried(variable: Variable, start: Initializer | None) -> bool:
    """Whether a start may be what was trained, as of a layer whose config holds its weights."""
    if not isinstance(start, FreshValue) or not variable.trainable:
        return start is None
    own, theirs = (keras.ops.convert_to_numpy(value) for value in (variable.value, start.value))
    return bool(np.array_equal(own, theirs) and np.ptp(own))


def _variables(layer: Layer) -> list[Any]:
    return own_variables(layer)


@contextlib.contextmanager
def _aside(seed: int, valueless: bool) -> Iterator[None]:
    """Lets layers be built without a trace: counts of names and random numbers go on as if none was."""
    kept = {name: global_attribute(name) for name in _COUNTERS}
    for name, value in kept.items():
        set_global_attribute(name, None if value is None else value.copy())
    scope = _valueless() if valueless else contextlib.nullcontext()
    try:
        with seeded(seed), scope, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what Keras cannot build: the caller says what that means
            yield
    finally:
        for name, value in kept.items():
            set_global_attribute(name, value)


@contextlib.contextmanager
def _valueless() -> Iterator[None]:
    """Lets variables be made without values, those of an array, too, which Keras refuses in its scope."""
    original = keras.Variable.__init__

    def made(self: Any, initializer: object, *args: object, **options: Any) -> None:
        if not callable(initializer) and not isinstance(initializer, str) and not args:
            initializer = FreshValue(initializer)
            dtype = options.get("dtype") or keras.backend.standardize_dtype(initializer.value.dtype)
            options |= {"shape": tuple(initializer.value.shape), "dtype": dtype}
        original(self, initializer, *args, **options)

    with _PATCHING, keras.StatelessScope(initialize_variables=False):
        keras.Variable.__init__ = made
        try:
            yield
        finally:
            keras.Variable.__init__ = original


class FreshValue(keras.initializers.Initializer):
    """The value that a copy has."""

    def __init__(self, value: Tensor) -> None:
        self.value = keras.ops.convert_to_tensor(value)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Any:
        return keras.ops.cast(self.value, dtype or keras.config.floatx())
