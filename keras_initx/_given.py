"""The initializers that variables were made with, recorded from the import of this module on.

A Keras variable forgets its initializer as soon as it has a value, and a layer need not name the initializer
in an attribute or in its config. The variable itself keeps it here. So the record needs no lock, and goes
when the variable goes.
"""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_initx._types import Tensor, Variable

__all__ = ["given_to", "record"]

_NAME = "_initx_given"  # of the entry in the variable's dict
_LARGEST = 1 << 20  # entries: a larger array would be held beside the variable's own value


class _Given:
    """What a variable was made with. It is left out of copies and pickles: it may be a lambda."""

    def __init__(self, initializer: object = None) -> None:
        self.initializer = initializer

    def __reduce__(self) -> tuple[type["_Given"], tuple[()]]:
        return _Given, ()


def record() -> None:
    """Lets each variable that is made from now on keep its initializer. The import of this module calls it.

    Only `keras.Variable.__init__` sees the initializers of all variables: `Layer.add_weight` ends there, and
    so do variables that a layer makes without it.
    """
    original = keras.Variable.__init__
    # A second import, after the package was taken out of `sys.modules`, finds the first one's record.
    if hasattr(original, _NAME):
        return

    @functools.wraps(original)
    def made(self: Variable, initializer: object, *args: Any, **options: Any) -> None:
        original(self, initializer, *args, **options)
        if (kept := _kept(initializer)) is not None:
            vars(self)[_NAME] = _Given(kept)

    vars(made)[_NAME] = True
    keras.Variable.__init__ = made


def given_to(variable: Variable) -> Callable[..., Tensor] | np.ndarray | None:
    """Returns the initializer that a variable was made with.

    >>> layer = keras.layers.Layer()
    >>> weight = layer.add_weight(shape=(2, 2), initializer="he_normal")
    >>> type(given_to(weight)).__name__, given_to(keras.Variable(np.arange(3)))
    ('HeNormal', array([0, 1, 2]))

    Args:
        variable: A Keras variable.

    Returns:
        An initializer or a function of shape and dtype, or the array that the variable was made from. None if
        nothing was recorded: the variable was made before the package was imported, or from a tensor or a
        large array.
    """
    found = getattr(vars(variable).get(_NAME), "initializer", None)
    return keras.initializers.get(found) if isinstance(found, str) else found


def _kept(initializer: object) -> object:
    """Returns what to keep of an initializer; None for nothing."""
    # A tensor stays unread, since reading it may wait for a device, and it may be no more than a symbol.
    if isinstance(initializer, int | float | np.number | np.bool_ | np.ndarray):
        return np.array(initializer) if np.size(initializer) <= _LARGEST else None
    value = getattr(initializer, "value", None)  # of a `Constant`
    large = isinstance(value, np.ndarray) and value.size > _LARGEST
    return initializer if (callable(initializer) or isinstance(initializer, str)) and not large else None


record()
