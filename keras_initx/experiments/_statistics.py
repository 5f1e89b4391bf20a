"""What seeds tell: intervals by the bootstrap, paired tests, and a correction for how many there are."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Interval", "counts_p", "holm", "mean_interval", "paired_p"]

_RESAMPLES = 9999
_FEW = 8  # values: the bootstrap's interval then holds the mean as often as Student's


class Interval(NamedTuple):
    """A mean and the bounds of its confidence interval."""

    mean: float
    low: float
    high: float


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Returns the mean of independent values with its confidence interval.

    Of few values the plain percentile interval of the bootstrap is too narrow: its bounds are those of a
    normal distribution whose variance is (n - 1) / n of what it should be. The expanded percentile interval
    asks the bootstrap for a wider level, so that for a normal distribution it is Student's interval. Of fewer
    than 8 values there are too few different resamples for that (no interval of three reaches beyond them,
    and so holds the mean in 3 of 4 cases at most): it is Student's own.

    >>> mean_interval([0.9, 0.9, 0.9])
    Interval(mean=0.9, low=0.9, high=0.9)

    Args:
        values: One value a seed; of a single one the interval is not bounded.
        confidence: Share of the intervals that hold the true mean.

    Reference:
        Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, section 5.3.
    """
    import scipy.stats

    found = np.asarray(values, "float64")
    mean, count = float(found.mean()), len(found)
    if count < 2:
        return Interval(mean, -math.inf, math.inf)
    if np.ptp(found) == 0:
        return Interval(mean, mean, mean)
    quantile = scipy.stats.t.ppf(0.5 - confidence / 2, count - 1)
    if count < _FEW:
        half = -quantile * float(scipy.stats.sem(found))
        return Interval(mean, mean - half, mean + half)
    wide = math.sqrt(count / (count - 1)) * quantile
    tail = scipy.stats.norm.cdf(wide)
    rng = np.random.default_rng(0)  # the same values have the same interval
    means = rng.choice(found, (_RESAMPLES, count)).mean(axis=1)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(low), float(high))


def paired_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Returns the two-sided p value of Student's paired test that two schemes have the same mean.

    >>> paired_p([0.9, 0.8, 0.7], [0.9, 0.8, 0.7])
    1.0

    Args:
        first: One value a seed.
        second: The values of the same seeds, in the same order; of a single seed nothing can be told.
    """
    import scipy.stats

    differences = np.subtract(first, second)
    if len(differences) < 2 or not differences.any():
        return 1.0
    if np.ptp(differences) <= 1e-9 * np.abs(differences).max():
        return 2.0 ** (1 - len(differences))  # no spread to compare with: the test of signs
    return float(scipy.stats.ttest_1samp(differences, 0.0).pvalue)


def counts_p(first: int, second: int, of_first: int, of_second: int) -> float:
    """Returns the two-sided p value of Fisher's exact test that two schemes end well equally often.

    >>> round(counts_p(5, 0, 5, 5), 4)
    0.0079

    Args:
        first: How many runs of the first ended well.
        second: How many of the second.
        of_first: Of how many.
        of_second: Of how many.
    """
    import scipy.stats

    table = [[first, of_first - first], [second, of_second - second]]
    return float(scipy.stats.fisher_exact(table).pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """Returns p values corrected for how many there are: any true one is below a level with its probability.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]

    Args:
        values: The p values of all tests of one family.

    Reference:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    order = np.argsort(values, kind="stable")
    corrected, least = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = least
    return corrected
