"""Learning curves of a comparison: the mean of a log over the seeds by epoch, with its interval."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from keras_initx.checks import check_choice
from keras_initx.experiments._rows import ComparisonRow
from keras_initx.experiments._statistics import Bounds, Interval, mean_interval
from keras_initx.experiments._trial import TrialResult

__all__ = ["Curve", "curves_of"]


@dataclasses.dataclass(frozen=True)
class Curve:
    """One log of one initializer at one learning rate, over all seeds.

    Attributes:
        mean: Mean by epoch over the seeds that ended well; empty if no seed did. If a callback ended a seed
            before the others, its last value counts for the later epochs.
        low: Lower bound of the 95 % interval of the mean, by epoch.
        high: Upper bound of that interval, by epoch.
        values: The log by seed, of the seeds that ended well.
        lost: The log by seed of the other seeds, up to the last finite value. A seed that raised an exception
            has no log.
    """

    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    values: dict[int, tuple[float, ...]]
    lost: dict[int, tuple[float, ...]]


def curves_of(
    rows: Sequence[ComparisonRow],
    results: Sequence[TrialResult],
    name: str,
    default: str,
    bounds: Mapping[str, Bounds],
) -> dict[str, Curve]:
    """Returns the curve of each row by label, in the order of the rows.

    Args:
        rows: Initializers at the learning rates whose trials are drawn.
        results: All trials.
        name: Name of the log.
        default: Name of the log that a caller always may ask for.
        bounds: By name of a log without `val_`, the least and the greatest value that the log can have.

    Raises:
        ValueError: If no trial has a log of that name.
    """
    check_choice("name", name, {default, *(log for result in results for log in result.curves)})
    found: dict[tuple[str, float | None], list[TrialResult]] = {}
    for result in results:
        if name in result.curves:
            found.setdefault((result.trial.initializer, result.trial.learning_rate), []).append(result)
    return {
        row.initializer: _curve(
            found.get((row.initializer, row.learning_rate), ()),
            name,
            bounds.get(name.removeprefix("val_"), (None, None)),
        )
        for row in rows
    }


def _curve(results: Sequence[TrialResult], name: str, bounds: Bounds) -> Curve:
    values = {result.trial.seed: tuple(result.curves[name]) for result in results if result.ended_well}
    lost = {result.trial.seed: _finite(result.curves[name]) for result in results if not result.ended_well}
    longest = max(map(len, values.values()), default=0)
    spreads = [
        _interval([found[min(epoch, len(found) - 1)] for found in values.values()], bounds)
        for epoch in range(longest)
    ]
    mean, low, high = zip(*spreads, strict=True) if spreads else ((), (), ())
    return Curve(mean, low, high, values, lost)


def _interval(values: list[float], bounds: Bounds) -> Interval:
    finite = all(map(math.isfinite, values))
    return mean_interval(values, bounds=bounds) if finite else Interval(*[math.nan] * 3)


def _finite(values: Sequence[float]) -> tuple[float, ...]:
    end = next((epoch for epoch, value in enumerate(values) if not math.isfinite(value)), len(values))
    return tuple(values[:end])
