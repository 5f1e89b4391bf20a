"""Which initializers differ: one test per pair of their values, and one of how often they end well."""

import itertools
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from keras_initx.experiments._rows import ComparisonRow, Difference
from keras_initx.experiments._statistics import Bounds, counts_p, holm, levels, paired

__all__ = ["differences_of"]

_LEVEL = 0.05  # of all tests together


class _Test(NamedTuple):
    """A pair, the better one first, and what can be tested of it."""

    kind: str
    first: ComparisonRow
    second: ComparisonRow
    apart: list[float]  # values of the first less those of the second, seed by seed
    p: float

    @property
    def made(self) -> bool:
        """Whether there is anything to test: it counts among the tests that p values are corrected for."""
        return self.kind == "endings" or len(self.apart) >= 2


def differences_of(rows: Sequence[ComparisonRow], minimize: bool, bounds: Bounds) -> tuple[Difference, ...]:
    """Compares all pairs of rows: their values on shared seeds; how often they end well, if seeds were lost.

    How often the two end well is tested only if seeds diverged or were stopped. Their values are tested where
    they share seeds; a pair with neither test has an entry without a figure. Seeds that failed by an
    exception count for neither test: what ran out of memory may be as good as any.
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
