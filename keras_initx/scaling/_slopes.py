"""Slopes: how fast a number grows with the width."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from keras_initx.scaling._rows import CoordinateRow, Slope

__all__ = ["Fit", "exponent", "fit", "slopes_of"]


class Fit(NamedTuple):
    """A slope of log size over log width, with its noise.

    Attributes:
        slope: Mean of the slopes of the seeds. None if a size is 0 or not finite at some width.
        error: Standard error of `slope` over the seeds. None with one seed.
        ratio: The largest size over the smallest, of the means over the seeds at each width.
    """

    slope: float | None
    error: float | None = None
    ratio: float | None = None


def exponent(widths: Sequence[float], sizes: Sequence[float]) -> float | None:
    """Returns the slope of the least-squares line through log size over log width.

    >>> exponent([2, 4, 8], [1.0, 0.5, 0.25])
    -1.0

    Args:
        widths: Different positive numbers.
        sizes: A size for each width.

    Returns:
        The slope. None if a size is not a positive, finite number.
    """
    if not all(0 < size < math.inf for size in sizes):
        return None
    x, y = np.log2(widths), np.log2(sizes)
    x = x - x.mean()
    return float(x @ y / (x @ x))


def fit(widths: Sequence[float], sizes: Mapping[int, Sequence[float]]) -> Fit:
    """Returns the slope over all seeds.

    >>> fit([2, 4], {0: [1.0, 2.0], 1: [1.0, 4.0]})
    Fit(slope=1.5, error=0.5, ratio=3.0)

    Args:
        widths: Different positive numbers.
        sizes: For each seed, a size for each width.
    """
    slopes = [exponent(widths, of_seed) for of_seed in sizes.values()]
    known = [slope for slope in slopes if slope is not None]
    if len(known) < len(slopes) or not known:
        return Fit(None)
    error = float(np.std(known, ddof=1) / math.sqrt(len(known))) if len(known) > 1 else None
    means = np.mean(list(sizes.values()), axis=0)
    return Fit(float(np.mean(known)), error, float(means.max() / means.min()))


def slopes_of(rows: Sequence[CoordinateRow]) -> Iterator[Slope]:
    """Yields the slopes of each layer and step, in the order of the rows.

    Args:
        rows: The rows of a report, of two or more widths.
    """
    groups: dict[tuple[str, str, int], dict[int, dict[int, CoordinateRow]]] = {}
    for row in rows:
        of_seed = groups.setdefault((row.path, row.role, row.step), {}).setdefault(row.seed, {})
        of_seed[row.width] = row
    for key, seeds in groups.items():
        widths = list(next(iter(seeds.values())))
        value, change = (
            fit(widths, {s: [getattr(of_seed[w], name) for w in widths] for s, of_seed in seeds.items()})
            for name in ("value", "change")
        )
        yield Slope(*key, *value, *change)
