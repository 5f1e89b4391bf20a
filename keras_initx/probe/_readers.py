"""Finds code that reads a kernel besides its own layer, while a model runs.

Such code (a tied head, a penalty on weights) would see a rescaled kernel, too. To find it, the class of each
watched variable is replaced by a subclass that reports each reading of `value`, which all of Keras reads. A
reading is the layer's own if the layer is in the list of those that run; otherwise the innermost layer on the
call stack is the reader.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from keras_initx._types import Layer, Tensor, Variable
from keras_initx.walk import KernelSite

__all__ = ["watched"]


@contextlib.contextmanager
def watched(
    sites: Sequence[KernelSite], running: Sequence[Layer], read: Callable[[KernelSite, str], None]
) -> Iterator[None]:
    """Reports readings of kernels and biases that their own layers do not make, while the block runs.

    Args:
        sites: The kernels.
        running: The hooked layers that run now, a list that changes as the model runs.
        read: Called with a site and the name of the layer that read its kernel or bias.
    """
    owners: dict[int, tuple[Variable, list[KernelSite]]] = {}
    for site in sites:
        for variable in (site.kernel, site.bias):
            if variable is not None:
                owners.setdefault(id(variable), (variable, []))[1].append(site)

    def told(variable: Variable) -> None:
        own = owners[id(variable)][1]
        if not any(layer is site.layer for layer in running for site in own):
            read(own[0], _reader())

    before = []
    try:
        for variable, _ in owners.values():
            before.append((variable, type(variable)))
            variable.__class__ = _telling(type(variable), told)
        yield
    finally:
        for variable, own_class in before:
            variable.__class__ = own_class


def _telling(variable_class: type[Variable], told: Callable[[Variable], None]) -> type:
    """A subclass of a variable's class that reports each reading of `value`."""

    class Telling(variable_class):
        @property
        def value(self) -> Tensor:
            told(self)
            return super().value

    Telling.__name__ = variable_class.__name__
    return Telling


def _reader() -> str:
    """The name of the innermost layer on the call stack, by the argument `self` of its methods."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        layer = frame.f_locals.get("self")
        if isinstance(layer, keras.layers.Layer):
            return layer.name
        frame = frame.f_back
    return "a function"
