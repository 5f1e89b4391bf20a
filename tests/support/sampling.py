"""How many cases a property is tried on."""

import keras


def cases(count):
    """The count, or on JAX a quarter of it: there each new shape is compiled, for most of a suite's time."""
    return -(-count // 4) if keras.backend.backend() == "jax" else count
