"""What a comparison found: rows, differences, a summary and a recommendation."""

import dataclasses
import itertools
import json
import os
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_initx.experiments._dashboard import write_runs
from keras_initx.experiments._format import as_markdown, as_text, say
from keras_initx.experiments._statistics import counts_p, holm, mean_interval, paired_p
from keras_initx.experiments._trial import TrialResult

if TYPE_CHECKING:
    import pandas

__all__ = ["Comparison", "Difference", "SchemeRow", "summarize"]

_LEVEL = 0.05  # of the tests, after correction


@dataclasses.dataclass(frozen=True)
class SchemeRow:
    """One initializer at one learning rate, over all seeds.

    Attributes:
        initializer: Its label.
        learning_rate: The learning rate; None for that of the compiled model.
        seeds: How many were tried.
        mean: Mean of the metric over the seeds that ended well; None if none did. It is measured on the test
            data where there are any, else on the validation data.
        low: Lower bound of its 95 % interval.
        high: Upper bound.
        validation: Mean of the metric on the validation data, by which the learning rate is chosen.
        diverged: How many seeds diverged.
        stopped: How many a scheduler ended early.
        failed: How many raised, or were lost.
        epochs_to_target: Median epochs until the target; None unless more than half of the seeds reached it.
        seconds_to_target: The same in seconds of training.
        forward_gain: Median over seeds of what `diagnose` found before the first step.
        verdicts: Kinds of verdicts that it found in any seed.
        seconds: Median seconds of a trial.
        values: The metric by seed, of the seeds that ended well.
        failures: What was raised, each reason once.
    """

    initializer: str
    learning_rate: float | None
    seeds: int
    mean: float | None
    low: float | None
    high: float | None
    validation: float | None
    diverged: int
    stopped: int
    failed: int
    epochs_to_target: float | None
    seconds_to_target: float | None
    forward_gain: float | None
    verdicts: tuple[str, ...]
    seconds: float
    values: dict[int, float]
    failures: tuple[str, ...]

    @property
    def lost(self) -> int:
        """How many seeds did not end well."""
        return self.diverged + self.stopped + self.failed


@dataclasses.dataclass(frozen=True)
class Difference:
    """Two initializers, each at its own learning rate, on the seeds on which both ended well.

    Attributes:
        first: The label of the one that is better on average.
        second: The other label.
        mean: Mean of the metric of the first less that of the second; None if they share no such seed.
        low: Lower bound of its 95 % interval, not corrected.
        high: Upper bound.
        p: p value of the paired test.
        corrected: The same, corrected for the number of pairs.
        seeds: How many seeds it rests on.
        real: Whether the corrected one is below 0.05.
    """

    first: str
    second: str
    mean: float | None
    low: float | None
    high: float | None
    p: float
    corrected: float
    seeds: int
    real: bool


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `compare` found. `print(comparison)` shows it as a table, with the summary below.

    Attributes:
        rows: One row per initializer at its best learning rate, the best first.
        grid: One row per initializer and learning rate.
        differences: One per pair of initializers.
        summary: What is real and what is noise, in sentences.
        recommendation: The label of the one initializer that beats all others; None if there is none.
        metric: The metric.
        minimize: Whether less of it is better.
        reported: The data that it is reported on, `test` or `validation`.
        results: The result of every trial.
    """

    rows: tuple[SchemeRow, ...]
    grid: tuple[SchemeRow, ...]
    differences: tuple[Difference, ...]
    summary: str
    recommendation: str | None
    metric: str
    minimize: bool
    reported: str
    results: tuple[TrialResult, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the comparison as plain dicts, lists and numbers."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Returns the comparison as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def to_markdown(self) -> str:
        """Returns the tables and the summary as Markdown."""
        return as_markdown(self)

    def to_dataframe(self) -> "pandas.DataFrame":
        """Returns one row per trial.

        Raises:
            ImportError: If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            cure = "pip install 'keras-initx[dataframe]'"
            raise ImportError(f"`to_dataframe` needs pandas: {cure}") from error
        table = [result.to_dict() for result in self.results]
        return pandas.DataFrame([{**row.pop("trial"), **row} for row in table])

    def to_tensorboard(self, log_dir: str | os.PathLike[str]) -> None:
        """Writes the trials for TensorBoard: a run each, on the pages HParams, Scalars and Time Series.

        Trials that the folder holds already are written anew, others stay.

        Args:
            log_dir: A local folder, for `tensorboard --logdir`; it is made when there is none.

        Raises:
            TypeError: If it is not a path.
            ValueError: If it cannot be written.
        """
        write_runs(self.results, self.metric, log_dir)

    def __str__(self) -> str:
        """Formats the comparison as a table."""
        return as_text(self)


