"""The one function that turns a trial into its result, whatever runs it."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from keras_initx.calibration import calibrate
from keras_initx.data import reason_of, take_pair
from keras_initx.diagnostics import diagnose
from keras_initx.experiments._batches import Shuffled, is_arrays
from keras_initx.experiments._problem import Problem, build_model
from keras_initx.experiments._trial import Trial, TrialResult
from keras_initx.initializers import DataDependent
from keras_initx.strategies import initialize

__all__ = ["Prepared", "is_finite", "prepare", "result_of", "run_trial"]

SAMPLES = 256  # rows of training data that a data-dependent law and the diagnosis see


class Prepared(NamedTuple):
    """A model ready for its first step."""

    model: Any
    train: Any  # what `fit` takes
    signal: dict[str, Any] | None


def prepare(problem: Problem, trial: Trial) -> Prepared:
    """Builds, initializes, calibrates and diagnoses the model of a trial."""
    train = problem.data("train")
    model = build_model(problem, trial.seed)
    if trial.learning_rate is not None:
        model.optimizer.learning_rate = trial.learning_rate
    scheme = problem.schemes[trial.initializer]
    initialize(model, scheme, seed=trial.seed)
    sample, targets = take_pair(model, train, SAMPLES)
    if isinstance(scheme, DataDependent):
        calibrate(model, sample, scheme, targets=targets, seed=trial.seed)
    signal = _diagnose(model, sample, targets)
    if is_arrays(train):
        train = Shuffled(train, problem.batch_size, trial.seed)
    return Prepared(model, train, signal)


def _diagnose(model: Any, sample: Any, targets: Any) -> dict[str, Any] | None:
    try:
        report = diagnose(model, sample, targets, seed=0, try_cures=False)
    except (ValueError, NotImplementedError):  # a loss or a layer that only `fit` understands
        return None
    return {
        "forward_gain": report.forward_gain,
        "backward_gain": report.backward_gain,
        "loss": report.loss,
        "verdicts": sorted({verdict.kind for verdict in report.verdicts}),
    }


def run_trial(
    problem: Problem, trial: Trial, report: Callable[[TrialResult], bool] | None = None
) -> TrialResult:
    """Makes one training run. What the model or its data raise is a result, too.

    Args:
        problem: What all trials share.
        trial: Which run to make.
        report: Called after each epoch with the result so far; True ends the run.

    Returns:
        The result.
    """
    started = time.perf_counter()

    def so_far(test: float | None = None) -> TrialResult:
        total = time.perf_counter() - started
        return result_of(problem, trial, watch.logs, watch.seconds, test, signal, total)

    watch = _Watch(problem, report and (lambda: report(so_far())))
    try:
        model, train, signal = prepare(problem, trial)
        watch.train = train
        extra = problem.callbacks(trial) if problem.callbacks else []
        validation = problem.data("validation")
        arrays = is_arrays(validation)
        model.fit(
            **(train.to_fit(trial.epochs) if isinstance(train, Shuffled) else {"x": train}),
            epochs=trial.epochs,
            validation_data=validation,
            validation_batch_size=problem.batch_size if arrays else None,
            callbacks=[watch, *extra],
            verbose=0,
        )
        test = _test(problem, model) if watch.finite and problem.test is not None else None
    except Exception as error:
        failure = f"{type(error).__name__}: {reason_of(error)}"
        return TrialResult(trial, failure=failure, seconds=time.perf_counter() - started)
    return dataclasses.replace(so_far(test), stopped=watch.stopped)


def _test(problem: Problem, model: Any) -> float:
    test = problem.data("test")
    if not is_arrays(test):
        logs = model.evaluate(test, verbose=0, return_dict=True)
    else:
        arrays = dict(zip(("x", "y", "sample_weight"), test, strict=False))
        logs = model.evaluate(**arrays, batch_size=problem.batch_size, verbose=0, return_dict=True)
    return float(logs[problem.metric])


def result_of(
    problem: Problem,
    trial: Trial,
    logs: list[dict[str, float]],
    seconds: list[float],
    test: float | None,
    signal: dict[str, Any] | None,
    total: float,
) -> TrialResult:
    """The result of a run from the logs of its epochs, and the seconds of training at the end of each."""
    metric = [epoch[f"val_{problem.metric}"] for epoch in logs]
    diverged = any(not is_finite(epoch, problem) for epoch in logs)
    finite = [value for value in metric if math.isfinite(value)]
    reached = [number for number, value in enumerate(metric) if _reaches(value, problem)]
    return TrialResult(
        trial,
        curves={name: [epoch[name] for epoch in logs] for name in logs[0]},
        final=metric[-1] if math.isfinite(metric[-1]) else None,
        best=(min if problem.minimize else max)(finite) if finite else None,
        test=test,
        epochs_to_target=reached[0] + 1 if reached else None,
        seconds_to_target=seconds[reached[0]] if reached else None,
        diverged=diverged,
        signal=signal,
        seconds=total,
    )


def is_finite(logs: dict[str, float], problem: Problem) -> bool:
    """Whether the losses and the metric of an epoch are numbers."""
    return all(math.isfinite(logs[name]) for name in ("loss", "val_loss", f"val_{problem.metric}"))


def _reaches(value: float, problem: Problem) -> bool:
    if problem.target is None:
        return False
    return value <= problem.target if problem.minimize else value >= problem.target


class _Watch(keras.callbacks.Callback):
    """Gives each epoch its order of rows, keeps its logs, and ends a run that diverged, or is to end."""

    def __init__(self, problem: Problem, report: Callable[[], bool] | None) -> None:
        super().__init__()
        self.problem, self.report = problem, report
        self.logs: list[dict[str, float]] = []
        self.seconds: list[float] = []
        self.finite, self.stopped = True, False
        self.train: Any = None

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002
        self.started = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        if isinstance(self.train, Shuffled):
            self.train.go_to(epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        found = {name: float(value) for name, value in (logs or {}).items()}
        self.logs.append(found)
        self.seconds.append(time.perf_counter() - self.started)
        self.finite = is_finite(found, self.problem)
        self.stopped = self.finite and self.report is not None and self.report()
        if self.stopped or not self.finite:
            self.model.stop_training = True
