"""The rows of a comparison: initializers over all seeds, and the differences between two of them."""

import dataclasses

__all__ = ["ComparisonRow", "Difference"]


@dataclasses.dataclass(frozen=True)
class ComparisonRow:
    """One initializer at one learning rate, over all seeds.

    Attributes:
        initializer: Label of the initializer.
        learning_rate: The learning rate; None for the learning rate of the compiled model.
        seeds: Number of seeds that were tried.
        mean: Mean of the metric over the seeds that ended well; None if no seed ended well. The metric is
            measured on the test data if there are test data, else on the validation data.
        std: Standard deviation over the seeds that ended well, with n - 1; None for fewer than two seeds.
        low: Lower bound of the 95 % interval of the mean. The interval stays within the values that the
            metric can have.
        high: Upper bound of that interval.
        validation: Mean of the metric on the validation data. The learning rate is chosen by this number.
        diverged: Number of seeds that diverged. They speak against the initializer.
        stopped: Number of seeds that a scheduler ended early because they were behind. They speak against
            the initializer, too.
        failed: Number of seeds that raised an exception or were lost with their machine. They say nothing
            about the initializer.
        at_chance: Whether no seed that ended well is better than the best prediction that is the same for
            all rows of the data. False also if that prediction is not known.
        epochs_to_target: Median number of epochs until the target; None unless more than half of the seeds
            reached the target.
        seconds_to_target: Median seconds of training until the target; None in the same cases.
        forward_gain: Median over the seeds of the forward gain that `diagnose` found before the first step.
        verdicts: Kinds of verdicts that `diagnose` found in any seed.
        seconds: Median seconds of a trial.
        values: The metric by seed, of the seeds that ended well.
        failures: Messages of the exceptions, each message once.
    """

    initializer: str
    learning_rate: float | None
    seeds: int
    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    validation: float | None
    diverged: int
    stopped: int
    failed: int
    at_chance: bool
    epochs_to_target: float | None
    seconds_to_target: float | None
    forward_gain: float | None
    verdicts: tuple[str, ...]
    seconds: float
    values: dict[int, float]
    failures: tuple[str, ...]

    @property
    def ended(self) -> int:
        """Number of seeds that ended well."""
        return len(self.values)

    @property
    def judged(self) -> int:
        """Number of seeds that say something about the initializer: all seeds that did not fail."""
        return self.seeds - self.failed

    @property
    def lost(self) -> int:
        """Number of seeds that did not end well."""
        return self.diverged + self.stopped + self.failed


@dataclasses.dataclass(frozen=True)
class Difference:
    """One test of two initializers, each at its own learning rate.

    Attributes:
        first: Label of the initializer that is better by this test. If both are equal, this is the label of
            the higher row.
        second: The other label.
        kind: `"values"` for Student's paired test of the metric, on the seeds on which both ended well.
            `"endings"` for Fisher's exact test of how many seeds did not diverge and were not stopped.
        mean: Mean over the shared seeds of the first metric minus the second metric; None without shared
            seeds, and for `"endings"`.
        low: Lower bound of the interval of `mean`. The confidence of the interval is corrected like the p
            value, so that zero is outside exactly if `real` is true. None where `mean` is None.
        high: Upper bound of that interval.
        p: The two-sided p value of the test; 1 if both share fewer than two seeds.
        corrected: The p value after Holm's correction for the number of tests.
        seeds: Number of seeds behind the test. For `"endings"` this is the smaller number of the two.
        real: Whether `corrected` is below 0.05, so that the first initializer is better.
    """

    first: str
    second: str
    kind: str
    mean: float | None
    low: float | None
    high: float | None
    p: float
    corrected: float
    seeds: int
    real: bool
