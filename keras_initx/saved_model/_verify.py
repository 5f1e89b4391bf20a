"""The checks of a version that is written and not yet visible: they run it in another process."""

import contextlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
from keras import tree

from _initx_saved_model import Proof
from keras_initx._keras_internals import flatten_layers
from keras_initx._types import Model
from keras_initx.saved_model._check import Answers, Run, compare
from keras_initx.saved_model._differences import tolerance_of
from keras_initx.saved_model._endpoints import Endpoint
from keras_initx.saved_model._foreign import explain
from keras_initx.saved_model._process import Ask, WorkerError, opened
from keras_initx.saved_model._row_wise import prove
from keras_initx.saved_model._rows import Hints
from keras_initx.saved_model._states import States
from keras_initx.saved_model._warmup import read_warmup

# Signatures, each with the rows to run it on. None for a signature for which no rows are known.
Endpoints: TypeAlias = Sequence[tuple[Endpoint, list[np.ndarray] | None]]


@contextlib.contextmanager
def in_another_process(
    model: Model, endpoints: Endpoints, saved: pathlib.Path, folder: pathlib.Path
) -> Iterator[Ask]:
    """Yields an `Ask` for the SavedModel in the other process, and makes ValueErrors of its errors.

    Args:
        model: The model that is exported.
        endpoints: Its signatures, which are traced.
        saved: The version's folder.
        folder: A folder for the files with requests and answers.

    Raises:
        ValueError: If the SavedModel cannot be loaded there, or a request fails.
    """
    try:
        with opened(saved, folder) as ask:
            yield ask
    except WorkerError as error:
        told = explain(model, [endpoint for endpoint, _ in endpoints], str(error))
        raise ValueError(
            f"`model` must run as a SavedModel in another process. Received: `{model.name}`: {told}"
        ) from error


def verify(
    model: Model, ask: Ask, saved: pathlib.Path, run: Run, expected: Answers, states: States
) -> float | None:
    """Runs the SavedModel and its warm-up requests as a server does, and compares it with the model.

    Args:
        model: The model that is exported.
        ask: Runs requests in the other process.
        saved: The version's folder.
        run: Signatures with their rows.
        expected: The answers of the model.
        states: The states from which the model answered.

    Returns:
        The largest difference, as `compare` returns it.
    """
    received = ask([(endpoint.key, endpoint.feeds(rows)) for endpoint, rows in run])
    # TensorFlow Serving refuses a version if one warm-up request fails.
    for found, _ in (*received, *ask(list(read_warmup(saved)))):
        if isinstance(found, str):
            raise WorkerError(found)
    return compare(model, run, expected, [found for found, _ in received], states)


def prove_all(model: Model, ask: Ask, endpoints: Endpoints, hints: Hints) -> dict[str, Proof | str]:
    """Returns for each signature the proof that it is row-wise, or the reason why there is none.

    Args:
        model: The model that is exported.
        ask: Runs requests in the other process.
        endpoints: Its signatures, the default first.
        hints: The hints about the model's inputs, from `hints_of`.
    """
    main = tree.flatten(endpoints[0][0].specs)
    tolerance = tolerance_of(*flatten_layers(model))
    found: dict[str, Proof | str] = {}
    for endpoint, rows in endpoints:
        specs = tree.flatten(endpoint.specs)
        own = hints if specs == main else ()  # hints are about the model's inputs
        found[endpoint.key] = (
            "no rows are known that it takes"
            if rows is None
            else prove(ask, endpoint.key, specs, rows, own, tolerance)
        )
    # Both names are of one signature, so one proof is enough.
    return found | {"serve": found["serving_default"]}
