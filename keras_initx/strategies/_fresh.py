"""Finds the initializers that the weights of a model were drawn with, before any training.

Most layers of Keras name them in attributes. Any other layer is asked by a copy, which is built with the
variables' initializers recorded and no values made:

    layer  --config, or constructor's arguments-->  copy  --build, in a scope without values-->  variables,
    each with its initializer in `_initializer`

If a build needs values, the copy of a layer that holds no other layers is built for real, and the values of
its variables are the draw. A layer with layers inside is not built for real: it might be the whole model.

If a layer cannot be copied, its variables tell what they were made with: `keras_initx._given` records that.
"""

import contextlib
import inspect
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_initx._given import given_to
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

# Global state of Keras beside random numbers, which the build of a copy must leave as it was: later layers
# would get other names.
_COUNTERS = (NAME_COUNTS, UNINITIALIZED)
_PATCHING = threading.RLock()  # `keras.Variable.__init__` is one for all threads


def is_adapted(weight: KernelSite | Weight) -> bool:
    """Tells whether a weight holds numbers that its layer's `adapt` took from data, not from training."""
    return hasattr(weight.layer, "adapt") and not weight.kernel.trainable


class Origins:
    """Finds the initializers that weights were drawn with when their layers were built.

    Keras' own layers name most of their initializers in attributes. Any other layer is asked by a copy of
    itself: made from its config, or from its constructor's arguments if it has no config, and built for the
    same shapes. The copy's variables have no values, so that the copy takes no memory. If a layer needs
    values to be built, it is built for real, provided that it holds no other layers. Where no copy can be
    made, the initializer counts that the variable itself was made with.

    Args:
        seed: Seed of the draws of copies that are built for real.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        # By the ids of layers and of their variables: the initializers; None for values that a copy carries.
        self._copies: dict[int, dict[int, Initializer | None]] = {}

    def of(self, weight: KernelSite | Weight) -> Initializer | None:
        """Returns the initializer that a weight was drawn with, or None if nothing tells."""
        told = own_initializer(weight) if isinstance(weight, KernelSite) else weight.initializer
        layer = weight.layer
        # An attribute of that name need not be the initializer in a layer that builds itself.
        if told is not None and type(layer).build.__module__.startswith("keras."):
            return told
        if id(layer) not in self._copies:
            stream = stream_seed(self.seed, weight.path.rpartition("/")[0])
            self._copies[id(layer)] = _initial(layer, stream)
        copies, own = self._copies[id(layer)], id(weight.kernel)
        found = copies[own] if own in copies else _given(weight.kernel)
        return told if found is None else found


def _given(variable: Variable) -> Initializer | None:
    """Returns what a variable was made with, as an initializer."""
    found = given_to(variable)

    def array(shape: Sequence[int], dtype: str | None = None) -> Tensor:  # noqa: ARG001
        return keras.ops.convert_to_tensor(found, dtype)

    return array if isinstance(found, np.ndarray) else found


def _initial(layer: Layer, seed: int) -> dict[int, Initializer | None]:
    """Returns the initializers of a layer's own variables, by their ids, as a copy of the layer has them.

    None stands for a variable whose trained values the copy may have. A variable without an entry is one that
    no copy tells of.
    """
    own = _variables(layer)
    # A layer with layers inside is not built for real: a model would take its memory twice.
    alone = not flatten_layers(layer, include_self=False)
    for valueless in (True, False)[: 1 + alone]:
        with contextlib.suppress(Exception), _aside(seed, valueless):  # a user's layer may raise anything
            copies = _variables(_copy(layer))
            if [tuple(v.shape) for v in copies] == [tuple(v.shape) for v in own]:
                initial = [pending_initializer(v) if valueless else FreshValue(v.value) for v in copies]
                pairs = zip(own, initial, strict=True)
                told = [(v, start) for v, start in pairs if start is not None]
                return {id(v): None if _is_carried(v, start) else start for v, start in told}
    return {}


def _copy(layer: Layer) -> Layer:
    # Classes that the user did not register with Keras would not be found by name.
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
    """The constructor's arguments of a layer without a config, read off attributes of the same names.

    Raises TypeError if an argument is a layer or a variable. Code that calls this catches it, as it catches
    the AttributeError or KeyError of an argument without such an attribute.
    """
    parameters = inspect.signature(type(layer).__init__).parameters
    named = [n for n, p in list(parameters.items())[1:] if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    found = {n: getattr(layer, n) if hasattr(layer, n) else vars(layer)[f"_{n}"] for n in named}
    if any(isinstance(v, keras.layers.Layer | keras.Variable) for v in keras.tree.flatten(found)):
        raise TypeError("a copy would share the model's own layers, and its build would change them")
    more = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
    return found | ({"name": layer.name, "dtype": layer.dtype_policy} if more else {})


def _is_carried(variable: Variable, start: Initializer) -> bool:
    """Whether a copy's value may be the trained value itself: a layer's config may hold its weights."""
    # Equal values that are all alike (zeros, ones) are an initialization; equal random values are not.
    if not isinstance(start, FreshValue) or not variable.trainable:
        return False
    own, theirs = (keras.ops.convert_to_numpy(value) for value in (variable.value, start.value))
    return bool(np.array_equal(own, theirs) and np.ptp(own))


def _variables(layer: Layer) -> list[Any]:
    return own_variables(layer)


@contextlib.contextmanager
def _aside(seed: int, valueless: bool) -> Iterator[None]:
    """Lets layers be built and leaves no trace: counts of names and random numbers are put back."""
    kept = {name: global_attribute(name) for name in _COUNTERS}
    for name, value in kept.items():
        set_global_attribute(name, None if value is None else value.copy())
    scope = _valueless() if valueless else contextlib.nullcontext()
    try:
        with seeded(seed), scope, warnings.catch_warnings():
            # Keras warns of layers that it cannot build; `initialize` reports the weight as kept instead.
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, value in kept.items():
            set_global_attribute(name, value)


@contextlib.contextmanager
def _valueless() -> Iterator[None]:
    """Lets variables be made without values.

    Keras has such a scope, but refuses there a variable that is made from an array. The constructor is
    patched for the time, so that an array becomes an initializer that returns this array.
    """
    original = keras.Variable.__init__

    def made(self: Variable, initializer: object, *args: object, **options: Any) -> None:
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
    """Returns the value that a freshly built copy has."""

    def __init__(self, value: Tensor) -> None:
        # A copy: torch reads a module from a config into memory that goes with the copy of the layer.
        self.value = keras.ops.copy(keras.ops.convert_to_tensor(value))

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        return keras.ops.cast(self.value, dtype or keras.config.floatx())
