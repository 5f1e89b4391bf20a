"""Counts of values in buckets, as TensorBoard's own summary has them."""

from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["BINS", "buckets"]

BINS = 30
_CHUNK = 2**15  # values whose float64 copies fit a core's cache


def buckets(values: Any, bins: int = BINS) -> tuple[np.ndarray, float]:
    """Counts an array's finite values in buckets of equal width.

    >>> table, nonfinite = buckets([0.0, 1.0, 1.0, np.nan], bins=2)
    >>> print(table, nonfinite)
    [[0.  0.5 1. ]
     [0.5 1.  2. ]] 0.25

    Args:
        values: Array of any shape and numeric dtype.
        bins: Number of buckets.

    Returns:
        Rows of (left edge, right edge, count) in float64, and the fraction of NaN and Inf. When all values
        are equal, all edges are that value and the last bucket holds them; without any value all are zero.
    """
    flat = np.asarray(values).reshape(-1)
    finite, low, high = _range(flat)
    nonfinite = 1 - finite / flat.size if flat.size else 0.0
    if not finite:
        return np.zeros((bins, 3)), nonfinite
    if high / 2 - low / 2 > np.finfo(np.float64).max / 2:  # their difference overflows
        table, _ = buckets(flat / 2, bins)
        return table * [2, 2, 1], nonfinite
    edges = np.linspace(low, high, bins + 1)
    width = (high - low) / bins
    counts = np.zeros(bins, np.int64)
    if width == 0:
        counts[-1] = finite
    else:
        for chunk in _chunks(flat, finite == flat.size):
            chunk -= low
            chunk /= width
            found = np.bincount(chunk.astype(np.intp), minlength=bins + 1)
            found[bins - 1] += found[bins]  # the greatest value belongs to the last bucket
            counts += found[:bins]
    return np.stack([edges[:-1], edges[1:], counts], axis=1), nonfinite


def _range(flat: np.ndarray) -> tuple[int, float, float]:
    """How many values are finite, and the least and the greatest of those."""
    if not flat.size:
        return 0, 0.0, 0.0
    with np.errstate(invalid="ignore"):
        low, high = float(flat.min()), float(flat.max())
    if np.isfinite([low, high]).all():
        return flat.size, low, high
    parts = [(part.size, part.min(), part.max()) for part in _chunks(flat, False) if part.size]
    sizes, lows, highs = zip(*parts, strict=True) if parts else ((), (0.0,), (0.0,))
    return sum(sizes), min(lows), max(highs)


def _chunks(flat: np.ndarray, all_finite: bool) -> Iterator[np.ndarray]:
    """Copies of the finite values in float64, few at a time: a copy of the whole would be twice its size."""
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK].astype(np.float64)
        yield chunk if all_finite else chunk[np.isfinite(chunk)]
