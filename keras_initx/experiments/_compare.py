"""The verb `compare`: a model is trained from several initializers, over seeds and learning rates."""

import dataclasses
import math
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import tree

from keras_initx._types import Model
from keras_initx.checks import check_count
from keras_initx.data import check_finite
from keras_initx.experiments._chance import best_constant
from keras_initx.experiments._check import check
from keras_initx.experiments._comparison import Comparison
from keras_initx.experiments._identity import identify
from keras_initx.experiments._metrics import Logged, check_mode, fact_of, is_less_better, logged_by
from keras_initx.experiments._problem import AnyInitializer, FileModel, Problem, label_initializers
from keras_initx.experiments._ray import Ray
from keras_initx.experiments._reading import Source, as_source
from keras_initx.experiments._reset import sentences_of_drawn
from keras_initx.experiments._sequential import Runner, Sequential
from keras_initx.experiments._store import Store
from keras_initx.experiments._summarize import summarize
from keras_initx.experiments._trial import Trial, TrialResult, make_trials
from keras_initx.experiments._vectorized import Vectorized

__all__ = ["compare"]

RUNNERS: dict[str, Callable[[], Runner]] = {"ray": Ray, "sequential": Sequential, "vectorized": Vectorized}


def compare(
    build_fn: Callable[[], Model] | str | os.PathLike[str],
    initializers: Sequence[AnyInitializer] | Mapping[str, AnyInitializer],
    train: Source,
    validation: Source,
    *,
    seeds: int | Sequence[int] = 5,
    learning_rates: Sequence[float] | None = None,
    epochs: int = 1,
    metric: str = "loss",
    mode: Literal["auto", "max", "min"] = "auto",
    target: float | None = None,
    test: Source | None = None,
    batch_size: int = 32,
    runner: Literal["ray", "sequential", "vectorized"] | Runner = "sequential",
    store: str | os.PathLike[str] | None = None,
    callbacks: Callable[[Trial], list[keras.callbacks.Callback]] | None = None,
) -> Comparison:
    """Trains a model from each initializer, over seeds and learning rates, and says which one is best.

    A trial draws all weights by its initializer. If the initializer, a strategy's plan or a layer names a law
    that needs data, the trial calibrates the weights on training data. Then it diagnoses the signal and
    trains. All trials of a seed see the same batches in the same order, on every backend and with every
    runner. A trial that diverges or raises an exception is counted, and not averaged. Exceptions from these
    rules are notes in the results. Before the first trial, stderr says how many kernels each initializer
    draws. A model whose trials would start from trained kernels is refused.

    The learning rate of each initializer has the best mean on the validation data, over the seeds that ended
    well at all rates. A rate at which half of the seeds diverge is chosen only if there is no other. The
    figures at the chosen rate come from the test data if there are test data. Means have 95 % intervals that
    stay within the possible values of the metric.

    Each pair of initializers has Student's paired test on the seeds on which both ended well, and Fisher's
    exact test of how many seeds did not diverge. Holm's procedure corrects all tests. The recommended
    initializer has the best mean and beats all others. Divergence speaks against an initializer. An
    exception, such as memory that ran out, does not.

    The trials set the global random state of Python, NumPy and the backend.

    >>> def build():
    ...     model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(1)])
    ...     model.compile(keras.optimizers.SGD(0.1), "mse")
    ...     return model
    >>> x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    >>> data = (x, x.sum(axis=1))
    >>> quiet = Sequential(progress=False)
    >>> found = compare(build, ["initx>HeScaled", "zeros"], data, data, seeds=3, runner=quiet)
    >>> sorted(row.initializer for row in found.rows), len(found.results), found.reported
    (['initx>HeScaled', 'zeros'], 6, 'validation')

    Args:
        build_fn: A function that returns a fresh compiled model; or the path of a `.keras` file of a compiled
            model.
        initializers: Names, configs or objects of initializers and strategies, and None for the model as it
            is built. A list, or a dict by label.
        train: Training data: a pair (x, y) of arrays, or a triple with sample weights; or anything else that
            `fit` takes; or a function without arguments that returns the data. The function is called with
            the random generators at the seed of the trial. If it returns an iterator, it is called for each
            epoch.
        validation: Validation data in the same forms. Learning rates are chosen on them.
        seeds: Number of seeds (0, 1, 2, ...), or the seeds themselves.
        learning_rates: Learning rates to try; None for the learning rate of the compiled model.
        epochs: Epochs of each trial.
        metric: Name of a metric that the model was compiled with, or `"loss"`.
        mode: `"min"` if less of the metric is better, `"max"` if more is better. `"auto"` asks Keras, which
            knows the direction of its own metrics, but not of your functions and classes.
        target: A value of the metric. The rows then tell how long it takes to reach the value.
        test: Test data in the same forms, to report on. Nothing is chosen on them. None to report on the
            validation data.
        batch_size: Rows of a batch, if the data are arrays.
        runner: `"sequential"`, `"ray"`, `"vectorized"`, or an object with the method `run` of
            `keras_initx.experiments.Runner`.
        store: A folder for the results. After a kill, the same call goes on and repeats no trial that ended.
            A call with more seeds, rates or initializers adds to the folder.
        callbacks: A function that takes a `keras_initx.experiments.Trial` and returns fresh Keras callbacks.

    Returns:
        A comparison with one row for each initializer, the differences and a recommendation.

    Raises:
        ImportError: If `runner="ray"` and Ray is not installed (the extra `ray`).
        ValueError: If an argument is not understood, the direction of the metric is unknown, the model is not
            compiled or has trained kernels that an initializer would leave as they are, the data do not fit
            the model or can be read only once; or if the store holds another
            comparison or a file that no comparison wrote, or an initializer has no stable identity. Nothing
            was trained then. Also later, if the store has no more room.

    Reference:
        Hesterberg, "What Teachers Should Know About the Bootstrap", 2015; Holm, "A Simple Sequentially
        Rejective Multiple Test Procedure", 1979.
    """
    check_mode(metric, mode)
    problem = Problem(
        _as_build(build_fn),
        label_initializers(initializers),
        _as_data("train", train),
        _as_data("validation", validation),
        None if test is None else _as_data("test", test),
        metric.removeprefix("val_"),
        mode == "min",
        target,
        check_count("batch_size", batch_size),
        callbacks,
    )
    rates = _check_rates(learning_rates)
    runner = _as_runner(runner)
    trials = make_trials(
        list(problem.initializers), _check_seeds(seeds), rates, check_count("epochs", epochs)
    )
    # Every argument is tried before the first trial: an error after hours of training would be expensive.
    model, batches, notes, drawn = check(problem, rates)
    logged = logged_by(model, problem.metric)
    facts = {name: fact_of(found) for name, found in logged.items()}
    minimize = is_less_better(problem.metric, mode, facts)  # not before: `check` has made the metrics
    problem = dataclasses.replace(problem, batches=batches, minimize=minimize)
    reported = "validation" if test is None else "test"
    chance = _chance(problem, model, logged, reported)
    kept = None if store is None else _open_store(store, problem, model)
    del model  # the trials may need its memory
    if getattr(runner, "progress", False):
        sys.stderr.write("\n".join([*sentences_of_drawn(drawn), ""]))
    results = _make(runner, problem, trials, notes, kept)
    bounds = {name: (fact.lower, fact.upper) for name, fact in facts.items()}
    found = summarize(results, problem.metric, minimize, reported, bounds, chance)
    return dataclasses.replace(found, drawn=drawn)


