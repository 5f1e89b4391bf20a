"""A trial and its result: data that any runner can carry and any store can keep."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Trial", "TrialResult", "make_trials"]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training run that a runner has to make.

    Attributes:
        initializer: Label of the initializer.
        seed: Seed of the weights, of the order of the rows, and of everything else that is drawn.
        learning_rate: Learning rate of the optimizer; None for the learning rate of the compiled model.
        epochs: Number of epochs.
    """

    initializer: str
    seed: int
    learning_rate: float | None
    epochs: int

    @property
    def key(self) -> str:
        """A name for files, the same in every process."""
        text = json.dumps(dataclasses.astuple(self))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        """Formats the trial as a few words."""
        rate = "" if self.learning_rate is None else f", learning rate {self.learning_rate:g}"
        return f"{self.initializer}, seed {self.seed}{rate}"


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """The result of one trial.

    Attributes:
        trial: The trial.
        curves: The logs of `fit` by name, a number for each epoch: `loss`, `val_loss`, metrics.
        final: The metric on the validation data after the last epoch; None if the metric is not finite.
        best: The best value of that metric over all epochs.
        test: The metric on the test data after the last epoch; None without test data.
        epochs_to_target: Epochs until the metric first reached the target; None if the metric did not reach
            the target, or if there is no target.
        seconds_to_target: Seconds of training until then; None in the same cases.
        diverged: Whether the loss or the metric became NaN or Inf. Training ended at that epoch.
        stopped: Whether a scheduler ended the trial before its last epoch.
        failure: The message of the exception, or the way in which the trial was lost; empty when the trial
            ended well.
        signal: Findings of `diagnose` before the first step: `forward_gain`, `backward_gain`, `loss`, and the
            kinds of the `verdicts`. None if the model could not be diagnosed.
        seconds: Seconds of the whole trial.
        notes: Facts that a reader of the figures should know: why the model was not diagnosed, kernels that
            no law was applied to, weights that were not drawn anew, data that came in another order.
    """

    trial: Trial
    curves: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    final: float | None = None
    best: float | None = None
    test: float | None = None
    epochs_to_target: int | None = None
    seconds_to_target: float | None = None
    diverged: bool = False
    stopped: bool = False
    failure: str = ""
    signal: Mapping[str, Any] | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def ended_well(self) -> bool:
        """Whether the trial trained for all of its epochs and stayed finite."""
        return not (self.failure or self.diverged or self.stopped)

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as plain dicts, lists and numbers."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> "TrialResult":
        """Returns the result that `to_dict` was called on.

        Args:
            found: The dict that `to_dict` returned, or the same dict after JSON.
        """
        notes = tuple(found.get("notes", ()))
        return cls(**{**found, "trial": Trial(**found["trial"]), "notes": notes})


def make_trials(
    initializers: Sequence[str], seeds: Sequence[int], rates: Sequence[float | None], epochs: int
) -> list[Trial]:
    """Returns all combinations, one seed after the other.

    A comparison that is cut short then has all initializers for the seeds that it came to.
    """
    return [
        Trial(initializer, seed, rate, epochs)
        for seed in seeds
        for rate in rates
        for initializer in initializers
    ]
