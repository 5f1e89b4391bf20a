"""The function that turns a trial into its result. All runners but the vectorised one call it."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_initx._types import Arrays, Data, Model
from keras_initx.checks import first_line
from keras_initx.experiments._batches import Shuffled, is_arrays
from keras_initx.experiments._prepare import Findings, prepare
from keras_initx.experiments._problem import Problem
from keras_initx.experiments._reading import Counted, seed_all
from keras_initx.experiments._trial import Trial, TrialResult

__all__ = ["is_finite", "numbers_of", "result_of", "run_trial"]


def run_trial(
    problem: Problem, trial: Trial, report: Callable[[TrialResult], bool] | None = None
) -> TrialResult:
    """Makes one training run.

    An exception of the model or of its data does not propagate: it is the result of the trial.

    Args:
        problem: The model, the data and the settings that all trials share.
        trial: The run to make.
        report: Called after each epoch with the result so far. If it returns True, the run ends.

    Returns:
        The result.
    """
    started = time.perf_counter()

    def so_far(test: float | None = None) -> TrialResult:
        total = time.perf_counter() - started
        return result_of(problem, trial, watch.logs, watch.seconds, test, ready.findings, total)

    watch = _Watch(problem, report and (lambda: report(so_far())))
    try:
        ready = prepare(problem, trial)
        extra = problem.callbacks(trial) if problem.callbacks else []
        validation = problem.open("validation", trial.seed)
        arrays = is_arrays(validation)
        watch.train = train = _open_train(problem, trial, ready.train)
        ready.model.fit(
            **_to_fit(train, trial),
            epochs=trial.epochs,
            validation_data=validation,
            validation_batch_size=problem.batch_size if arrays else None,
            callbacks=[watch, *extra],
            verbose=0,
        )
        test = _test(problem, trial, ready.model) if watch.finite and problem.test is not None else None
    except Exception as error:
        failure = first_line(error, kind=True)
        return TrialResult(trial, failure=failure, seconds=time.perf_counter() - started)
    return dataclasses.replace(so_far(test), stopped=watch.stopped)


def _open_train(problem: Problem, trial: Trial, arrays: tuple[Arrays, ...] | None) -> Data:
    if arrays is None:
        return problem.open("train", trial.seed)
    # As `open` does: whatever draws from the global generators in training starts from the trial's seed.
    seed_all(trial.seed)
    return Shuffled(arrays, problem.batch_size, trial.seed)


def _to_fit(train: Data, trial: Trial) -> dict[str, Any]:
    """Returns the arguments of `fit`, which must not shuffle the batches once more."""
    if isinstance(train, Shuffled):
        return train.to_fit(trial.epochs)
    return {"x": train, "shuffle": False} if isinstance(train, Counted) else {"x": train}


def _test(problem: Problem, trial: Trial, model: Model) -> float:
    test = problem.open("test", trial.seed)
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
    findings: Findings,
    total: float,
) -> TrialResult:
    """Returns the result of a run.

    Args:
        problem: The problem.
        trial: The trial.
        logs: The logs of each epoch.
        seconds: Seconds of training at the end of each epoch.
        test: The metric on the test data; None without test data.
        findings: Findings about the model before its first step.
        total: Seconds of the whole trial.
    """
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
        signal=findings.signal,
        seconds=total,
        notes=findings.notes,
    )


def is_finite(logs: dict[str, float], problem: Problem) -> bool:
    """Whether the losses and the metric of an epoch are finite."""
    return all(math.isfinite(logs[name]) for name in ("loss", "val_loss", f"val_{problem.metric}"))


def numbers_of(logs: Mapping[str, Any]) -> dict[str, float]:
    """Returns the logs of an epoch as numbers.

    A log of several numbers, such as F1 by class, becomes a log for each number: `f1_score[0]`.
    """
    found = {}
    for name, value in logs.items():
        array = np.asarray(keras.ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else value)
        if array.ndim == 0:
            found[name] = float(array)
        else:
            found |= {f"{name}[{index}]": float(number) for index, number in enumerate(array.ravel())}
    return found


def _reaches(value: float, problem: Problem) -> bool:
    if problem.target is None:
        return False
    return value <= problem.target if problem.minimize else value >= problem.target


class _Watch(keras.callbacks.Callback):
    """Gives each epoch its order of rows, keeps the logs, and ends the run if it diverged or should stop."""

    def __init__(self, problem: Problem, report: Callable[[], bool] | None) -> None:
        super().__init__()
        self.problem, self.report = problem, report
        self.logs: list[dict[str, float]] = []
        self.seconds: list[float] = []
        self.finite, self.stopped = True, False
        self.train: Data | None = None

    def on_train_begin(self, logs: object = None) -> None:  # noqa: ARG002
        self.started = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
        if isinstance(self.train, Shuffled):
            self.train.go_to(epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        found = numbers_of(logs or {})
        self.logs.append(found)
        self.seconds.append(time.perf_counter() - self.started)
        self.finite = is_finite(found, self.problem)
        self.stopped = self.finite and self.report is not None and self.report()
        if self.stopped or not self.finite:
            self.model.stop_training = True
