"""Finds kernels that are copies of each other, as one seed or one initializer for several layers gives."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from keras import ops

from keras_initx.walk import KernelSite

__all__ = ["Duplicate", "find_duplicates"]

_SAMPLED = 4096  # entries that are compared first
_CORRELATED = 0.999
_LEAST = 8  # entries; two smaller kernels can agree by chance


@dataclasses.dataclass(frozen=True)
class Duplicate:
    """Two kernels with perfectly correlated entries: one is a multiple of the other, up to a constant.

    Attributes:
        path: Path of the first kernel.
        other: Path of the second kernel.
        correlation: Correlation of their entries: 1 or -1, up to rounding.
        equal: Whether the kernels are equal.
    """

    path: str
    other: str
    correlation: float
    equal: bool


def find_duplicates(sites: Sequence[KernelSite]) -> tuple[Duplicate, ...]:
    """Finds all pairs of kernels that have the same shape and are perfectly correlated.

    A kernel is left out if one number fills most of it: zeros, identities and Dirac kernels are equal by
    design.

    Args:
        sites: Kernels of a model.

    Returns:
        Each pair once.
    """
    shapes: dict[tuple[int, ...], list[KernelSite]] = {}
    for site in sites:
        shapes.setdefault(tuple(site.kernel.shape), []).append(site)
    return tuple(pair for shape, group in shapes.items() if len(group) > 1 for pair in _pairs(shape, group))


def _pairs(shape: tuple[int, ...], sites: Sequence[KernelSite]) -> Iterator[Duplicate]:
    """Yields the duplicates among kernels of one shape.

    A deep model has many kernels of one shape, and many pairs. A product of matrices first compares a sample
    of the entries of all pairs. Only a pair that passes is compared in full.
    """
    size = int(np.prod(shape))
    if size < _LEAST:
        return
    places = np.arange(size)
    if size > _SAMPLED:
        places = np.random.default_rng(0).choice(size, _SAMPLED, replace=False)
    rows = [_values(site)[places].astype("float64") for site in sites]
    kept = [number for number, row in enumerate(rows) if _varies(row)]
    if len(kept) < 2:
        return
    matrix = np.stack([rows[number] - rows[number].mean() for number in kept])
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    close = np.argwhere(np.triu(np.abs(matrix @ matrix.T) > _CORRELATED, 1))
    for first, second in close:
        one, other = sites[kept[first]], sites[kept[second]]
        a, b = _values(one), _values(other)
        correlation = float(np.corrcoef(a, b)[0, 1])
        if abs(correlation) > _CORRELATED:
            yield Duplicate(one.path, other.path, correlation, bool(np.array_equal(a, b)))


def _varies(row: np.ndarray) -> bool:
    """Whether all entries are finite and no number fills half of them."""
    _, counts = np.unique(row, return_counts=True)
    return bool(np.isfinite(row).all() and counts.max() < row.size / 2)


def _values(site: KernelSite) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(ops.cast(site.kernel.value, "float32"))).reshape(-1)