def _make(
    runner: Runner,
    problem: Problem,
    trials: Sequence[Trial],
    notes: Mapping[str, tuple[str, ...]],
    kept: Store | None,
) -> list[TrialResult]:
    """Makes the trials that the store does not have, and returns the results of all trials."""
    for note in dict.fromkeys(note for told in notes.values() for note in told):
        warnings.warn(note, stacklevel=3)
    found = {result.trial: result for result in (kept.open(trials) if kept else [])}

    # The notes of `check` join the results here, so that they do not travel with each trial.
    def keep(result: TrialResult) -> None:
        result = dataclasses.replace(result, notes=(*notes[result.trial.initializer], *result.notes))
        found[result.trial] = result
        if kept:
            kept.write(result)

    if left := [trial for trial in trials if trial not in found]:
        runner.run(problem, left, keep)
    return [found[trial] for trial in trials]


def _open_store(store: str | os.PathLike[str], problem: Problem, model: Model) -> Store:
    initializers = {
        label: identify(initializer, label) for label, initializer in problem.initializers.items()
    }
    return Store(store, problem.fingerprint(model), initializers)


def _chance(problem: Problem, model: Model, logged: Mapping[str, Logged], reported: str) -> float | None:
    if problem.metric not in logged:
        return None
    data = problem.data(reported)
    return best_constant(model, logged[problem.metric], data, problem.batch_size, problem.minimize)


