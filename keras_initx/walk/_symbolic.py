"""Weights that are KerasTensors for the time of a symbolic run.

An operation on weights alone, such as a transpose, then joins the run: it computes nothing, and its output
tells of which weights it was made.
"""

import contextlib
import contextvars
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras import layers

from keras_initx._types import Variable
from keras_initx.walk._inputs import tensors_in

__all__ = ["made_of", "plain", "sized", "symbolic", "weights_in"]

_NOT_OPERATORS = ("__class__", "__init__", "__new__", "__repr__", "__hash__", "__array__")
_SYMBOLIC: contextvars.ContextVar[tuple[Variable, ...]] = contextvars.ContextVar("symbolic", default=())


def weights_in(inputs: object) -> tuple[Variable, ...]:
    """The weights that are operands, or that operands were made of alone."""
    found = [
        weight
        for tensor in tensors_in(inputs)
        for weight in (
            (tensor,) if isinstance(tensor, keras.Variable) else getattr(tensor, "_initx_weights", ())
        )
    ]
    return tuple({id(weight): weight for weight in found}.values())


def made_of(tensor: object, weights: tuple[Variable, ...]) -> Any:
    """Marks a KerasTensor as made of weights alone, and returns it."""
    if isinstance(tensor, keras.KerasTensor):
        tensor._initx_weights = weights
    return tensor


def plain(tensor: object) -> Any:
    """A KerasTensor in place of a weight."""
    if isinstance(tensor, keras.Variable) and isinstance(tensor, keras.KerasTensor):
        return keras.KerasTensor(tuple(tensor.shape), tensor.dtype)
    return tensor


@contextlib.contextmanager
def symbolic(weights: Sequence[Variable]) -> Iterator[None]:
    """Makes these weights and no others KerasTensors: an operation on weights alone then joins the run."""
    before = _SYMBOLIC.get()
    _switch(before, tuple(weights))
    token = _SYMBOLIC.set(tuple(weights))
    try:
        yield
    finally:
        _SYMBOLIC.reset(token)
        _switch(tuple(weights), before)


def _switch(old: Sequence[Variable], new: Sequence[Variable]) -> None:
    for weight in old:
        weight.__class__ = type(weight).__bases__[0]
    for weight in new:
        own: Any = type(weight)
        weight.__class__ = _symbolic_class(own)


@functools.cache
def _symbolic_class(own: Any) -> type:
    # Python's operators must be the KerasTensor's, which call Keras' operations; the variable's would
    # compute.
    operators = {
        name: member
        for name, member in vars(keras.KerasTensor).items()
        if name.startswith("__") and callable(member) and name not in _NOT_OPERATORS
    }
    extra = {"value": property(lambda self: self), "sparse": False, "ragged": False, "record_history": True}
    return type(own.__name__, (own, keras.KerasTensor), operators | extra)


def sized(layer: layers.EinsumDense, shape: Sequence[int | None], output: keras.KerasTensor) -> Any:
    """The output of an EinsumDense with the sizes that its own spec leaves open; later layers need them."""
    left, letters = layer.equation.split("->")
    taken = left.split(",")[0]
    if "..." in letters and not letters.startswith("..."):
        return output
    sizes = dict(zip(taken, shape, strict=False)) if "..." not in letters else {}
    whole = [
        (sizes.get(letters[axis]) if sizes else shape[axis]) if size is None else size
        for axis, size in enumerate(output.shape)
    ]
    return keras.KerasTensor(whole, output.dtype)
