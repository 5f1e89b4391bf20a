"""Counts of values in buckets, the same as in the histogram summary of TensorBoard."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["BINS", "buckets"]

BINS = 30
_CHUNK = 2**15  # values in a chunk; a copy in float64 fits the cache of a core


def buckets(values: ArrayLike, bins: int = BINS) -> tuple[np.ndarray, float]:
    """Counts the finite values of an array in buckets of equal width.

    >>> table, nonfinite = buckets([0.0, 1.0, 1.0, np.nan], bins=2)
    >>> print(table, nonfinite)
    [[0.  0.5 1. ]
     [0.5 1.  2. ]] 0.25

    Args:
        values: Array of any shape and numeric dtype.
        bins: Number of buckets.

    Returns:
        A float64 array of shape (bins, 3) with left edge, right edge and count of each bucket, and the
        fraction of NaN and Inf among the values. If all finite values are equal, all edges are that value,
        and the last bucket has all of them. Without a finite value the array is zero.
    """
    flat = np.asarray(values).reshape(-1)
    finite, low, high = _range(flat)
    nonfinite = 1 - finite / flat.size if flat.size else 0.0
    if not finite:
        return np.zeros((bins, 3)), nonfinite
    if high / 2 - low / 2 > np.finfo(np.float64).max / 2:  # high - low would overflow
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
            # Only the greatest value is at the right edge of the last bucket, to which it belongs.
            found[bins - 1] += found[bins]
            counts += found[:bins]
    return np.stack([edges[:-1], edges[1:], counts], axis=1), nonfinite


def _range(flat: np.ndarray) -> tuple[int, float, float]:
    """Returns the number of finite values, and the least and the greatest finite value."""
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
    """Yields copies of the finite values in float64, a chunk at a time.

    One copy of a whole float32 array would take twice the memory of the array.
    """
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK].astype(np.float64)
        yield chunk if all_finite else chunk[np.isfinite(chunk)]
