"""The conclusions from the results of all trials: best learning rates, differences, a recommendation."""

import itertools
import statistics
from collections.abc import Sequence

from keras_initx.experiments._comparison import Comparison, Difference, SchemeRow
from keras_initx.experiments._format import say
from keras_initx.experiments._statistics import counts_p, holm, mean_interval, paired_p
from keras_initx.experiments._trial import TrialResult

__all__ = ["summarize"]

_LEVEL = 0.05  # of the tests, after correction


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
        names = " and ".join([", ".join([top.initializer, *ties[:-1]]), ties[-1]])
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
