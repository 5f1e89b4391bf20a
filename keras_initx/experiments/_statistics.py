"""Statistics over seeds: intervals of means, paired tests, and a correction for the number of tests."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Bounds", "Interval", "Paired", "counts_p", "holm", "levels", "mean_interval", "paired"]

Bounds = tuple[float | None, float | None]  # the least and the greatest possible value; None if unknown
_RESAMPLES = 9999
_FEW = 8  # from this number of values on, the bootstrap's interval holds the mean as often as Student's


class Interval(NamedTuple):
    """A mean and the bounds of its confidence interval."""

    mean: float
    low: float
    high: float


class Paired(NamedTuple):
    """A mean of differences, its confidence interval, and the p value of the test that the true mean is 0."""

    mean: float
    low: float
    high: float
    p: float


def mean_interval(
    values: Sequence[float], confidence: float = 0.95, bounds: Bounds = (None, None)
) -> Interval:
    """Returns the mean of independent values with its confidence interval.

    With bounds, the interval is Student's interval of the logit of the mean, by the delta method; with one
    bound only, of the logarithm. The interval stays within the bounds, and reaches further to the side where
    seeds that went wrong would be. Near a bound it holds the mean about as often as it says, and Student's
    own interval does not: for 3 values that follow Beta(99, 1), in 95 of 100 cases instead of 89.

    Without bounds, the interval is Student's interval for fewer than 8 values, and the expanded percentile
    interval of the bootstrap from 8 values on. The plain percentile interval is too narrow for few values: it
    has the width of a normal distribution with (n - 1) / n of the right variance. The expanded interval asks
    the bootstrap for a higher confidence, so that it equals Student's interval for a normal distribution.
    Fewer than 8 values have too few different resamples for the bootstrap. With three values, for example, no
    interval reaches beyond the three, so it holds the mean in 3 of 4 cases at most.

    >>> mean_interval([0.9, 0.9, 0.9])
    Interval(mean=0.9, low=0.9, high=0.9)
    >>> _, low, high = mean_interval([0.1, 0.2, 0.6], bounds=(0.0, 1.0))
    >>> 0 < low < 0.3 < high < 1
    True

    Args:
        values: One value for each seed. The interval of a single value is infinite.
        confidence: Share of the intervals that hold the true mean.
        bounds: The least and the greatest possible value. Bounds do not count if a value is outside.

    Reference:
        Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, section 5.3.
    """
    import scipy.stats

    found = np.asarray(values, "float64")
    mean, count = float(found.mean()), len(found)
    if count < 2:
        return Interval(mean, -math.inf, math.inf)
    if np.ptp(found) <= 1e-12 * np.abs(found).max():  # the values differ by rounding alone
        return Interval(mean, mean, mean)
    quantile = scipy.stats.t.ppf(0.5 - confidence / 2, count - 1)
    half = -quantile * float(scipy.stats.sem(found))
    lower, upper = bounds
    inside = (lower is None or found.min() >= lower) and (upper is None or found.max() <= upper)
    if inside and bounds != (None, None):
        return Interval(mean, *_within(mean, half, lower, upper))
    if count < _FEW:
        return Interval(mean, mean - half, mean + half)
    wide = math.sqrt(count / (count - 1)) * quantile
    tail = scipy.stats.norm.cdf(wide)
    rng = np.random.default_rng(0)  # a fixed seed, so that the same values have the same interval
    means = rng.choice(found, (_RESAMPLES, count)).mean(axis=1)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(low), float(high))


def _within(mean: float, half: float, lower: float | None, upper: float | None) -> tuple[float, float]:
    """Returns an interval that is symmetric about the mean on the scale of its logit or logarithm.

    The delta method takes half the width to the other scale: the derivative of the logit at the mean is
    1 / below + 1 / above. A missing bound is infinitely far away.
    """
    below = math.inf if lower is None else mean - lower
    above = math.inf if upper is None else upper - mean
    stretched = math.exp(half * (1 / below + 1 / above))
    if lower is None:
        return mean + above * (1 - stretched), mean + above * (1 - 1 / stretched)
    if upper is None:
        return lower + below / stretched, lower + below * stretched
    span = upper - lower
    return lower + span / (1 + above / below * stretched), lower + span / (1 + above / below / stretched)


def paired(differences: Sequence[float], confidence: float = 0.95, bounds: Bounds = (None, None)) -> Paired:
    """Returns Student's paired test of whether two initializers have the same mean, with its interval.

    The interval leaves out zero if and only if p is below 1 - `confidence`.

    >>> paired([0.0, 0.0, 0.0]).p
    1.0

    Args:
        differences: The difference of two values of the same seed, for each seed. A single difference proves
            nothing.
        confidence: Confidence of the interval.
        bounds: The least and the greatest possible difference.
    """
    import scipy.stats

    found = np.asarray(differences, "float64")
    mean, count = float(found.mean()), len(found)
    if count < 2:
        low, high, p = -math.inf, math.inf, 1.0
    elif np.ptp(found) <= 1e-9 * np.abs(found).max():
        # All differences are equal, so Student's test would divide by a spread of 0. The test of signs needs
        # no spread: n equal signs have p = 2^(1 - n). If it rejects nothing, the mean may be anything.
        p = 2.0 ** (1 - count) if found.any() else 1.0
        known = p < 1 - confidence or p == 1
        low, high = (mean, mean) if known else (-math.inf, math.inf)
    else:
        test = scipy.stats.ttest_1samp(found, 0.0)
        p, (low, high) = float(test.pvalue), map(float, test.confidence_interval(confidence))
    lower, upper = bounds
    low = low if lower is None else max(low, lower)
    return Paired(mean, low, high if upper is None else min(high, upper), p)


def counts_p(first: int, second: int, of_first: int, of_second: int) -> float:
    """Returns the two-sided p value of Fisher's exact test of whether two initializers end well as often.

    >>> round(counts_p(5, 0, 5, 5), 4)
    0.0079

    Args:
        first: Number of runs of the first initializer that ended well.
        second: Number of runs of the second initializer that ended well.
        of_first: Number of all runs of the first initializer.
        of_second: Number of all runs of the second initializer.
    """
    import scipy.stats

    table = [[first, of_first - first], [second, of_second - second]]
    return float(scipy.stats.fisher_exact(table).pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """Returns p values that are corrected for the number of tests, by Holm's procedure.

    The chance that any test without a real effect has a corrected value below a level is at most that level.

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


def levels(values: Sequence[float], level: float) -> list[float]:
    """Returns the level at which Holm's procedure tests each p value.

    A p value is below its level exactly if its corrected value is below the level of the family. The
    procedure goes from the smallest p value to the largest, and ends at the first one that is not below its
    level. That p value and all larger ones have the same level.

    >>> levels([0.01, 0.04, 0.06], 0.06)
    [0.02, 0.03, 0.03]

    Args:
        values: The p values of all tests of one family.
        level: Level of the family.
    """
    found, left, ended = [level] * len(values), len(values), False
    for index in np.argsort(values, kind="stable"):
        found[index] = level / left
        ended = ended or values[index] >= level / left
        left -= not ended
    return found
