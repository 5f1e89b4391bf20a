"""Variables of a model: checks that they exist, a seed for each, global random seeds, and undoing changes."""

import collections
import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator

import keras
import numpy as np
from keras import ops

from keras_initx._keras_internals import (
    GLOBAL_SEED,
    NAME_COUNTS,
    global_attribute,
    set_global_attribute,
)
from keras_initx._keras_optimizers import optimized_variables
from keras_initx._types import Tensor, Variable

__all__ = [
    "check_built",
    "constraint_note",
    "constraint_of",
    "fresh_names",
    "repeated_masks",
    "seeded",
    "slotted",
    "stream_seed",
    "transaction",
]

_MOVED = 1e-3  # relative to its norm; smaller changes are rounding of a constraint that is already met


def check_built(model: object) -> None:
    """Raises ValueError unless `model` is a Keras model or layer that is built and has weights.

    >>> check_built(keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)]))

    Args:
        model: The argument that a user gave as a model.
    """
    if not isinstance(model, keras.layers.Layer):
        raise ValueError(f"`model` must be a Keras model. Received: model of type {type(model).__name__}.")
    if not model.built or not model.weights:
        cure = "Call `model.build(input_shape)`, or the model on one batch, first."
        cure = "None of its layers has a weight to change." if model.built else cure
        raise ValueError(
            f"`model` must be built and have weights. Received: {type(model).__name__} `{model.name}`, "
            f"built={model.built}. {cure}"
        )


def stream_seed(seed: int, path: str) -> int:
    """Returns a seed for one variable, from the seed of the model and the variable's path.

    Variables of equal shape get different numbers, and a new layer does not change another layer's numbers.

    >>> stream_seed(7, "query/kernel") == stream_seed(7, "key/kernel")
    False

    Args:
        seed: Seed of the whole model.
        path: Path of the variable.

    Returns:
        A non-negative int below 2^31, the same in each process.
    """
    # Not `hash`, which Python salts anew in each process.
    digest = hashlib.sha256(f"{seed}/{path}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def constraint_of(variable: keras.Variable, *factors: float) -> str:
    """Returns the name of a variable's constraint, if the constraint would change the value at the next step.

    >>> dense = keras.layers.Dense(2, kernel_constraint="unit_norm", kernel_initializer="ones")
    >>> dense.build((None, 1))
    >>> constraint_of(dense.kernel), constraint_of(dense.kernel, 2.0)
    ('', 'UnitNorm')

    Args:
        variable: A Keras variable.
        factors: Factors to multiply the value by before the constraint is applied; each is tried. Without
            factors, the value is taken as it is.

    Returns:
        The name, or an empty string if the value stays or there is no constraint.
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
    """Returns a sentence for a report, if a constraint changes a variable at the first training step.

    Args:
        variable: A Keras variable.
    """
    name = constraint_of(variable)
    return f"its constraint {name} changes it at the first training step" if name else ""


def _size(value: Tensor) -> Tensor:
    return ops.sqrt(ops.sum(ops.square(value)))


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Starts the global random generators of Python, NumPy and Keras from a seed, and puts them back after.

    >>> with seeded(7):
    ...     first = random.random(), keras.random.uniform(())
    >>> with seeded(7):
    ...     again = random.random(), keras.random.uniform(())
    >>> first[0] == again[0], bool(first[1] == again[1])
    (True, True)

    Args:
        seed: A non-negative int below 2^31.
    """
    # `keras.utils.set_random_seed` sets these generators and more, but Keras has no way to put them back.
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
def fresh_names() -> Iterator[None]:
    """Names layers as a new process names them, and goes on with the old counts after.

    Names matter: `initialize` makes the random numbers of a weight from the seed and the path of the weight.

    >>> with fresh_names():
    ...     first = keras.layers.Dense(1).name
    >>> with fresh_names():
    ...     first, keras.layers.Dense(1).name
    ('dense', 'dense')
    """
    before = global_attribute(NAME_COUNTS)
    set_global_attribute(NAME_COUNTS, collections.defaultdict(int))
    try:
        yield
    finally:
        set_global_attribute(NAME_COUNTS, before)


@contextlib.contextmanager
def repeated_masks() -> Iterator[None]:
    """Makes random masks equal in each such block on torch, and puts torch's generator back after.

    On torch, Keras' dropout without a seed draws from torch's generator. On other backends it draws from a
    variable of the layer, and this does nothing.

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


def slotted(optimizer: keras.optimizers.Optimizer) -> list[Variable]:
    """Returns the variables that a built optimizer has slots for, in the order of the slots.

    These are the variables that were trainable when the optimizer was built. A layer may have been frozen or
    unfrozen since.

    >>> first, second = keras.Variable([1.0]), keras.Variable([2.0])
    >>> optimizer = keras.optimizers.Adam()
    >>> optimizer.build([first, second])
    >>> [variable is second for variable in slotted(optimizer)]
    [False, True]

    Args:
        optimizer: A built Keras optimizer.
    """
    return optimized_variables(optimizer)


@contextlib.contextmanager
def transaction() -> Iterator[Callable[..., None]]:
    """Yields a function that updates variables, and undoes all updates if the block raises an exception.

    `update(variable, function)` assigns `function(value)` to the variable. Ctrl-C is an exception, too. With
    `update(variable, function, fresh=True)` the caller promises that the function returns a new tensor of the
    variable's shape and dtype, which nothing else holds: torch then takes the tensor without a copy.

    Old values stay in memory until the block ends, without a copy. `assign` on TensorFlow and JAX puts a new
    buffer in place of the old one, and the old buffer is kept. On torch `assign` would write into the old
    buffer; the variable is therefore given a new buffer first.

    >>> variable = keras.Variable([1.0])
    >>> with contextlib.suppress(KeyError), transaction() as update:
    ...     update(variable, lambda value: 2.0 * value)
    ...     raise KeyError
    >>> print(ops.convert_to_numpy(variable))
    [1.]
    """
    saved: dict[int, tuple[Variable, Tensor]] = {}
    backend = keras.backend.backend()

    def update(variable: Variable, function: Callable[[Tensor], Tensor], fresh: bool = False) -> None:
        if id(variable) in saved:  # the value before the first update counts
            variable.assign(function(variable.value))
            return
        old = variable.value
        if backend == "tensorflow":
            old = ops.copy(old)  # a variable's value is a handle; its copy is the buffer behind it
        elif backend == "torch":
            old = old.data
        new = function(old)
        saved[id(variable)] = (variable, old)
        if backend == "torch":
            # From here on the variable has another buffer, and the old one can be put back to the bit.
            variable.value.data = new.detach() if fresh else old.new_empty(old.shape)
        if backend != "torch" or not fresh:
            variable.assign(new)

    try:
        yield update
    except BaseException:  # KeyboardInterrupt, too
        for variable, old in saved.values():
            if backend == "torch":
                variable.value.data = old
            else:
                variable.assign(old)
        raise
