"""Directions of data as columns of NumPy matrices: principal ones, random ones, centroids."""

import math

import numpy as np

# Activations of float32 carry no spread below this fraction of the largest.
_NO_SPREAD = 1e-5


def find_principal(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the falling stds (rank,) of centred rows along their principal directions (fan_in, rank)."""
    rows, fan_in = centred.shape
    if rows > fan_in:
        # Much faster than a singular value decomposition; it loses what lies below 1e-8 of the largest.
        squares, directions = np.linalg.eigh(centred.T @ centred)
        values, directions = np.sqrt(np.maximum(squares[::-1], 0.0)), directions[:, ::-1]
    else:
        _, values, transposed = np.linalg.svd(centred, full_matrices=False)
        directions = transposed.T
    rank = np.count_nonzero(values > _NO_SPREAD * values[0])
    return values[:rank] / math.sqrt(rows), directions[:, :rank]


def fix_signs(columns: np.ndarray) -> np.ndarray:
    """Makes the first of each column's largest entries positive; which is first, rounding cannot tell."""
    sizes = np.abs(columns)
    place = np.argmax(sizes > (1 - 1e-6) * sizes.max(axis=0), axis=0)
    return columns * np.where(columns[place, np.arange(columns.shape[1])] < 0, -1.0, 1.0)


def extend(columns: np.ndarray, units: int, generator: np.random.Generator) -> np.ndarray:
    """Adds random unit columns, orthogonal to all others as long as the space has room."""
    size, count = columns.shape
    drawn = generator.standard_normal((size, units - count))
    inside, beyond = drawn[:, : size - count], drawn[:, size - count :]
    for _ in range(2):  # rounding leaves a little of the columns after the first
        inside = inside - columns @ (columns.T @ inside)
    inside, triangle = np.linalg.qr(inside)
    inside = inside * np.where(np.diagonal(triangle) < 0, -1.0, 1.0)
    return np.concatenate([columns, inside, to_unit(beyond)], axis=1)


def to_unit(columns: np.ndarray) -> np.ndarray:
    """Divides columns by their norms."""
    return columns / np.linalg.norm(columns, axis=0)


def cluster(
    rows: np.ndarray, centroids: np.ndarray, iterations: int, generator: np.random.Generator
) -> np.ndarray:
    """Fits unit columns to the directions, of either sign, of rows."""
    lengths, columns = np.square(rows).sum(axis=1), np.arange(centroids.shape[1])
    centroids = _seat(rows, centroids, columns, lengths, generator)
    for _ in range(iterations):
        scores = rows @ centroids
        owners = np.abs(scores).argmax(axis=1)
        centroids = to_unit(rows.T @ np.where(owners[:, None] == columns, scores, 0.0) + centroids)
        idle = np.setdiff1d(columns, owners)
        if len(idle):
            misfit = lengths - np.square(rows @ centroids).max(axis=1)
            centroids = _seat(rows, centroids, idle, misfit, generator)
    return centroids


def _seat(
    rows: np.ndarray,
    centroids: np.ndarray,
    columns: np.ndarray,
    misfit: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """Sets columns, one after the other, to rows drawn in proportion to what is not fitted of them yet."""
    centroids, lengths = centroids.copy(), np.square(rows).sum(axis=1)
    for column in columns:
        misfit = np.maximum(misfit, 0.0)
        if misfit.sum() <= _NO_SPREAD * lengths.sum():
            break
        row = generator.choice(len(rows), p=misfit / misfit.sum())
        centroids[:, column] = rows[row] / math.sqrt(lengths[row])
        misfit = np.minimum(misfit, lengths - np.square(rows @ centroids[:, column]))
    return centroids
