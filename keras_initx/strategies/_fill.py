"""Draws new values into a variable, and measures how large they are."""

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_initx._types import Tensor, Variable

__all__ = ["fill", "sample_std"]

_SAMPLE = 2**16  # entries: enough for the std to 0.3 %, where a kernel may have a thousand times as many


def fill(
    variable: Variable, initializer: Callable[..., Tensor], update: Callable[..., None], traced: bool = True
) -> None:
    """Draws a new value in the shape and dtype of a variable, and assigns it.

    A variable that JAX shards over devices is drawn shard by shard, so that no device holds the whole value.

    Args:
        variable: The variable.
        initializer: Function of shape and dtype that draws the value.
        update: Function `update(variable, function)`, which assigns `function(value)` to the variable.
        traced: Whether JAX may trace the initializer. It may not if the initializer draws from global
            generators, which a trace would read once and for all.
    """

    def draw() -> Tensor:
        return initializer(tuple(variable.shape), dtype=variable.dtype)

    sharding = getattr(variable.value, "sharding", None) if keras.backend.backend() == "jax" else None
    if sharding is None or sharding.is_fully_replicated or not traced:
        update(variable, lambda _: draw())
        return
    import jax

    update(variable, lambda _: jax.jit(draw, out_shardings=sharding)())


def sample_std(variable: Variable) -> float:
    """Returns the population standard deviation of a variable; of a large variable, of its first entries."""
    if not keras.backend.is_float_dtype(variable.dtype) or 0 in variable.shape:
        return 0.0
    # In NumPy: to dispatch a handful of backend operations costs more than most weights' arithmetic.
    return float(np.std(_first_entries(variable).astype("float32", copy=False)))


def _first_entries(variable: Variable) -> np.ndarray:
    """Returns the first entries as a NumPy array, without a copy if the value is in the host's memory."""
    value, backend = variable.value, keras.backend.backend()
    if backend == "tensorflow":
        value = value.read_value()
        if "CPU" in value.device:
            return np.asarray(value).reshape(-1)[:_SAMPLE]
    elif backend == "jax" and [device.platform for device in value.devices()] == ["cpu"]:
        return np.asarray(value).reshape(-1)[:_SAMPLE]
    return ops.convert_to_numpy(ops.reshape(value, (-1,))[:_SAMPLE])
