"""A rehearsal: everything that trials do is tried once, on other models, before the first trial starts."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import tree

from keras_initx._keras_optimizers import learning_rate_of
from keras_initx._types import Arrays, Data, Model
from keras_initx.checks import first_line
from keras_initx.data import split_weights, take_pair
from keras_initx.experiments._batches import is_arrays, rows_of
from keras_initx.experiments._problem import Problem, build_model, fixed_rows, rows_to_try
from keras_initx.experiments._reading import is_read_once, varies
from keras_initx.experiments._reset import Drawn, check_reset

__all__ = ["Checked", "check"]

_VARIES = (
    "`train` has other batches each time it is read, so the trials of a seed do not see the same batches. "
    "Pass a function that makes the data; it is called for each trial, with the generators at its seed."
)


class Checked(NamedTuple):
    """The findings about a problem.

    Attributes:
        model: A model that `build` returned.
        batches: Number of batches of the data that are an iterator, by name.
        notes: Notes on all trials of an initializer, by label.
        drawn: How much of the model an initializer draws, by label.
    """

    model: Model
    batches: dict[str, int]
    notes: dict[str, tuple[str, ...]]
    drawn: dict[str, Drawn]


def check(problem: Problem, rates: Sequence[float | None]) -> Checked:
    """Tries everything that trials do, without training.

    Args:
        problem: The problem.
        rates: The learning rates; None for the learning rate of the compiled model.

    Raises:
        ValueError: If the model is not compiled, its learning rate cannot be set, the data do not fit it or
            cannot be read again, it has no such metric, or an initializer does not fit it or leaves trained
            kernels.
    """
    model = build_model(problem, 0)
    _check_model(model, rates)
    names = [name for name in ("train", "validation", "test") if getattr(problem, name) is not None]
    batches: dict[str, int] = {}
    varied = False
    for name in names:
        data = problem.data(name)
        if is_read_once(data):
            batches[name] = _count(problem, data, name)
            data = problem.data(name)
        _try(problem, model, data, name)
        if name == "train" and not is_arrays(data):
            varied = varies(lambda: problem.open("train", 0))
    reset = check_reset(problem, model)
    notes = {
        label: (*([_VARIES] if varied else []), *filter(None, [reset.notes.get(label)]))
        for label in problem.initializers
    }
    return Checked(model, batches, notes, reset.drawn)


def _check_model(model: object, rates: Sequence[float | None]) -> None:
    if not isinstance(model, keras.Model) or not getattr(model, "compiled", False):
        received = f"{type(model).__name__}, compiled={getattr(model, 'compiled', False)}"
        raise ValueError(
            f"`build_fn` must return a compiled Keras model. Received: {received}. Call `model.compile(...)` "
            "in it."
        )
    schedule = isinstance(learning_rate_of(model.optimizer), keras.optimizers.schedules.LearningRateSchedule)
    if schedule and rates != [None]:
        raise ValueError(
            "`learning_rates` needs an optimizer with a constant learning rate. Received: a model with a "
            "schedule. Compile with a number, or leave `learning_rates` out."
        )


def _count(problem: Problem, data: Iterable[Any], name: str) -> int:
    """Returns the number of batches of an iterator, which it reads to the end."""
    if data is problem.data(name) and iter(data) is data:
        raise ValueError(
            f"`{name}` must be data that each trial can read from the start. Received: a function that "
            f"returns the same {type(data).__name__} each time. Let it make a new iterator in each call."
        )
    return sum(1 for _ in data)


def _try(problem: Problem, model: Model, data: Data, name: str) -> None:
    """Evaluates the model on a few rows."""
    try:
        x, y = take_pair(model, data, rows_to_try(model, 2))
    except ValueError as error:
        raise ValueError(f"`{name}`: {error}") from error
    if y is None:
        raise ValueError(f"`{name}` must have targets. Received: {type(data).__name__}. Pass a pair (x, y).")
    rows = rows_of(x)
    y, weights = split_weights(tree.map_structure(lambda leaf: leaf[:rows], y))
    try:
        logs = model.test_on_batch(x, y, weights, return_dict=True)
    except Exception as error:
        raise ValueError(
            f"`{name}` must be data that the model can be evaluated on. Received: {first_line(error)}"
        ) from error
    if problem.metric not in logs:
        raise ValueError(
            f"`metric` must be one of {sorted(logs)}. Received: metric={problem.metric!r}. Name it in "
            "`compile(metrics=...)`."
        )
    if size := np.size(logs[problem.metric]) if np.ndim(logs[problem.metric]) else 0:
        raise ValueError(
            f"`metric` must be one number. Received: metric={problem.metric!r}, which is {size} numbers. "
            "Compile with its mean, as `keras.metrics.F1Score(average='macro')`."
        )
    if is_arrays(data) and fixed_rows(model):
        _try_sizes(problem, model, data, name)


def _try_sizes(problem: Problem, model: Model, data: tuple[Arrays, ...], name: str) -> None:
    """Evaluates a model that was built for batches of one size on the sizes that the trials will use."""
    size, rows = fixed_rows(model), rows_of(data)
    for given in sorted({min(problem.batch_size, rows), rows % problem.batch_size} - {0, size}):
        try:
            model.test_on_batch(*tree.map_structure(lambda leaf, given=given: leaf[:given], data))
        except Exception as error:
            raise ValueError(
                f"`batch_size` must be {size}, which the model was built for, and `{name}` must hold a "
                f"multiple of {size} rows. Received: batch_size={problem.batch_size}, {rows} rows; a batch "
                f"of {given} raised {type(error).__name__}. Pass batch_size={size}, and the first "
                f"{rows - rows % (size or 1)} rows."
            ) from error
