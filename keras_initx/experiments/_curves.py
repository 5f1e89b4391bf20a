"""What the epochs tell of each initializer: the mean of a log over the seeds, and its interval."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_initx.checks import check_choice
from keras_initx.experiments._statistics import Bounds, Interval, mean_interval

if TYPE_CHECKING:
    from keras_initx.experiments._comparison import Comparison

__all__ = ["Curve", "curves_of"]


@dataclasses.dataclass(frozen=True)
class Curve:
    """One log of one initializer at one learning rate, over all seeds.

    Attributes:
        mean: The mean by epoch over the seeds that ended well; empty if none did. A seed that a callback
            ended before the others counts with its last value from there on.
        low: Lower bound of its 95 % interval, by epoch.
        high: Upper bound.
        values: The log by seed, of the seeds that ended well.
        lost: The log by seed up to where it was finite, of the others; one that raised left none.
    """

    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    values: dict[int, tuple[float, ...]]
    lost: dict[int, tuple[float, ...]]


def curves_of(comparison: "Comparison", name: str | None) -> dict[str, Curve]:
    """Returns the curve of each row by label, in the order of the rows."""
    default = f"val_{comparison.metric}"
    allowed = {default, *(log for result in comparison.results for log in result.curves)}
    name = check_choice("name", default if name is None else name, allowed)
    bounds = comparison.bounds.get(name.removeprefix("val_"), (None, None))
    curves = {}
    for row in comparison.rows:
        chosen = (row.initializer, row.learning_rate)
        results = [
            result
            for result in comparison.results
            if (result.trial.initializer, result.trial.learning_rate) == chosen and name in result.curves
        ]
        curves[row.initializer] = _curve(
            {result.trial.seed: tuple(result.curves[name]) for result in results if result.ended_well},
            {result.trial.seed: _finite(result.curves[name]) for result in results if not result.ended_well},
            bounds,
        )
    return curves


def _curve(values: dict[int, tuple[float, ...]], lost: dict[int, tuple[float, ...]], bounds: Bounds) -> Curve:
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
