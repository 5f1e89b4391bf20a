"""The two parts that Ray Tune calls: the task that makes a trial, and the keeper that takes its result.

The task runs in processes of Ray, the keeper in the process of the program:

    program: share(problem) -> Tune -> keeper (on_trial_start, on_trial_result, ...) -> keep(result)
                                |  ^
    process of Ray:           task -> work -> run_trial -> tune.report(logs and result as JSON)
"""

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
from typing import TYPE_CHECKING, Any

import keras

from keras_initx.checks import first_line
from keras_initx.experiments._problem import Problem
from keras_initx.experiments._run_trial import run_trial
from keras_initx.experiments._sequential import Progress
from keras_initx.experiments._trial import Trial, TrialResult

if TYPE_CHECKING:
    import ray
    from ray.tune.experiment import Trial as RayTrial

__all__ = ["Keeper", "environment", "make_keeper", "make_task", "quiet_tune", "share", "work"]


@contextlib.contextmanager
def quiet_tune() -> Iterator[None]:
    """Sets environment variables of Tune: no logs of its own, and trials stay in the current folder."""
    wanted = {
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # trials that failed have no metric
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    }
    before = {name: os.environ[name] for name in wanted if name in os.environ}
    # These loggers report trials that failed, which the comparison does, and files that Tune does not keep.
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


def share(problem: Problem, trials: Sequence[Trial], reports: bool) -> "ray.ObjectRef":
    """Puts the problem, the trials and Keras' settings into the object store of Ray.

    Args:
        problem: The problem.
        trials: The trials.
        reports: Whether trials report each epoch, so that a scheduler can end them.

    Returns:
        A reference that any process of Ray can read.
    """
    import ray

    settings = (keras.config.floatx(), keras.config.image_data_format(), keras.config.dtype_policy().name)
    try:
        return ray.put((problem, list(trials), reports, settings))
    except Exception as error:  # pickling of a user's data and functions can raise anything
        raise ValueError(
            "`build_fn` and the data must be objects that can be sent to another process. Received: "
            f"{first_line(error, kind=True)}. Pass arrays, or a function that opens the data."
        ) from error


def environment(cpus: float, gpus: float) -> dict[str, str]:
    """Returns the environment variables that a process must have before it imports Keras.

    Args:
        cpus: CPUs of a trial.
        gpus: GPUs of a trial; without one, the process sees no GPU.
    """
    threads = str(max(1, int(cpus)))
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC")  # NPROC is XLA's
    shared = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return (
        {"KERAS_BACKEND": keras.backend.backend()}
        | dict.fromkeys(names, threads)
        | (shared if gpus else {"CUDA_VISIBLE_DEVICES": "-1"})
    )


def make_task(shared: "ray.ObjectRef", variables: Mapping[str, str]) -> Callable[[dict[str, Any]], None]:
    """Returns the function that Tune calls in a process of Ray.

    The function is local, so that it is pickled by value. If it were a function of this module, the process
    would import Keras to load it, before the environment variables are set.

    Args:
        shared: The reference that `share` returned.
        variables: The environment variables.
    """
    path = [folder or str(pathlib.Path.cwd()) for folder in sys.path]  # a cluster's processes start elsewhere

    def task(config: dict[str, Any]) -> None:
        os.environ.update(variables)
        sys.path.extend(folder for folder in path if folder not in sys.path)  # for the user's modules
        from keras_initx.experiments._tune import work

        work(shared, config["number"])

    return task


def work(shared: "ray.ObjectRef", number: int) -> None:
    """Makes a trial in a process of Ray and reports the result to Tune.

    Args:
        shared: The reference that `share` returned.
        number: Number of the trial among the trials.
    """
    import ray
    from ray import tune

    try:
        problem, trials, reports, (floatx, image_data_format, policy) = ray.get(shared)
    except ray.exceptions.RaySystemError as error:  # a module of the problem cannot be imported here
        tune.report({"broken": _last_line(error), "done": True})
        return
    keras.config.set_floatx(floatx)
    keras.config.set_image_data_format(image_data_format)
    keras.config.set_dtype_policy(policy)

    def told(found: TrialResult, ended: bool) -> dict[str, Any]:
        last = {name: values[-1] for name, values in found.curves.items() if math.isfinite(values[-1])}
        # Tune ends the trial at once if `done` is true. A scheduler sets `done`, too, so `ended` says which.
        return {**last, "found": json.dumps(found.to_dict()), "ended": ended, "done": ended}

    def report(so_far: TrialResult) -> bool:
        if len(so_far.curves["loss"]) < so_far.trial.epochs:  # the last epoch is part of the result
            tune.report(told(so_far, ended=False))  # does not return if the scheduler ends the trial
        return False

    tune.report(told(run_trial(problem, trials[number], report if reports else None), ended=True))


def make_keeper(trials: Sequence[Trial], keep: Callable[[TrialResult], None], progress: Progress) -> "Keeper":
    """Returns the callback that Tune calls in this process as trials start and end.

    Args:
        trials: The trials; Tune knows them by their numbers.
        keep: Called with each result.
        progress: The line on stderr.
    """
    from ray import tune

    return type("Keeper", (Keeper, tune.Callback), {})(trials, keep, progress)


class Keeper:
    """Turns the events of Tune into results of trials. Tune calls the methods named `on_...`."""

    def __init__(
        self, trials: Sequence[Trial], keep: Callable[[TrialResult], None], progress: Progress
    ) -> None:
        self.trials, self.keep, self.progress = trials, keep, progress
        self.ended: set[int] = set()
        self.broken = ""
        self.unkept: Exception | None = None  # the exception that `keep` raised
        self._so_far: dict[int, TrialResult] = {}
        self._started: dict[int, float] = {}
        self._actors: dict[int, str] = {}  # ids of Ray's actors, by number of the trial that runs
        self._killed: collections.Counter[int] = collections.Counter()

    def on_trial_start(self, trial: "RayTrial", **_: object) -> None:
        number = trial.config["number"]
        self._started.setdefault(number, time.perf_counter())
        self._actors[number] = trial.temporary_state.ray_actor._actor_id.hex()
        self.progress.show(str(self.trials[number]))

    def on_trial_result(self, trial: "RayTrial", result: dict[str, Any], **_: object) -> None:
        self.broken = result.get("broken", "")
        if self.broken:
            raise RuntimeError  # the only way to make Tune end
        number = trial.config["number"]
        self._so_far[number] = TrialResult.from_dict(json.loads(result["found"]))
        if result["ended"]:
            self._end(number, self._so_far[number])

    def on_trial_complete(self, trial: "RayTrial", **_: object) -> None:
        number = trial.config["number"]
        if number not in self.ended:
            self._end(number, dataclasses.replace(self._so_far[number], stopped=True))

    def on_trial_recover(self, trial: "RayTrial", **_: object) -> None:
        number = trial.config["number"]
        self._actors.pop(number, None)
        self.progress.show(f"lost, and made again: {self.trials[number]}")

    def on_trial_error(self, trial: "RayTrial", **_: object) -> None:
        error = trial.get_pickled_error() or trial.get_error()
        self._lose(trial.config["number"], trial.num_failures, f"{type(error).__name__}: {_last_line(error)}")

    def ran_out(self, told: str, retries: int) -> None:
        """Counts the trials whose processes Ray's memory monitor has ended.

        Args:
            told: The message of Ray, which names the actors that were selected. If none is named, the monitor
                may have ended any trial that ran.
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


def _last_line(error: object) -> str:
    """Returns the last line of an error of Ray: the lines before are tracebacks of other processes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
