"""Whether a SavedModel, loaded as TensorFlow Serving loads it, answers as the model does."""

import contextlib
import logging
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_initx.saved_model._endpoints import Endpoint, reason
from keras_initx.walk import input_specs

# Greatest difference as a part of an output's largest entry: graphs fuse and reorder what eager code rounds.
_TOLERANCES = {"float64": 1e-8, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
_ROWS = 2
_OPEN = 32  # how long an open axis is drawn


def draw_rows(endpoint: Endpoint, model: Any) -> list[np.ndarray]:
    """Draws two rows for a signature: unit-Gaussian floats, integers of the vocabulary or ones, letters.

    Args:
        endpoint: The signature.
        model: Its model, from which vocabularies and open axes are read.
    """
    rng = np.random.default_rng(0)
    specs = tree.flatten(endpoint.specs)
    hints = input_specs(model) if hasattr(model, "inputs") else []
    size = fixed_batch(model) or _ROWS
    rows = []
    for number, spec in enumerate(specs):
        shape, limit = hints[number] if number < len(hints) else ((), None)
        shape = shape if len(shape) == len(spec.shape) else (None,) * len(spec.shape)
        lengths = [own or given or _OPEN for own, given in zip(spec.shape, shape, strict=True)][1:]
        if spec.dtype.is_floating:
            rows.append(rng.standard_normal((size, *lengths)).astype(spec.dtype.as_numpy_dtype))
        elif spec.dtype.name == "string":
            rows.append(np.full((size, *lengths), "a b", object))
        else:
            drawn = rng.integers(0, limit or 1, (size, *lengths)) if limit else np.ones((size, *lengths))
            rows.append(drawn.astype(spec.dtype.as_numpy_dtype))
    return rows


def fixed_batch(model: Any) -> int | None:
    """Returns the one batch size that a model was built for, or None.

    Args:
        model: A built model.
    """
    shapes = [tensor.shape for tensor in getattr(model, "inputs", None) or ()]
    return next((shape[0] for shape in shapes if shape and shape[0]), None)


def answer(model: Any, run: Sequence[tuple[Endpoint, list[Any]]]) -> list[dict[str, np.ndarray]]:
    """Runs signatures one after another without the SavedModel, and leaves the model's states as they were.

    Args:
        model: The model that is exported.
        run: Signatures with their rows.

    Raises:
        ValueError: If the model cannot be called on them.
    """
    kept = [(variable, keras.ops.convert_to_numpy(variable)) for variable in model.non_trainable_variables]
    try:
        return [_run(endpoint, rows) for endpoint, rows in run]
    finally:
        for variable, value in kept:
            variable.assign(value)


def _run(endpoint: Endpoint, rows: list[Any]) -> dict[str, np.ndarray]:
    try:
        return endpoint.run(rows)
    except Exception as error:  # whatever a layer raises
        raise ValueError(
            f"`warmup` must hold rows that the signature `{endpoint.key}` can be called on; without it "
            f"they are drawn. Received: rows on which it raised {reason(error)} "
            "Pass a few real ones."
        ) from error


@contextlib.contextmanager
def load(folder: pathlib.Path) -> Iterator[Callable[[str, dict[str, Any]], dict[str, np.ndarray]]]:
    """Loads a SavedModel in a session, as TensorFlow Serving does; yields a function that runs a signature.

    Args:
        folder: The version's folder.
    """
    import tensorflow as tf

    logger = logging.getLogger("tensorflow")  # which calls the loader of servers deprecated
    level = logger.level
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        try:
            logger.setLevel(logging.ERROR)
            meta = tf.compat.v1.saved_model.load(session, [tf.saved_model.SERVING], str(folder))
        finally:
            logger.setLevel(level)

        def call(signature: str, feeds: dict[str, Any]) -> dict[str, np.ndarray]:
            definition = meta.signature_def[signature]
            named = {definition.inputs[name].name: value for name, value in feeds.items()}
            return session.run({name: info.name for name, info in definition.outputs.items()}, named)

        yield call


def compare(
    model: Any,
    run: Sequence[tuple[Endpoint, list[Any]]],
    expected: Sequence[dict[str, np.ndarray]],
    received: Sequence[dict[str, np.ndarray]],
) -> float | None:
    """Returns the largest difference, None if the model itself answers at random, or raises ValueError.

    Args:
        model: The model that is exported.
        run: Signatures with their rows.
        expected: What the model answered to each.
        received: What the SavedModel answered to each.
    """
    worst, problem = _worst(model, run, expected, received)
    if not problem:
        return worst
    # From the same states, a model with randomness of TensorFlow's own answers otherwise each time.
    if _worst(model, run, expected, answer(model, run))[1]:
        shapes = [
            [{name: _kind(value) for name, value in one.items()} for one in of] for of in (expected, received)
        ]
        if shapes[0] == shapes[1]:
            return None
    raise ValueError(f"`model` must answer as before once it is exported. Received: {problem}.")


def _worst(model: Any, run: Any, expected: Any, received: Any) -> tuple[float, str]:
    worst, problem = 0.0, ""
    for (endpoint, _), want, got in zip(run, expected, received, strict=True):
        for name in sorted({*want, *got}):
            where = f"output `{name}` of the signature `{endpoint.key}`"
            if name not in want or name not in got or _kind(want[name]) != _kind(got[name]):
                kinds = [_kind(side[name]) if name in side else None for side in (want, got)]
                return np.inf, f"{where} was {kinds[0]} and is {kinds[1]}"
            difference = _difference(want[name], got[name])
            worst, limit = max(worst, difference), _tolerance(model, want[name].dtype)
            if not difference <= limit:
                problem = f"{where} differs by {difference:.3g} of its largest entry, more than {limit:g}"
    return worst, problem


def _kind(value: np.ndarray) -> tuple[str, tuple[int, ...]]:
    return np.asarray(value).dtype.name, np.shape(value)


def _difference(want: np.ndarray, got: np.ndarray) -> float:
    """The largest difference as a part of the largest entry; Inf where NaN, integers or strings differ."""
    if want.dtype.kind not in "fc":
        return 0.0 if np.array_equal(want, got) else np.inf
    finite = np.isfinite(want)
    if not np.array_equal(want[~finite], got[~finite], equal_nan=True) or not np.isfinite(got[finite]).all():
        return np.inf
    if not finite.any():
        return 0.0
    size = float(np.abs(want[finite]).max())
    return float(np.abs(want[finite] - got[finite]).max()) / (size or 1.0)


def _tolerance(model: Any, dtype: np.dtype) -> float:
    """That of the coarsest dtype on the way to an output."""
    on_the_way = {dtype.name, *(layer.compute_dtype for layer in model._flatten_layers())}
    return 0.0 if dtype.kind not in "fc" else max(_TOLERANCES.get(name, 0.0) for name in on_the_way)
