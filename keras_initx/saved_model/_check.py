"""The check of an export: does the SavedModel, in another process, answer as the model does?"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import keras
import numpy as np

from keras_initx._keras_internals import flatten_layers
from keras_initx._types import Model
from keras_initx.saved_model._differences import apart, scale_of, tolerance_of
from keras_initx.saved_model._endpoints import Endpoint, reason
from keras_initx.saved_model._names import NotDenseError, Outputs, named
from keras_initx.saved_model._states import States

# Signatures, each with the rows to run it on.
Run: TypeAlias = Sequence[tuple[Endpoint, list[np.ndarray]]]
# For each signature its outputs by name.
Answers: TypeAlias = Sequence[dict[str, np.ndarray]]


def answer(
    model: Model, run: Run, states: States, given: bool
) -> tuple[list[dict[str, np.ndarray]], list[str]]:
    """Runs signatures one after another in this process. The default signature runs as `model.predict`.

    Args:
        model: The model that is exported.
        run: Signatures with their rows.
        states: The states to put back at the end, also after an error.
        given: Whether a user gave the rows.

    Returns:
        The answers, and the names of the variables that the runs had changed.

    Raises:
        ValueError: If the model cannot be called on the rows.
    """
    changed: list[str] = []
    try:
        # `finally` fills the list `changed` after this line, and the caller gets the same list.
        with _exact():
            return [_answer(model, endpoint, rows, given) for endpoint, rows in run], changed
    finally:
        changed += states.restore()


def _answer(model: Model, endpoint: Endpoint, rows: list[np.ndarray], given: bool) -> dict[str, np.ndarray]:
    """Answers one signature; an error becomes a ValueError that tells whether the rows may be the reason."""
    try:
        return _predict(model, endpoint, rows) if endpoint.name == "serve" else endpoint.run(rows)
    except NotDenseError:
        raise
    except Exception as error:  # a layer may raise anything
        rows_are = "the given rows" if given else "rows that were drawn, because none were given"
        cure = "Pass other rows" if given else "If these rows are the reason, pass a few real ones"
        raise ValueError(
            f"`warmup` must hold rows that the signature `{endpoint.key}` can be called on. Received: "
            f"{rows_are}, on which it raised {reason(error).rstrip('.')}. {cure}, or correct the layer."
        ) from error


def _predict(model: Model, endpoint: Endpoint, rows: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Answers as Keras predicts one batch, in another graph than the exported one.

    If both used one graph, a mistake in the graph would not show as a difference.
    """
    inputs, *more = endpoint.pack(rows)
    if more:  # `model.predict` takes one structure, and cannot call a model of several arguments
        return endpoint.run(rows)
    if type(model).predict is not keras.Model.predict:
        # A `predict` of the user's may take other inputs than the model, such as text before its tokenizer.
        # Then it fails here, and nothing can be compared with it.
        with contextlib.suppress(Exception):
            return _numpy(model.predict(inputs, verbose=0), endpoint.names)
    before = model.predict_function, model.jit_compile
    # TensorFlow warns of functions that are traced again and again, as many exports in a row do.
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    # The user's own predict function stays untouched. XLA would compile longer than the export takes.
    model.predict_function, model.jit_compile = None, False
    try:
        return _numpy(keras.Model.predict_on_batch(model, inputs), endpoint.names)
    finally:
        model.predict_function, model.jit_compile = before
        logger.setLevel(level)


def _numpy(outputs: Outputs, names: Sequence[str]) -> dict[str, np.ndarray]:
    return {name: leaf.numpy() for name, leaf in named(outputs, names).items()}


@contextlib.contextmanager
def _exact() -> Iterator[None]:
    """Makes a GPU multiply in full float32, as the other process does on the CPU.

    TensorFloat-32 keeps 10 bits of the mantissa, and would differ by more than the tolerance.
    """
    import tensorflow as tf

    config = tf.config.experimental
    before = config.tensor_float_32_execution_enabled()
    config.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        config.enable_tensor_float_32_execution(before)


def compare(model: Model, run: Run, expected: Answers, received: Answers, states: States) -> float | None:
    """Compares the answers of the SavedModel with the answers of the model.

    Args:
        model: The model that is exported.
        run: Signatures with their rows.
        expected: The answers of the model.
        received: The answers of the SavedModel.
        states: The states from which the model answered.

    Returns:
        The largest difference, as a part of the largest entry of the output. None if the model itself answers
        at random; then only shapes and dtypes are compared.

    Raises:
        ValueError: If a difference is larger than the tolerance.
    """
    worst, problem = _worst(model, run, expected, received)
    if not problem:
        return worst
    # Keras' seeds are variables, and the states hold them: a dropout from them repeats its draw. TensorFlow's
    # own generator is not a variable. A model that uses it answers differently from the same states too.
    again, _ = answer(model, run, states, given=True)
    if _worst(model, run, expected, again)[1]:
        shapes = [
            [{name: _kind(value) for name, value in one.items()} for one in of] for of in (expected, received)
        ]
        if shapes[0] == shapes[1]:
            return None
    own = type(model).predict is not keras.Model.predict
    cure = (
        "Move the changes that `predict` of its class makes into `predict_step`, which is exported."
        if own
        else "Look for a layer that reads Python state: a graph keeps the value that it had at the export."
    )
    raise ValueError(f"`model` must answer as before once it is exported. Received: {problem}. {cure}")


def _worst(model: Model, run: Run, expected: Answers, received: Answers) -> tuple[float, str]:
    """Returns the largest difference, and a sentence about one that is too large, or an empty string."""
    worst, problem = 0.0, ""
    tolerance = tolerance_of(*flatten_layers(model))
    for (endpoint, _), want, got in zip(run, expected, received, strict=True):
        for name in sorted({*want, *got}):
            where = f"output `{name}` of the signature `{endpoint.key}`"
            if name not in want or name not in got or _kind(want[name]) != _kind(got[name]):
                kinds = [_kind(side[name]) if name in side else None for side in (want, got)]
                return np.inf, f"{where} was {kinds[0]} and is {kinds[1]}"
            difference = apart(want[name], got[name], scale_of(want[name]))
            worst, limit = max(worst, difference), tolerance(want[name].dtype)
            if not difference <= limit:  # and not `>`, which NaN would pass
                problem = f"{where} differs by {difference:.3g} of its largest entry, more than {limit:g}"
    return worst, problem


def _kind(value: np.ndarray) -> tuple[str, tuple[int, ...]]:
    return np.asarray(value).dtype.name, np.shape(value)
