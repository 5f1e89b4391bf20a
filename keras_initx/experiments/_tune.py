"""What Ray Tune is given: the task that makes a trial, and what it calls as trials start and end."""

import collections
import contextlib
import dataclasses
import json
import logging
import math
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from keras_initx.checks import first_line
from keras_initx.experiments._problem import Problem
from keras_initx.experiments._run_trial import run_trial
from keras_initx.experiments._sequential import Progress
from keras_initx.experiments._trial import Trial, TrialResult

__all__ = ["environment", "make_keeper", "make_task", "quiet_tune", "share", "work"]


@contextlib.contextmanager
def quiet_tune() -> Iterator[None]:
    """What Tune reads from the environment: no logs of its own, and trials stay in the folder they are in."""
    wanted = {
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that failed has no metric
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    }
    before = {name: os.environ[name] for name in wanted if name in os.environ}
    # They tell of trials that failed, and that Tune kept no files.
    loggers = [logging.getLogger(name) for name in ("ray.tune.analysis", "ray.tune.tune")]
    levels = [logger.level for logger in loggers]
    os.environ.update(wanted)
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name in wanted:
            del os.environ[name]
        os.environ.update(before)


def share(problem: Problem, trials: Sequence[Trial], reports: bool) -> Any:
    """Puts into Ray's object store what all processes need, and returns a reference to it."""
    import ray

    settings = (keras.config.floatx(), keras.config.image_data_format(), keras.config.dtype_policy().name)
    try:
        return ray.put((problem, list(trials), reports, settings))
    except Exception as error:  # whatever the pickling of data and functions raises
        raise ValueError(
            "The model's function and the data must be such that they can be sent to another process. "
            f"Received: {first_line(error, kind=True)}. Pass arrays, or a "
            "function that opens the data."
        ) from error


def environment(cpus: float, gpus: float) -> dict[str, str]:
    """What a trial's process must find in its environment before it imports Keras."""
    threads = str(max(1, int(cpus)))
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC")  # NPROC is XLA's
    shared = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return (
        {"KERAS_BACKEND": keras.backend.backend()}
        | dict.fromkeys(names, threads)
        | (shared if gpus else {"CUDA_VISIBLE_DEVICES": "-1"})
    )


def make_task(shared: Any, variables: Mapping[str, str]) -> Callable[[dict[str, Any]], None]:
    """The function that Tune calls. It is pickled by value: to load it imports no Keras."""
    path = [folder or str(pathlib.Path.cwd()) for folder in sys.path]  # processes of a cluster run elsewhere

    def task(config: dict[str, Any]) -> None:
        os.environ.update(variables)
        sys.path.extend(folder for folder in path if folder not in sys.path)  # of the user's own modules
        from keras_initx.experiments._tune import work

        work(shared, config["number"])

    return task


def work(shared: Any, number: int) -> None:
    """Makes a trial in a process of Ray's and tells Tune about it."""
    import ray
    from ray import tune

    try:
        problem, trials, reports, (floatx, image_data_format, policy) = ray.get(shared)
    except ray.exceptions.RaySystemError as error:  # what it refers to cannot be imported here
        tune.report({"broken": _last_line(error), "done": True})
        return
    keras.config.set_floatx(floatx)
    keras.config.set_image_data_format(image_data_format)
    keras.config.set_dtype_policy(policy)

    def told(found: TrialResult, ended: bool) -> dict[str, Any]:
        last = {name: values[-1] for name, values in found.curves.items() if math.isfinite(values[-1])}
        # Tune goes on at once when it is done, and sets it, too, when the scheduler ends the trial.
        return {**last, "found": json.dumps(found.to_dict()), "ended": ended, "done": ended}

    def report(so_far: TrialResult) -> bool:
        if len(so_far.curves["loss"]) < so_far.trial.epochs:  # the last epoch's comes with the result
            tune.report(told(so_far, ended=False))  # does not return if the scheduler ends the trial
        return False

    tune.report(told(run_trial(problem, trials[number], report if reports else None), ended=True))


def make_keeper(trials: Sequence[Trial], keep: Callable[[TrialResult], None], progress: Progress) -> Any:
    """What Tune calls in this process as trials start and end."""
    from ray import tune

    return type("Keeper", (_Keeper, tune.Callback), {})(trials, keep, progress)


class _Keeper:
    def __init__(
        self, trials: Sequence[Trial], keep: Callable[[TrialResult], None], progress: Progress
    ) -> None:
        self.trials, self.keep, self.progress = trials, keep, progress
        self.ended: set[int] = set()
        self.broken = ""
        self.unkept: Exception | None = None  # what `keep` raised
        self._so_far: dict[int, TrialResult] = {}
        self._started: dict[int, float] = {}
        self._actors: dict[int, str] = {}  # of the trials that run
        self._killed: collections.Counter[int] = collections.Counter()

    def on_trial_start(self, trial: Any, **_: Any) -> None:
        number = trial.config["number"]
        self._started.setdefault(number, time.perf_counter())
        self._actors[number] = trial.temporary_state.ray_actor._actor_id.hex()
        self.progress.show(str(self.trials[number]))

    def on_trial_result(self, trial: Any, result: dict[str, Any], **_: Any) -> None:
        self.broken = result.get("broken", "")
        if self.broken:
            raise RuntimeError  # so that Tune ends
        number = trial.config["number"]
        self._so_far[number] = TrialResult.from_dict(json.loads(result["found"]))
        if result["ended"]:
            self._end(number, self._so_far[number])

    def on_trial_complete(self, trial: Any, **_: Any) -> None:
        number = trial.config["number"]
        if number not in self.ended:
            self._end(number, dataclasses.replace(self._so_far[number], stopped=True))

    def on_trial_recover(self, trial: Any, **_: Any) -> None:
        number = trial.config["number"]
        self._actors.pop(number, None)
        self.progress.show(f"lost, and made again: {self.trials[number]}")

    def on_trial_error(self, trial: Any, **_: Any) -> None:
        error = trial.get_pickled_error() or trial.get_error()
        self._lose(trial.config["number"], trial.num_failures, f"{type(error).__name__}: {_last_line(error)}")

    def ran_out(self, told: str, retries: int) -> None:
        """Counts against a trial that Ray's memory monitor has ended its process.

        Args:
            told: What Ray says, with the actors that it selected.
            retries: How many times a trial is made again.
        """
        selected = re.findall(r"Selected to kill: \(Actor\((\w+)\)", told)
        numbers = [number for number, actor in self._actors.items() if actor in selected]
        for number in numbers or list(self._actors):
            self._killed[number] += 1
            if self._killed[number] > retries:
                self._lose(number, self._killed[number], f"OutOfMemoryError: {told.splitlines()[0]}")
        self._actors.clear()

    def _lose(self, number: int, times: int, why: str) -> None:
        spent = time.perf_counter() - self._started.get(number, time.perf_counter())
        self._end(
            number, TrialResult(self.trials[number], failure=f"lost {times} times: {why}", seconds=spent)
        )

    def _end(self, number: int, result: TrialResult) -> None:
        self.ended.add(number)
        self._so_far.pop(number, None)
        self._actors.pop(number, None)
        try:
            self.keep(result)
        except Exception as error:
            self.unkept = error
            raise
        self.progress.step()


def _last_line(error: Any) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
