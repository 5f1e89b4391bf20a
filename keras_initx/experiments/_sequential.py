"""The runner that makes one trial after another in this process."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from keras_initx.experiments._problem import Problem
from keras_initx.experiments._run_trial import run_trial
from keras_initx.experiments._trial import Trial, TrialResult

__all__ = ["Progress", "Runner", "Sequential"]


class Runner(Protocol):
    """The protocol of a runner: any object with this method can make trials."""

    def run(self, problem: Problem, trials: Sequence[Trial], keep: Callable[[TrialResult], None]) -> None:
        """Makes the trials and hands each result to `keep` as soon as the trial has ended."""


class Sequential:
    """The default runner: makes one trial after another in this process.

    Args:
        progress: Whether to show on stderr how many trials have ended, and how long the others will take.
    """

    def __init__(self, progress: bool = True) -> None:
        self.progress = progress

    def run(self, problem: Problem, trials: Sequence[Trial], keep: Callable[[TrialResult], None]) -> None:
        """Makes the trials. If a trial raises an exception, the exception is its result.

        Args:
            problem: The model, the data and the settings that all trials share.
            trials: The trials to make.
            keep: Called with each result.
        """
        progress = Progress(len(trials), self.progress)
        for trial in trials:
            progress.show(str(trial))
            keep(run_trial(problem, trial))
            progress.step()


class Progress:
    """A line on stderr: a bar, how many trials have ended, and how long the others will take.

    Args:
        total: Number of trials.
        shown: Whether to write the line at all.
    """

    def __init__(self, total: int, shown: bool) -> None:
        self.total, self.shown, self.done, self.started = total, shown, 0, time.perf_counter()

    def step(self, ended: int = 1) -> None:
        """Counts trials that have ended, and writes the line anew."""
        self.done += ended
        self.show("")
        if self.shown and self.done == self.total:
            sys.stderr.write("\n")

    def show(self, about: str) -> None:
        """Writes the line anew, with a few words about the current trial."""
        if not self.shown:
            return
        spent = time.perf_counter() - self.started
        left = (
            f"{(self.total - self.done) * spent / self.done:.0f} s left" if self.done else "no estimate yet"
        )
        bar = "#" * (20 * self.done // self.total)
        line = f"[{bar:<20}] {self.done} of {self.total} trials, {left}  {about}"
        sys.stderr.write(f"\r{line[:110]:<110}")
        sys.stderr.flush()
