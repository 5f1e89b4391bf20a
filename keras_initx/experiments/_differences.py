"""The tests of each pair of initializers: of their values, and of how often they end well."""

import itertools
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from keras_initx.experiments._rows import ComparisonRow, Difference
from keras_initx.experiments._statistics import Bounds, counts_p, holm, levels, paired

__all__ = ["differences_of"]

_LEVEL = 0.05  # level of all tests together


class _Test(NamedTuple):
    """One test of a pair of rows, the better row first."""

    kind: str
    first: ComparisonRow
    second: ComparisonRow
    apart: list[float]  # the value of the first minus the value of the second, seed by seed
    p: float

    @property
    def made(self) -> bool:
        """Whether there is anything to test. Holm's correction counts only these tests."""
        return self.kind == "endings" or len(self.apart) >= 2


def differences_of(rows: Sequence[ComparisonRow], minimize: bool, bounds: Bounds) -> tuple[Difference, ...]:
    """Compares all pairs of rows.

    A pair that shares seeds has a test of the values on these seeds. A pair in which seeds diverged or were
    stopped has a test of how often the two end well. A pair with neither test has an entry without figures.
    Seeds that raised an exception count for no test: a trial that ran out of memory may be as good as any.

    Args:
        rows: Initializers at their best learning rates.
        minimize: Whether less of the metric is better.
        bounds: The least and the greatest value of the metric.
    """
    tests = [test for pair in itertools.combinations(rows, 2) for test in _tests_of(*pair, minimize)]
    family = [test.p for test in tests if test.made]
    corrected, own = iter(holm(family)), iter(levels(family, _LEVEL))
    lower, upper = bounds
    both = (None, None) if lower is None or upper is None else (lower - upper, upper - lower)
    return tuple(
        _difference(test, next(corrected), next(own), both)
        if test.made
        else _difference(test, 1.0, _LEVEL, both)
        for test in tests
    )


def _tests_of(one: ComparisonRow, other: ComparisonRow, minimize: bool) -> list[_Test]:
    found = []
    judged = min(one.judged, other.judged) > 0
    if judged and one.judged + other.judged > one.ended + other.ended:
        first, second = (one, other) if _share(one) >= _share(other) else (other, one)
        p = counts_p(first.ended, second.ended, first.judged, second.judged)
        found.append(_Test("endings", first, second, [], p))
    seeds = sorted(one.values.keys() & other.values.keys())
    if seeds or not found:
        apart = [one.values[seed] - other.values[seed] for seed in seeds]
        worse = bool(seeds) and (fmean(apart) > 0 if minimize else fmean(apart) < 0)
        first, second, apart = (other, one, [-value for value in apart]) if worse else (one, other, apart)
        p = paired(apart).p if len(seeds) >= 2 else 1.0
        found.insert(0, _Test("values", first, second, apart, p))
    return found


def _share(row: ComparisonRow) -> float:
    return row.ended / row.judged


def _difference(test: _Test, corrected: float, level: float, bounds: Bounds) -> Difference:
    mean, low, high = paired(test.apart, 1 - level, bounds)[:3] if test.apart else (None, None, None)
    return Difference(
        first=test.first.initializer,
        second=test.second.initializer,
        kind=test.kind,
        mean=mean,
        low=low,
        high=high,
        p=test.p,
        corrected=corrected,
        seeds=min(test.first.judged, test.second.judged) if test.kind == "endings" else len(test.apart),
        real=test.made and test.p < level,
    )
