"""New values into a variable, and how large they are."""

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_initx._types import Tensor, Variable

__all__ = ["fill", "sample_std"]

_SAMPLE = 2**16  # entries that the std of a large kernel is measured on


def fill(
    variable: Variable, initializer: Callable[..., Tensor], update: Callable[..., None], traced: bool = True
) -> None:
    """Draws a variable's new value, in its own shape and dtype, and assigns it.

    On JAX a variable that is sharded over devices is drawn shard by shard: none ever holds the whole.

    Args:
        variable: The variable.
        initializer: What draws it.
        update: Assigns to a variable what a function makes of its value.
        traced: Whether JAX may trace the initializer, which global generators of random numbers do not allow.
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
    """Returns the population standard deviation of a variable, of its first entries where it is large."""
    if not keras.backend.is_float_dtype(variable.dtype) or 0 in variable.shape:
        return 0.0
    # In NumPy: a handful of backend operations costs more to dispatch than most weights to compute.
    return float(np.std(_first_entries(variable).astype("float32", copy=False)))


def _first_entries(variable: Variable) -> np.ndarray:
    """Returns the first entries as a NumPy array: a view of the value where the host holds it."""
    value, backend = variable.value, keras.backend.backend()
    if backend == "tensorflow":
        value = value.read_value()
        if "CPU" in value.device:
            return np.asarray(value).reshape(-1)[:_SAMPLE]
    elif backend == "jax" and [device.platform for device in value.devices()] == ["cpu"]:
        return np.asarray(value).reshape(-1)[:_SAMPLE]
    return ops.convert_to_numpy(ops.reshape(value, (-1,))[:_SAMPLE])
