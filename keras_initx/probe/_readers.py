"""Who reads a kernel besides its own layer, while a model runs."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from keras_initx._types import Variable
from keras_initx.walk import KernelSite

__all__ = ["watched"]


@contextlib.contextmanager
def watched(
    sites: Sequence[KernelSite], running: Sequence[Any], read: Callable[[KernelSite, str], None]
) -> Iterator[None]:
    """Tells of readings of kernels and biases that their own layers do not make.

    Args:
        sites: The kernels.
        running: The layers with kernels whose `call` runs now; changes as the model runs.
        read: Called with a site and the name of the layer that read its kernel or bias.
    """
    owners: dict[int, tuple[Any, list[KernelSite]]] = {}
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


def _telling(variable_class: type[Variable], told: Callable[[Any], None]) -> type:
    """A class of variables that tells of each reading: everything that Keras computes reads `value`."""

    class Telling(variable_class):
        @property
        def value(self) -> Any:
            told(self)
            return super().value

    Telling.__name__ = variable_class.__name__
    return Telling


def _reader() -> str:
    """The name of the innermost layer whose method is running."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        layer = frame.f_locals.get("self")
        if isinstance(layer, keras.layers.Layer):
            return layer.name
        frame = frame.f_back
    return "a function"