def _as_build(build_fn: Callable[[], Model] | str | os.PathLike[str]) -> Callable[[], Model]:
    if isinstance(build_fn, str | os.PathLike):
        path = pathlib.Path(build_fn)
        if path.suffix != ".keras" or not path.is_file():
            raise ValueError(
                "`build_fn` must be a function, or the path of a .keras file. Received: "
                f"{str(build_fn)!r}, which {'does not exist' if path.suffix == '.keras' else 'is neither'}."
            )
        return FileModel.read(path)
    if isinstance(build_fn, keras.Model) or not callable(build_fn):
        raise ValueError(
            "`build_fn` must be a function that returns a fresh compiled model. Received: "
            f"{type(build_fn).__name__}. Save a model with `model.save('model.keras')` and pass the path."
        )
    return build_fn


def _as_data(name: str, data: Source | None) -> Source:
    """Returns tuples as NumPy arrays; other data stay as they are, for `fit`."""
    if data is None:
        raise ValueError(f"`{name}` must be data. Received: None.")
    if isinstance(data, tuple) and len(data) in (2, 3):
        arrays = tree.map_structure(np.asarray, data)
        if any(leaf.ndim == 0 for leaf in tree.flatten(arrays)):
            raise ValueError(
                f"`{name}` must hold arrays, as `fit` takes them. Received: numbers or nested lists. Convert "
                "the lists with `numpy.asarray`."
            )
        check_finite(name, arrays[0])
        if len({len(leaf) for leaf in tree.flatten(arrays)}) != 1:
            shapes = [leaf.shape for leaf in tree.flatten(arrays)]
            raise ValueError(f"`{name}` must hold arrays of one length. Received: shapes {shapes}.")
        return arrays
    if isinstance(data, Iterator):
        raise ValueError(
            f"`{name}` must be data that each trial can read from the start. Received: "
            f"{type(data).__name__}, which ends with the first trial. Pass the function that makes it."
        )
    return as_source(data)


def _as_runner(runner: str | Runner) -> Runner:
    if isinstance(runner, str) and runner in RUNNERS:
        return RUNNERS[runner]()
    if isinstance(runner, str | type) or not callable(getattr(runner, "run", None)):
        raise ValueError(
            f"`runner` must be one of {sorted(RUNNERS)}, or an object with a method `run`. "
            f"Received: runner={runner!r}."
        )
    return runner


def _check_seeds(seeds: int | Sequence[int]) -> list[int]:
    chosen: Any = list(range(seeds)) if isinstance(seeds, int) and not isinstance(seeds, bool) else seeds
    numbers_only = isinstance(chosen, Sequence | range) and all(
        isinstance(seed, int | np.integer) and not isinstance(seed, bool) and seed >= 0 for seed in chosen
    )
    if not numbers_only or not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"`seeds` must be a positive int, or different ints of at least 0. Received: seeds={seeds!r}."
        )
    return [int(seed) for seed in chosen]


def _check_rates(rates: Sequence[float] | None) -> list[float | None]:
    if rates is None:
        return [None]
    good = isinstance(rates, Sequence | np.ndarray) and all(
        isinstance(rate, int | float | np.number) and math.isfinite(rate) and rate > 0 for rate in rates
    )
    if not good or len(rates) == 0 or len(set(rates)) < len(rates):
        raise ValueError(
            f"`learning_rates` must be different positive numbers, or None. Received: {rates!r}."
        )
    return [float(rate) for rate in rates]
