"""New values into a variable, and how large they are."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

__all__ = ["fill", "sample_std"]

_SAMPLE = 2**20  # entries that the std of a very large kernel is measured on


def fill(variable: Any, initializer: Any, update: Callable[[Any, Callable[[Any], Any]], None]) -> None:
    """Draws a variable's new value, in its own shape and dtype, and assigns it.

    On JAX a variable that is sharded over devices is drawn shard by shard: none ever holds the whole.

    Args:
        variable: The variable.
        initializer: What draws it.
        update: Assigns to a variable what a function makes of its value.
    """

    def draw() -> Any:
        return initializer(tuple(variable.shape), dtype=variable.dtype)

    sharding = getattr(variable.value, "sharding", None) if keras.backend.backend() == "jax" else None
    if sharding is None or sharding.is_fully_replicated:
        update(variable, lambda _: draw())
        return
    import jax

    update(variable, lambda _: jax.jit(draw, out_shardings=sharding)())


def sample_std(variable: Any) -> float:
    """Returns the population standard deviation of a variable, of its first rows where it is very large."""
    value = variable.value
    rows = variable.shape[0] if len(variable.shape) else 1
    few = max(1, math.ceil(rows * _SAMPLE / max(math.prod(variable.shape), 1)))
    value = value[:few] if few < rows else value
    return float(ops.std(ops.cast(value, "float32"))) if keras.backend.is_float_dtype(variable.dtype) else 0.0
