"""What seeds tell: intervals of means, paired tests, and a correction for how many there are."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Bounds", "Interval", "Paired", "counts_p", "holm", "levels", "mean_interval", "paired"]

Bounds = tuple[float | None, float | None]  # what a number cannot be below and above, None where unknown
_RESAMPLES = 9999
_FEW = 8  # values: the bootstrap's interval then holds the mean as often as Student's


class Interval(NamedTuple):
    """A mean and the bounds of its confidence interval."""

    mean: float
    low: float
    high: float


class Paired(NamedTuple):
    """The mean of differences, its interval, and the p value of the test that the true mean is zero."""

    mean: float
    low: float
    high: float
    p: float


def mean_interval(
    values: Sequence[float], confidence: float = 0.95, bounds: Bounds = (None, None)
) -> Interval:
    """Returns the mean of independent values with its confidence interval.

    Of a metric with bounds, the interval is Student's for the logit of the mean, or for its logarithm where
    there is one bound, by the delta method. It stays within the bounds, and reaches further to the side where
    seeds that went wrong would be. Near a bound it holds the mean about as often as it says, where Student's
    own does not: for 3 values that follow Beta(99, 1), in 95 of 100 cases instead of 89.

    Without bounds it is Student's below 8 values, and the expanded percentile interval of the bootstrap from
    there on. The plain percentile interval is too narrow for few values: its bounds are those of a normal
    distribution whose variance is (n - 1) / n of what it should be. The expanded one asks the bootstrap for a
    wider level, so that for a normal distribution it is Student's interval. Of fewer than 8 values there are
    too few different resamples for that (no interval of three reaches beyond them, and so holds the mean in 3
    of 4 cases at most).

    >>> mean_interval([0.9, 0.9, 0.9])
    Interval(mean=0.9, low=0.9, high=0.9)
    >>> _, low, high = mean_interval([0.1, 0.2, 0.6], bounds=(0.0, 1.0))
    >>> 0 < low < 0.3 < high < 1
    True

    Args:
        values: One value a seed; of a single one the interval is infinite.
        confidence: Share of the intervals that hold the true mean.
        bounds: What the values cannot be below and above. Bounds that a value is outside of do not count.

    Reference:
        Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, section 5.3.
    """
    import scipy.stats

    found = np.asarray(values, "float64")
    mean, count = float(found.mean()), len(found)
    if count < 2:
        return Interval(mean, -math.inf, math.inf)
    if np.ptp(found) <= 1e-12 * np.abs(found).max():  # none but of rounding
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
    rng = np.random.default_rng(0)  # the same values have the same interval
    means = rng.choice(found, (_RESAMPLES, count)).mean(axis=1)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(low), float(high))


def _within(mean: float, half: float, lower: float | None, upper: float | None) -> tuple[float, float]:
    """Bounds that are symmetric about the mean on the scale of its logit or logarithm."""
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
    """Returns Student's paired test that two schemes have the same mean, and the interval that it belongs to.

    The interval leaves out zero if and only if p is below 1 - `confidence`.

    >>> paired([0.0, 0.0, 0.0]).p
    1.0

    Args:
        differences: One a seed, of two values of the same seed; of a single one nothing can be told.
        confidence: That of the interval.
        bounds: What the differences cannot be below and above.
    """
    import scipy.stats

    found = np.asarray(differences, "float64")
    mean, count = float(found.mean()), len(found)
    if count < 2:
        low, high, p = -math.inf, math.inf, 1.0
    elif np.ptp(found) <= 1e-9 * np.abs(found).max():
        # No spread to compare with: the test of signs, and all that it does not reject.
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


def levels(values: Sequence[float], level: float) -> list[float]:
    """Returns at which level Holm's procedure tests each p value: it is below that if it is once corrected.

    The first one that is not below ends the procedure; it and all larger ones have its level.

    >>> levels([0.01, 0.04, 0.06], 0.06)
    [0.02, 0.03, 0.03]

    Args:
        values: The p values of all tests of one family.
        level: That of the family.
    """
    found, left, ended = [level] * len(values), len(values), False
    for index in np.argsort(values, kind="stable"):
        found[index] = level / left
        ended = ended or values[index] >= level / left
        left -= not ended
    return found
