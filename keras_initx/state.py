"""What several rooms share about a model's variables: that they exist, one seed per path, undoing changes."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

__all__ = ["check_built", "stream_seed", "transaction"]


def check_built(model: Any) -> None:
    """Raises ValueError unless a model has the variables that a verb is to change.

    >>> check_built(keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)]))

    Args:
        model: What a user gave as a model.
    """
    if not isinstance(model, keras.layers.Layer):
        raise ValueError(f"`model` must be a Keras model. Received: model of type {type(model).__name__}.")
    if not model.built or not model.weights:
        raise ValueError(
            f"`model` must be built and have weights. Received: {type(model).__name__} `{model.name}`, "
            f"built={model.built}. Call `model.build(input_shape)`, or the model on one batch, first."
        )


def stream_seed(seed: int, path: str) -> int:
    """Returns the seed of one variable's own stream of random numbers.

    Variables of equal shape therefore never coincide, and a new layer changes no other layer's draw.

    >>> stream_seed(7, "query/kernel") == stream_seed(7, "key/kernel")
    False

    Args:
        seed: Seed of the whole model.
        path: Path of the variable.

    Returns:
        A non-negative int below 2^31, the same in each process.
    """
    digest = hashlib.sha256(f"{seed}/{path}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


@contextlib.contextmanager
def transaction() -> Iterator[Callable[[Any, Callable[[Any], Any]], None]]:
    """Yields `update(variable, function)`; on any exception, Ctrl-C included, puts back what it changed.

    `update` assigns to the variable what the function makes of its value.

    The old values are held until the block ends: on TensorFlow and JAX by a reference to the old buffer, on
    torch, which assigns in place, by a copy.

    >>> variable = keras.Variable([1.0])
    >>> with contextlib.suppress(KeyError), transaction() as update:
    ...     update(variable, lambda value: 2.0 * value)
    ...     raise KeyError
    >>> print(ops.convert_to_numpy(variable))
    [1.]
    """
    saved: dict[int, tuple[Any, Any]] = {}

    def update(variable: Any, function: Callable[[Any], Any]) -> None:
        # A JAX array never changes; on TensorFlow `copy` refers to the buffer, which `assign` replaces.
        value = variable.value if keras.backend.backend() == "jax" else ops.copy(variable.value)
        saved.setdefault(id(variable), (variable, value))
        variable.assign(function(value))

    try:
        yield update
    except BaseException:
        for variable, value in saved.values():
            variable.assign(value)
        raise
