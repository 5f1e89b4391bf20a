"""Several processes that train one model, as Keras does on JAX: the first writes, and all decide alike."""

from typing import Any

import keras
import numpy as np

__all__ = ["Silent", "is_first", "largest", "of_first"]


class Silent:
    """Stands for an `EventWriter` and writes nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def is_first() -> bool:
    """Returns whether this process is the first, or the only one."""
    if keras.backend.backend() != "jax":
        return True
    import jax

    return jax.process_index() == 0


def of_first(value: int) -> int:
    """Returns the number that the first process gives; all must call this."""
    return _gather(value)[0]


def largest(value: int) -> int:
    """Returns the largest number that a process gives; all must call this."""
    return max(_gather(value))


def _gather(value: int) -> list[int]:
    if keras.backend.backend() != "jax":
        return [value]
    import jax

    if jax.process_count() == 1:
        return [value]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.asarray(value, "int32"))).ravel().tolist()
