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
    """What makes trials. Any object with this method is one."""

    def run(self, problem: Problem, trials: Sequence[Trial], keep: Callable[[TrialResult], None]) -> None:
        """Makes the trials and hands each result to `keep` as it is there."""


class Sequential:
    """Makes one trial after another in this process; the default.

    Args:
        progress: Whether to show on stderr how far it is, and how long it will take.
    """

    def __init__(self, progress: bool = True) -> None:
        self.progress = progress

    def run(self, problem: Problem, trials: Sequence[Trial], keep: Callable[[TrialResult], None]) -> None:
        """Makes the trials; what one of them raises is its result.

        Args:
            problem: What all trials share.
            trials: What to make.
            keep: What to do with a result.
        """
        progress = Progress(len(trials), self.progress)
        for trial in trials:
            progress.show(str(trial))
            keep(run_trial(problem, trial))
            progress.step()


class Progress:
    """A line on stderr: a bar, how many trials have ended, and how long the others will take.

    Args:
        total: How many there are.
        shown: Whether it is shown.
    """

    def __init__(self, total: int, shown: bool) -> None:
        self.total, self.shown, self.done, self.started = total, shown, 0, time.perf_counter()

    def step(self, ended: int = 1) -> None:
        """Counts trials that have ended."""
        self.done += ended
        self.show("")
        if self.shown and self.done == self.total:
            sys.stderr.write("\n")

    def show(self, what: str) -> None:
        """Writes the line anew."""
        if not self.shown:
            return
        spent = time.perf_counter() - self.started
        left = (
            f"{(self.total - self.done) * spent / self.done:.0f} s left" if self.done else "no estimate yet"
        )
        bar = "#" * (20 * self.done // self.total)
        line = f"[{bar:<20}] {self.done} of {self.total} trials, {left}  {what}"
        sys.stderr.write(f"\r{line[:110]:<110}")
        sys.stderr.flush()
