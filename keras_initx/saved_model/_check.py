"""Whether a SavedModel, loaded in a process of its own, answers as the model does."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_initx._keras_internals import flatten_layers
from keras_initx.saved_model._differences import apart, scale_of, tolerance_of
from keras_initx.saved_model._endpoints import Endpoint, reason
from keras_initx.saved_model._names import NotDenseError, named
from keras_initx.saved_model._states import States

Run = Sequence[tuple[Endpoint, list[Any]]]


def answer(
    model: Any, run: Run, states: States, given: bool
) -> tuple[list[dict[str, np.ndarray]], list[str]]:
    """Runs signatures one after another without the SavedModel, the default as `model.predict`.

    Args:
        model: The model that is exported.
        run: Signatures with their rows.
        states: Those to put back whatever happens.
        given: Whether a user gave the rows.

    Returns:
        The answers, and the names of the variables that the runs had changed.

    Raises:
        ValueError: If the model cannot be called on them.
    """
    changed: list[str] = []
    try:
        with _exact():
            return [_answer(model, endpoint, rows, given) for endpoint, rows in run], changed
    finally:
        changed += states.restore()


def _answer(model: Any, endpoint: Endpoint, rows: list[Any], given: bool) -> dict[str, np.ndarray]:
    try:
        return _predict(model, endpoint, rows) if endpoint.name == "serve" else endpoint.run(rows)
    except NotDenseError:
        raise
    except Exception as error:  # whatever a layer raises
        rows_are = "the given rows" if given else "rows that were drawn, for none were given"
        cure = "" if given else " If these rows are the reason, pass a few real ones."
        raise ValueError(
            f"`warmup` must hold rows that the signature `{endpoint.key}` can be called on. Received: "
            f"{rows_are}, on which it raised {reason(error)}{cure}"
        ) from error


def _predict(model: Any, endpoint: Endpoint, rows: list[Any]) -> dict[str, np.ndarray]:
    """Answers by Keras' own way to predict one batch, in a graph that is not the exported one."""
    inputs, *more = endpoint.pack(rows)
    if more:  # `model.predict` takes one structure
        return endpoint.run(rows)
    if type(model).predict is not keras.Model.predict:
        # One that takes other inputs than the model's, such as text before its tokenizer, tells nothing.
        with contextlib.suppress(Exception):
            return _numpy(model.predict(inputs, verbose=0), endpoint.names)
    before = model.predict_function, model.jit_compile
    logger = logging.getLogger("tensorflow")  # which warns of a function that is traced anew
    level = logger.level
    logger.setLevel(logging.ERROR)
    model.predict_function, model.jit_compile = None, False  # to compile would take longer than all else
    try:
        return _numpy(keras.Model.predict_on_batch(model, inputs), endpoint.names)
    finally:
        model.predict_function, model.jit_compile = before
        logger.setLevel(level)


def _numpy(outputs: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
    return {name: leaf.numpy() for name, leaf in named(outputs, names).items()}


@contextlib.contextmanager
def _exact() -> Iterator[None]:
    """Has a GPU multiply in float32 as the other process, which has none, does."""
    import tensorflow as tf

    config = tf.config.experimental
    before = config.tensor_float_32_execution_enabled()
    config.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        config.enable_tensor_float_32_execution(before)


def compare(
    model: Any,
    run: Run,
    expected: Sequence[dict[str, np.ndarray]],
    received: Sequence[dict[str, np.ndarray]],
    states: States,
) -> float | None:
    """Returns the largest difference, None if the model itself answers at random, or raises ValueError.

    Args:
        model: The model that is exported.
        run: Signatures with their rows.
        expected: What the model answered to each.
        received: What the SavedModel answered to each.
        states: Those from which the model answered.
    """
    worst, problem = _worst(model, run, expected, received)
    if not problem:
        return worst
    # From the same states, a model with randomness of TensorFlow's own answers otherwise each time.
    again, _ = answer(model, run, states, given=True)
    if _worst(model, run, expected, again)[1]:
        shapes = [
            [{name: _kind(value) for name, value in one.items()} for one in of] for of in (expected, received)
        ]
        if shapes[0] == shapes[1]:
            return None
    own = type(model).predict is not keras.Model.predict
    cure = " What `predict` of its class adds belongs into `predict_step`, which is exported." if own else ""
    raise ValueError(f"`model` must answer as before once it is exported. Received: {problem}.{cure}")


def _worst(model: Any, run: Any, expected: Any, received: Any) -> tuple[float, str]:
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
            if not difference <= limit:
                problem = f"{where} differs by {difference:.3g} of its largest entry, more than {limit:g}"
    return worst, problem


def _kind(value: np.ndarray) -> tuple[str, tuple[int, ...]]:
    return np.asarray(value).dtype.name, np.shape(value)
