"""From the results of all trials to a comparison: rows, differences, summary, recommendation."""

import math
import statistics
from collections.abc import Mapping, Sequence

from keras_initx.experiments._comparison import Comparison
from keras_initx.experiments._differences import differences_of
from keras_initx.experiments._rows import ComparisonRow
from keras_initx.experiments._statistics import Bounds, mean_interval
from keras_initx.experiments._trial import TrialResult
from keras_initx.experiments._verdict import conclude

__all__ = ["summarize"]

_CLOSE = 1e-5  # relative difference of the same metric when it is computed in two ways


def summarize(
    results: Sequence[TrialResult],
    metric: str,
    minimize: bool,
    reported: str,
    bounds: Mapping[str, Bounds] | None = None,
    chance: float | None = None,
) -> Comparison:
    """Returns the comparison of all trials.

    Args:
        results: The results of all trials.
        metric: Name of the metric.
        minimize: Whether less of the metric is better.
        reported: The data that the metric is reported on: `test` or `validation`.
        bounds: By name of a log, the least and the greatest value that the log can have, where known.
        chance: The metric of the best prediction that is the same for all rows; None if it is not known.
    """
    known = dict(bounds or {})
    groups: dict[tuple[str, float | None], list[TrialResult]] = {}
    for result in results:
        groups.setdefault((result.trial.initializer, result.trial.learning_rate), []).append(result)
    own = known.get(metric, (None, None))
    grid = {key: _row(found, reported, minimize, own, chance) for key, found in groups.items()}
    labels = dict.fromkeys(label for label, _ in groups)
    best = [
        _at_best_rate([(grid[key], found) for key, found in groups.items() if key[0] == label], minimize)
        for label in labels
    ]
    best.sort(key=lambda row: _rank(row.mean, row, minimize))
    differences = differences_of(best, minimize, own)
    found = Comparison(
        rows=tuple(best),
        grid=tuple(grid.values()),
        differences=differences,
        summary="",
        recommendation=None,
        metric=metric,
        minimize=minimize,
        reported=reported,
        results=tuple(results),
        bounds=known,
        chance=chance,
    )
    return conclude(found)


def _rank(value: float | None, row: ComparisonRow, minimize: bool) -> tuple[float, ...]:
    """Returns a key that sorts the best value first, and among equal or missing values the fewest losses."""
    quality = math.inf if value is None else value if minimize else -value
    return (quality, row.judged - row.ended, row.failed)


def _at_best_rate(rows: Sequence[tuple[ComparisonRow, list[TrialResult]]], minimize: bool) -> ComparisonRow:
    """Returns the row of one initializer at its best learning rate.

    The best rate has the best mean on the validation data, over the seeds that ended well at all rates: a
    mean over other seeds could be better by their luck alone. A rate at which half of the seeds or more
    diverge is out, unless all rates are out. Seeds that raised an exception say nothing about a rate.
    """
    usable = [pair for pair in rows if pair[0].ended > pair[0].diverged]
    usable = usable or [pair for pair in rows if pair[0].ended] or list(rows)
    finals = [
        {
            result.trial.seed: result.final
            for result in found
            if result.ended_well and result.final is not None
        }
        for _, found in usable
    ]
    shared = set.intersection(*map(set, finals))

    def quality(place: int) -> tuple[float, ...]:
        values = [value for seed, value in finals[place].items() if seed in shared or not shared]
        return _rank(statistics.fmean(values) if values else None, usable[place][0], minimize)

    return usable[min(range(len(usable)), key=quality)][0]


def _row(
    results: list[TrialResult], reported: str, minimize: bool, bounds: Bounds, chance: float | None
) -> ComparisonRow:
    well = [result for result in results if result.ended_well]
    values = {
        result.trial.seed: value
        for result in well
        if (value := result.test if reported == "test" else result.final) is not None and math.isfinite(value)
    }
    numbers = list(values.values())
    spread = mean_interval(numbers, bounds=bounds) if values else None
    finals = [result.final for result in well if result.final is not None]
    epochs = [found for result in results if (found := result.epochs_to_target) is not None]
    waited = [spent for result in results if (spent := result.seconds_to_target) is not None]
    enough = 2 * len(epochs) > len(results)
    gains = [gain for result in results if (gain := (result.signal or {}).get("forward_gain")) is not None]
    return ComparisonRow(
        initializer=results[0].trial.initializer,
        learning_rate=results[0].trial.learning_rate,
        seeds=len(results),
        mean=spread.mean if spread else None,
        std=statistics.stdev(numbers) if len(numbers) > 1 else None,
        low=spread.low if spread else None,
        high=spread.high if spread else None,
        validation=statistics.fmean(finals) if finals else None,
        # A trial that ended well, but whose metric on the test data is NaN, counts as a trial that diverged.
        diverged=sum(r.diverged and not r.failure for r in results) + len(well) - len(values),
        stopped=sum(r.stopped and not (r.diverged or r.failure) for r in results),
        failed=sum(bool(r.failure) for r in results),
        at_chance=bool(values) and chance is not None and not _beyond(numbers, chance, minimize),
        epochs_to_target=statistics.median(epochs) if enough else None,
        seconds_to_target=statistics.median(waited) if enough else None,
        forward_gain=statistics.median(gains) if gains else None,
        verdicts=tuple(sorted({kind for r in results for kind in (r.signal or {}).get("verdicts", ())})),
        seconds=statistics.median(result.seconds for result in results),
        values=values,
        failures=tuple(sorted({result.failure for result in results if result.failure})),
    )


def _beyond(values: Sequence[float], chance: float, minimize: bool) -> bool:
    """Whether any value is better than chance by more than rounding."""
    best = min(values) if minimize else max(values)
    ahead = chance - best if minimize else best - chance
    return ahead > _CLOSE * max(abs(chance), abs(best))
