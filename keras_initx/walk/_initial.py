"""The initializer that a layer names for a weight."""

from typing import Any

from keras_initx._given import given_to
from keras_initx._keras_internals import own_trainable_variables
from keras_initx._types import Layer, Variable

__all__ = ["initializer_of"]


def initializer_of(layer: Layer, variable: Variable, attribute: str | None = None) -> Any:
    """Returns the layer's initializer of a variable; `recurrent_kernel` has `recurrent_initializer`."""
    name = variable.name
    names = (attribute, f"{name}_initializer", f"{name.removesuffix('_kernel')}_initializer")
    depthwise = ("depthwise_initializer",) if name == "kernel" else ()
    # A layer of one weight may name the attribute `initializer`, as keras_hub's position embedding does.
    only = ("initializer",) if len(own_trainable_variables(layer)) == 1 else ()
    candidates = (getattr(layer, n, None) for n in (*names, *depthwise, *only) if n)
    given = given_to(variable)
    return next((found for found in candidates if found), given if callable(given) else None)
