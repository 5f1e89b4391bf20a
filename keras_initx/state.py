"""What several rooms share about a model's variables: that they exist, one seed per path, undoing changes."""

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initx._keras_internals import (
    GLOBAL_SEED,
    global_attribute,
    optimized_variables,
    set_global_attribute,
)
from keras_initx._types import Tensor, Variable

__all__ = [
    "check_built",
    "constraint_note",
    "constraint_of",
    "repeated_masks",
    "seeded",
    "slotted",
    "stream_seed",
    "transaction",
]

_MOVED = 1e-3  # of its norm: a value that changes less is where it is going to stay


def check_built(model: object) -> None:
    """Raises ValueError unless a model has the variables that a verb is to change.

    >>> check_built(keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)]))

    Args:
        model: What a user gave as a model.
    """
    if not isinstance(model, keras.layers.Layer):
        raise ValueError(f"`model` must be a Keras model. Received: model of type {type(model).__name__}.")
    if not model.built or not model.weights:
        cure = "Call `model.build(input_shape)`, or the model on one batch, first."
        cure = "None of its layers has a weight that could be changed." if model.built else cure
        raise ValueError(
            f"`model` must be built and have weights. Received: {type(model).__name__} `{model.name}`, "
            f"built={model.built}. {cure}"
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


def constraint_of(variable: keras.Variable, *factors: float) -> str:
    """Returns the name of a variable's constraint if the next training step would change its value by it.

    >>> dense = keras.layers.Dense(2, kernel_constraint="unit_norm", kernel_initializer="ones")
    >>> dense.build((None, 1))
    >>> constraint_of(dense.kernel), constraint_of(dense.kernel, 2.0)
    ('', 'UnitNorm')

    Args:
        variable: A Keras variable.
        factors: What its value is multiplied by before; several are tried. None for the value as it is.

    Returns:
        The name; an empty string where the value stays or there is no constraint.
    """
    constraint = getattr(variable, "constraint", None)
    if constraint is None:
        return ""
    for factor in factors or (1.0,):
        value = ops.stop_gradient(ops.cast(variable.value, "float32")) * factor
        moved = ops.cast(constraint(value), "float32") - value
        if float(_size(moved)) > _MOVED * float(_size(value)):
            return str(getattr(constraint, "__name__", type(constraint).__name__))
    return ""


def constraint_note(variable: keras.Variable) -> str:
    """Returns a sentence for a report if a constraint changes a variable at the first training step.

    Args:
        variable: A Keras variable.
    """
    name = constraint_of(variable)
    return f"its constraint {name} changes it at the first training step" if name else ""


def _size(value: Tensor) -> Any:
    return ops.sqrt(ops.sum(ops.square(value)))


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Starts Python's, NumPy's and Keras' global random generators from a seed, and puts them back.

    >>> with seeded(7):
    ...     first = random.random(), keras.random.uniform(())
    >>> with seeded(7):
    ...     again = random.random(), keras.random.uniform(())
    >>> first[0] == again[0], bool(first[1] == again[1])
    (True, True)

    Args:
        seed: A non-negative int below 2^31.
    """
    # Keras has `set_random_seed`, which sets all of these and more, but nothing to put them back with.
    saved = random.getstate(), np.random.get_state(), global_attribute(GLOBAL_SEED)  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    set_global_attribute(GLOBAL_SEED, keras.random.SeedGenerator(seed, name=GLOBAL_SEED))
    try:
        yield
    finally:
        random.setstate(saved[0])
        np.random.set_state(saved[1])  # noqa: NPY002
        set_global_attribute(GLOBAL_SEED, saved[2])


@contextlib.contextmanager
def repeated_masks() -> Iterator[None]:
    """Has random masks be the same in each such block on torch, and puts torch's generator back.

    Keras' dropout without a seed takes that generator there; elsewhere it takes a variable of the layer.

    >>> masks = []
    >>> for _ in range(2):
    ...     with seeded(1), repeated_masks():
    ...         masks.append(keras.layers.Dropout(0.5)(keras.ops.ones((64,)), training=True))
    >>> bool(keras.ops.all(masks[0] == masks[1]))
    True
    """
    if keras.backend.backend() != "torch":
        yield
        return
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def slotted(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    """Returns the variables that a built optimizer has slots for, in the order of the slots.

    They are what was trainable when the optimizer was built, whatever was frozen or unfrozen since.

    >>> first, second = keras.Variable([1.0]), keras.Variable([2.0])
    >>> optimizer = keras.optimizers.Adam()
    >>> optimizer.build([first, second])
    >>> [variable is second for variable in slotted(optimizer)]
    [False, True]
    """
    return optimized_variables(optimizer)


@contextlib.contextmanager
def transaction() -> Iterator[Callable[..., None]]:
    """Yields `update(variable, function)`; on any exception, Ctrl-C included, puts back what it changed.

    `update` assigns to the variable what the function makes of its value. With `fresh=True`, which promises a
    tensor of the variable's own shape and dtype that nothing else holds, torch takes it without a copy.

    The old values are held until the block ends, without a copy: on TensorFlow and JAX, where `assign` puts a
    new buffer in place of the old one, and on torch, where the variable is given the new value's.

    >>> variable = keras.Variable([1.0])
    >>> with contextlib.suppress(KeyError), transaction() as update:
    ...     update(variable, lambda value: 2.0 * value)
    ...     raise KeyError
    >>> print(ops.convert_to_numpy(variable))
    [1.]
    """
    saved: dict[int, tuple[Any, Any]] = {}
    backend = keras.backend.backend()

    def update(variable: Variable, function: Callable[[Any], Any], fresh: bool = False) -> None:
        if id(variable) in saved:
            variable.assign(function(variable.value))
            return
        old = variable.value
        if backend == "tensorflow":
            old = ops.copy(old)  # from a handle to the buffer behind it
        elif backend == "torch":
            old = old.data
        new = function(old)
        saved[id(variable)] = (variable, old)
        if backend == "torch":
            variable.value.data = new.detach() if fresh else old.new_empty(old.shape)
        if backend != "torch" or not fresh:
            variable.assign(new)

    try:
        yield update
    except BaseException:
        for variable, old in saved.values():
            if backend == "torch":
                variable.value.data = old
            else:
                variable.assign(old)
        raise