def summarize(results: Sequence[TrialResult], metric: str, minimize: bool, reported: str) -> Comparison:
    """Draws the conclusions from the results of all trials."""
    key = lambda result: (result.trial.initializer, result.trial.learning_rate)  # noqa: E731
    order = list(dict.fromkeys(key(result) for result in results))
    grid = [_row([result for result in results if key(result) == pair], reported) for pair in order]
    sign = -1.0 if minimize else 1.0

    def quality(row: SchemeRow, value: str) -> tuple[float, ...]:
        found = getattr(row, value)
        return (row.lost, -sign * found) if found is not None else (row.seeds + 1, 0.0)

    labels = dict.fromkeys(row.initializer for row in grid)
    best = [
        min((row for row in grid if row.initializer == label), key=lambda row: quality(row, "validation"))
        for label in labels
    ]
    best.sort(key=lambda row: quality(row, "mean"))
    differences = _differences(best)
    recommendation, summary = _conclude(best, differences, len({row.learning_rate for row in grid}), reported)
    return Comparison(
        tuple(best),
        tuple(grid),
        differences,
        summary,
        recommendation,
        metric,
        minimize,
        reported,
        tuple(results),
    )


def _row(results: list[TrialResult], reported: str) -> SchemeRow:
    well = [result for result in results if result.ended_well]
    values = {
        result.trial.seed: value
        for result in well
        if (value := result.test if reported == "test" else result.final) is not None
    }
    spread = mean_interval(list(values.values())) if values else None
    finals = [result.final for result in well if result.final is not None]
    epochs = [found for result in results if (found := result.epochs_to_target) is not None]
    waited = [spent for result in results if (spent := result.seconds_to_target) is not None]
    enough = 2 * len(epochs) > len(results)
    gains = [gain for result in results if (gain := (result.signal or {}).get("forward_gain")) is not None]
    return SchemeRow(
        initializer=results[0].trial.initializer,
        learning_rate=results[0].trial.learning_rate,
        seeds=len(results),
        mean=spread.mean if spread else None,
        low=spread.low if spread else None,
        high=spread.high if spread else None,
        validation=statistics.mean(finals) if finals else None,
        diverged=sum(result.diverged for result in results),
        stopped=sum(result.stopped for result in results),
        failed=sum(bool(result.failure) for result in results),
        epochs_to_target=statistics.median(epochs) if enough else None,
        seconds_to_target=statistics.median(waited) if enough else None,
        forward_gain=statistics.median(gains) if gains else None,
        verdicts=tuple(sorted({kind for r in results for kind in (r.signal or {}).get("verdicts", ())})),
        seconds=statistics.median(result.seconds for result in results),
        values=values,
        failures=tuple(sorted({result.failure for result in results if result.failure})),
    )


def _differences(best: Sequence[SchemeRow]) -> tuple[Difference, ...]:
    """Pairs in the order of the rows, so that the first of a pair is the better one."""
    pairs = [(*pair, _shared(*pair)) for pair in itertools.combinations(best, 2)]
    tests = [
        paired_p([first.values[seed] for seed in seeds], [second.values[seed] for seed in seeds])
        if len(seeds) >= 2
        # Too few ended well to compare their values: compare how many did.
        else counts_p(first.seeds - first.lost, second.seeds - second.lost, first.seeds, second.seeds)
        for first, second, seeds in pairs
    ]
    differences = []
    for (first, second, seeds), p, corrected in zip(pairs, tests, holm(tests), strict=True):
        apart = [first.values[seed] - second.values[seed] for seed in seeds]
        mean, low, high = mean_interval(apart) if apart else (None, None, None)
        differences.append(
            Difference(
                *(first.initializer, second.initializer, mean, low, high),
                *(p, corrected, len(seeds), corrected < _LEVEL),
            )
        )
    return tuple(differences)


def _shared(first: SchemeRow, second: SchemeRow) -> list[int]:
    return sorted(first.values.keys() & second.values.keys())


def _conclude(
    best: Sequence[SchemeRow], differences: Sequence[Difference], rates: int, reported: str
) -> tuple[str | None, str]:
    """The recommendation, and the summary."""
    top = best[0]
    if top.mean is None:
        return None, "No initializer ended well in any seed."
    against = [difference for difference in differences if difference.first == top.initializer]
    said = [say(difference, best) for difference in against]
    ties = [difference.second for difference in against if not difference.real]
    if not against:
        recommendation = None
        said.append("One initializer alone: there is nothing to compare it with.")
    elif ties:
        recommendation = None
        names = " and ".join([top.initializer, *ties])
        said.append(f"No recommendation: no difference was found between {names} with {top.seeds} seeds.")
    else:
        recommendation = top.initializer
        said.append(f"Recommended: {top.initializer}.")
    if rates > 1 and reported == "validation":
        said.append(
            "Learning rates were chosen on the validation data that the figures come from, which flatters "
            "them; pass `test` for figures that were not chosen on."
        )
    return recommendation, "\n".join(said)
