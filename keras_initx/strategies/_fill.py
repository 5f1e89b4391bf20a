"""New values into a variable, and how large they are."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

__all__ = ["fill", "sample_std"]

_SAMPLE = 2**20  # entries that the std of a very large kernel is measured on


def fill(variable: Any, initializer: Any, update: Callable[[Any, Callable[[Any], Any]], None]) -> None:
    """Draws a variable's new value, in its own shape and dtype, and assigns it."""
    update(variable, lambda _: initializer(tuple(variable.shape), dtype=variable.dtype))


def sample_std(variable: Any) -> float:
    """Returns the population standard deviation of a variable, of its first rows where it is very large."""
    value = variable.value
    rows = variable.shape[0] if len(variable.shape) else 1
    few = max(1, math.ceil(rows * _SAMPLE / max(math.prod(variable.shape), 1)))
    value = value[:few] if few < rows else value
    return float(ops.std(ops.cast(value, "float32"))) if keras.backend.is_float_dtype(variable.dtype) else 0.0
