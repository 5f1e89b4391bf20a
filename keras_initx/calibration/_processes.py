"""Jobs of several processes that train one model: all measure on the rows of all and get equal weights.

Keras 3 trains in several processes on JAX, after `keras.distribution.initialize`. Every process runs the
whole program with its own rows. `calibrate` gathers the rows of all processes at its start, and each process
then runs the whole measurement on all rows. So the measurement itself does not know of processes.

    process 0    take rows ──┐            ┌── measure, scale ──┐
    process 1    take rows ──┼── union ───┼── measure, scale ──┼── together: the weights of process 0
    process 2    take rows ──┘            └── measure, scale ──┘

A process that fails must not leave the others waiting in an exchange. So `_same_outcome` sends an error in
place of a value, and the error is raised in every process.
"""

import contextlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_initx._types import Arrays, Batch, Model
from keras_initx.calibration._settings import Settings
from keras_initx.initializers import Law

__all__ = ["check_processes", "together", "union"]

# Laws that see the rows of one process alone.
_APART = ("adapter", "head", "model")


def check_processes(model: Model, settings: Settings, laws: Sequence[Law]) -> None:
    """Raises ValueError if several processes could end with different weights, or could not train at all.

    Args:
        model: A built Keras model.
        settings: The settings of the call.
        laws: The laws of the kernels.
    """
    draws = settings.redraw or any(law.draws_from_inputs for law in laws)
    if draws and settings.seed is None and _several():
        raise ValueError(
            "`seed` must be an int where several processes draw weights, so that all draw the same. "
            "Received: seed=None. Give the same seed in each process."
        )
    if _several() and (found := [type(law).__name__ for law in laws if law.scope in _APART]):
        raise ValueError(
            "`initializer` must be a law of single layers where several processes train one model. "
            f"Received: {found[0]}. Calibrate and save the model in one process and load it in each."
        )
    strategy = getattr(model.weights[0].value, "distribute_strategy", None)
    resolver = getattr(strategy, "cluster_resolver", None)
    workers = resolver.cluster_spec().as_dict().get("worker", ()) if resolver else ()
    if len(workers) > 1:
        raise ValueError(
            "`model` must not be built under a strategy of several workers, which Keras 3 cannot train on. "
            f"Received: {type(strategy).__name__} of {len(workers)} workers. Calibrate and save the model in "
            "one process and load it in each, or use JAX with `keras.distribution.initialize`."
        )


def union(take: Callable[[], tuple[Batch, Arrays | None]]) -> tuple[Batch, Arrays | None]:
    """Returns the rows of all processes, in the order of the processes; an error in one is raised in all.

    Args:
        take: Returns the rows of this process, and their targets or None, as NumPy arrays.

    Returns:
        One batch and its targets, the same in each process. With one process, the result of `take`.
    """
    if not _several():
        return take()
    with _same_outcome() as parts:
        batch, targets = take()
        rows = len(tree.flatten(batch)[0])
        cut = tree.map_structure(lambda leaf: None if leaf is None else leaf[:rows], targets)
        parts.append((batch, cut))
    return tree.map_structure(lambda *leaves: None if leaves[0] is None else np.concatenate(leaves), *parts)


@contextlib.contextmanager
def together(model: Model) -> Iterator[None]:
    """Lets a block change the weights to equal values in all processes; an error in one is raised in all.

    Args:
        model: The model.
    """
    if not _several():
        yield
        return
    with _same_outcome():
        yield
    # Equal rows give equal weights, but different machines may round differently.
    from jax.experimental import multihost_utils

    shared = [variable for variable in model.weights if variable.value.is_fully_replicated]
    values = multihost_utils.broadcast_one_to_all([np.asarray(variable.value) for variable in shared])
    for variable, value in zip(shared, values, strict=True):
        variable.assign(np.asarray(value))


def _several() -> bool:
    if keras.backend.backend() != "jax":
        return False
    import jax

    return jax.process_count() > 1


@contextlib.contextmanager
def _same_outcome() -> Iterator[list[Any]]:
    """Yields a list for the values of this process. After the block it holds the values of all processes."""
    own: list[Any] = []
    try:
        yield own
    except BaseException as error:
        _exchange(f"{type(error).__name__}: {error}")
        raise
    outcomes = _exchange(own)
    for process, outcome in enumerate(outcomes):
        if isinstance(outcome, str):
            raise ValueError(
                "`calibrate` must succeed in every process. "
                f"Received: an error in process {process} of {len(outcomes)}, {outcome}"
            )
    own[:] = [value for outcome in outcomes for value in outcome]


def _exchange(value: object) -> list[Any]:
    """Returns the values of all processes; each process calls this with its own value."""
    # JAX gathers arrays of one shape and numeric dtype. Bytes, padded to one length, carry anything else.
    from jax.experimental import multihost_utils

    sent = np.frombuffer(pickle.dumps(value), "uint8")
    sizes = np.asarray(multihost_utils.process_allgather(np.asarray(sent.size, "int32"))).reshape(-1)
    padded = np.zeros(sizes.max(), "uint8")
    padded[: sent.size] = sent
    found = np.asarray(multihost_utils.process_allgather(padded))
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(found, sizes, strict=True)]
