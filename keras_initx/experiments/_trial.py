"""A trial and what came of it: data that any runner can carry and any store can keep."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Trial", "TrialResult", "make_trials"]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training run to be made.

    Attributes:
        initializer: Label of the initializer.
        seed: Seed of the weights, of the order of the rows, and of all else that is drawn.
        learning_rate: That of the optimizer; None for the one that the model was compiled with.
        epochs: How long it trains.
    """

    initializer: str
    seed: int
    learning_rate: float | None
    epochs: int

    @property
    def key(self) -> str:
        """A name for files, the same in each process."""
        text = json.dumps(dataclasses.astuple(self))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        """Formats the trial as a few words."""
        rate = "" if self.learning_rate is None else f", learning rate {self.learning_rate:g}"
        return f"{self.initializer}, seed {self.seed}{rate}"


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """What came of a trial.

    Attributes:
        trial: The trial.
        curves: The logs of `fit` by name, a number per epoch: `loss`, `val_loss`, metrics.
        final: The metric on the validation data after the last epoch; None if there is none.
        best: The best of the metric over all epochs.
        test: The metric on the test data after the last epoch, where there are test data.
        epochs_to_target: Epochs until the metric first reached the target; None if it did not, or there is
            none.
        seconds_to_target: Seconds of training until then.
        diverged: Whether the loss or the metric became NaN or Inf; training ended there.
        stopped: Whether a scheduler ended it before its last epoch.
        failure: What it raised, or how it was lost; empty when it ended well.
        signal: What `diagnose` found before the first step: `forward_gain`, `backward_gain`, `loss`, and the
            kinds of its `verdicts`; None where it could not be diagnosed.
        seconds: Seconds of the whole trial.
        notes: What a reader of the figures should know: why it was not diagnosed, kernels that no law was
            applied to, weights that were not drawn anew, data of another order.
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
        """Whether it trained for all of its epochs and stayed finite."""
        return not (self.failure or self.diverged or self.stopped)

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as plain dicts, lists and numbers."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> "TrialResult":
        """Returns the result that `to_dict` gave.

        Args:
            found: What `to_dict` returned, also by way of JSON.
        """
        notes = tuple(found.get("notes", ()))
        return cls(**{**found, "trial": Trial(**found["trial"]), "notes": notes})


def make_trials(
    initializers: Sequence[str], seeds: Sequence[int], rates: Sequence[float | None], epochs: int
) -> list[Trial]:
    """Returns all combinations, a seed's together, so that a comparison cut short is still one by seed."""
    return [
        Trial(initializer, seed, rate, epochs)
        for seed in seeds
        for rate in rates
        for initializer in initializers
    ]
