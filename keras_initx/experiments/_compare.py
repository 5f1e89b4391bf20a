"""Which initialization is best for a model: a race over seeds and learning rates."""

import dataclasses
import math
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_initx.checks import check_count
from keras_initx.data import check_finite
from keras_initx.experiments._chance import best_constant
from keras_initx.experiments._check import check
from keras_initx.experiments._comparison import Comparison
from keras_initx.experiments._identity import identify
from keras_initx.experiments._metrics import check_mode, fact_of, is_less_better, logged_by
from keras_initx.experiments._problem import FileModel, Problem, label_schemes
from keras_initx.experiments._ray import Ray
from keras_initx.experiments._reading import as_source
from keras_initx.experiments._sequential import Runner, Sequential
from keras_initx.experiments._store import Store
from keras_initx.experiments._summarize import summarize
from keras_initx.experiments._trial import Trial, TrialResult, make_trials
from keras_initx.experiments._vectorized import Vectorized

__all__ = ["compare"]

RUNNERS: dict[str, Callable[[], Runner]] = {"ray": Ray, "sequential": Sequential, "vectorized": Vectorized}


def compare(
    build_fn: Callable[[], Any] | str | os.PathLike[str],
    initializers: Sequence[Any] | Mapping[str, Any],
    train: Any,
    validation: Any,
    *,
    seeds: int | Sequence[int] = 5,
    learning_rates: Sequence[float] | None = None,
    epochs: int = 1,
    metric: str = "loss",
    mode: str = "auto",
    target: float | None = None,
    test: Any = None,
    batch_size: int = 32,
    runner: str | Runner = "sequential",
    store: str | os.PathLike[str] | None = None,
    callbacks: Callable[[Any], list[Any]] | None = None,
) -> Comparison:
    """Trains a model from each initializer, over seeds and learning rates, and says which one is best.

    All trials of a seed see the same batches in the same order, on every backend and with every runner. Each
    draws all weights by its initializer, calibrates them on training data where the initializer, its plan or
    a layer names a law that needs data, diagnoses the signal, and trains. A trial that diverges or raises is
    counted, not averaged. What cannot be so, such as weights that start trained, is a note in the results.

    For each initializer the learning rate is the one with the best mean on the validation data, on the seeds
    that ended well at all rates; one at which half of the seeds diverge is not chosen if there is another.
    The figures at that rate are those on the test data, if there are any. Means have 95 % intervals that keep
    to what the metric can be.

    Pairs of initializers have Student's paired test on the seeds on which both ended well, and Fisher's test
    of how many seeds did not diverge, all corrected by Holm. What is recommended has the best mean and beats
    all others. Divergence speaks against an initializer; an exception, such as memory that ran out, does not.

    The global random state of Python, NumPy and the backend is set by the trials.

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
        build_fn: Returns a fresh compiled model; or the path of a `.keras` file of a compiled one.
        initializers: Names, configs or objects of initializers, or strategies, and None for the model as it
            is built; or a dict of label and one of these.
        train: A pair (x, y) of arrays, or a triple with sample weights; or what else `fit` takes; or a
            function without arguments that returns it, which is called with the random generators at the
            trial's seed, and for each epoch if it returns an iterator.
        validation: The same, to choose learning rates on.
        seeds: How many (0, 1, 2, ...), or which.
        learning_rates: What to try; None for the one that the model was compiled with.
        epochs: Epochs of each trial.
        metric: Name of a metric that the model was compiled with, or `"loss"`.
        mode: Whether less of the metric is better: `"min"`, `"max"`, or `"auto"` for what Keras knows of the
            metric's class. Of a function or class of your own it knows nothing: name the mode.
        target: A value of the metric; the rows tell how long it takes to reach it.
        test: Data to report on and to choose nothing on; None to report on the validation data.
        batch_size: Rows of a batch, where the data are arrays.
        runner: `"sequential"`, `"ray"`, `"vectorized"`, or an object with the method `run` of
            `keras_initx.experiments.Runner`.
        store: A folder for the results. The same call goes on where it was killed and repeats nothing; one
            with more seeds, rates or initializers adds to it.
        callbacks: Returns fresh Keras callbacks for a `keras_initx.experiments.Trial`.

    Returns:
        A comparison with one row per initializer, the differences and a recommendation.

    Raises:
        ValueError: If an argument is not understood, nobody knows the metric's direction, the model is not
            compiled, the data do not fit it or can be read only once, or the store holds another comparison,
            a file that no comparison wrote, or would have to identify what it cannot. Nothing was trained
            then. Also, later, if the store has no more room.

    Reference:
        Hesterberg, "What Teachers Should Know About the Bootstrap", 2015; Holm, "A Simple Sequentially
        Rejective Multiple Test Procedure", 1979.
    """
    check_mode(metric, mode)
    problem = Problem(
        _as_build(build_fn),
        label_schemes(initializers),
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
    trials = make_trials(list(problem.schemes), _check_seeds(seeds), rates, check_count("epochs", epochs))
    model, batches, notes = check(problem, rates)
    logged = logged_by(model, problem.metric)
    facts = {name: fact_of(found) for name, found in logged.items()}
    minimize = is_less_better(problem.metric, mode, facts)
    problem = dataclasses.replace(problem, batches=batches, minimize=minimize)
    reported = "validation" if test is None else "test"
    chance = _chance(problem, model, logged, reported)
    kept = None if store is None else _open_store(store, problem, model)
    del model
    results = _make(runner, problem, trials, notes, kept)
    bounds = {name: (fact.lower, fact.upper) for name, fact in facts.items()}
    return summarize(results, problem.metric, minimize, reported, bounds, chance)


def _make(
    runner: Runner,
    problem: Problem,
    trials: Sequence[Trial],
    notes: Mapping[str, tuple[str, ...]],
    kept: Store | None,
) -> list[TrialResult]:
    """Makes the trials that the store does not have, and returns the results of all."""
    for note in dict.fromkeys(note for told in notes.values() for note in told):
        warnings.warn(note, stacklevel=3)
    found = {result.trial: result for result in (kept.open(trials) if kept else [])}

    def keep(result: TrialResult) -> None:
        result = dataclasses.replace(result, notes=(*notes[result.trial.initializer], *result.notes))
        found[result.trial] = result
        if kept:
            kept.write(result)

    if left := [trial for trial in trials if trial not in found]:
        runner.run(problem, left, keep)
    return [found[trial] for trial in trials]


def _open_store(store: str | os.PathLike[str], problem: Problem, model: Any) -> Store:
    schemes = {label: identify(scheme, label) for label, scheme in problem.schemes.items()}
    return Store(store, problem.fingerprint(model), schemes)


def _chance(problem: Problem, model: Any, logged: Mapping[str, Any], reported: str) -> float | None:
    data, found = problem.data(reported), logged.get(problem.metric)
    return found and best_constant(model, found, data, problem.batch_size, problem.minimize)


def _as_build(build_fn: Any) -> Callable[[], Any]:
    if isinstance(build_fn, str | os.PathLike):
        path = pathlib.Path(build_fn)
        if path.suffix != ".keras" or not path.is_file():
            raise ValueError(
                "`build_fn` must be a function, or the path of a .keras file. Received: "
                f"{str(build_fn)!r}, which is {'no file' if path.suffix == '.keras' else 'neither'}."
            )
        return FileModel(path.read_bytes())
    if isinstance(build_fn, keras.Model) or not callable(build_fn):
        raise ValueError(
            "`build_fn` must be a function that returns a fresh compiled model. Received: "
            f"{type(build_fn).__name__}. Save a model with `model.save('model.keras')` and pass the path."
        )
    return build_fn


def _as_data(name: str, data: Any) -> Any:
    """Brings pairs of what NumPy can read into arrays; leaves all else to `fit`."""
    if data is None:
        raise ValueError(f"`{name}` must be data. Received: None.")
    if isinstance(data, tuple) and len(data) in (2, 3):
        arrays = tree.map_structure(np.asarray, data)
        if any(leaf.ndim == 0 for leaf in tree.flatten(arrays)):
            raise ValueError(
                f"`{name}` must hold arrays, as `fit` takes them. Received: numbers or nested lists. Convert "
                "them with `numpy.asarray`."
            )
        check_finite(name, arrays[0])
        if len({len(leaf) for leaf in tree.flatten(arrays)}) != 1:
            shapes = [leaf.shape for leaf in tree.flatten(arrays)]
            raise ValueError(f"`{name}` must hold as many rows in each array. Received: shapes {shapes}.")
        return arrays
    if isinstance(data, Iterator):
        raise ValueError(
            f"`{name}` must be data that each trial can read from their start. Received: "
            f"{type(data).__name__}, which ends with the first. Pass the function that makes it."
        )
    return as_source(data)


def _as_runner(runner: Any) -> Runner:
    if isinstance(runner, str) and runner in RUNNERS:
        return RUNNERS[runner]()
    if not callable(getattr(runner, "run", None)) or isinstance(runner, type):
        raise ValueError(
            f"`runner` must be one of {sorted(RUNNERS)}, or an object with a method `run`. "
            f"Received: runner={runner!r}."
        )
    return runner


def _check_seeds(seeds: Any) -> list[int]:
    chosen = list(range(seeds)) if isinstance(seeds, int) and not isinstance(seeds, bool) else seeds
    numbers_only = isinstance(chosen, Sequence | range) and all(
        isinstance(seed, int | np.integer) and not isinstance(seed, bool) and seed >= 0 for seed in chosen
    )
    if not numbers_only or not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"`seeds` must be a positive int, or different ints of at least 0. Received: seeds={seeds!r}."
        )
    return [int(seed) for seed in chosen]


def _check_rates(rates: Any) -> list[float | None]:
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
