"""Directions of data as columns of NumPy matrices: principal directions, random directions, centroids."""

import math

import numpy as np

# Directions with a standard deviation below this fraction of the largest are rounding of float32 activations.
_NO_SPREAD = 1e-5


def find_principal(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the principal directions of centred rows, and the standard deviation along each.

    Args:
        centred: Rows of mean 0, of shape (rows, fan_in).

    Returns:
        Falling standard deviations of shape (rank,), and unit columns of shape (fan_in, rank).
    """
    rows, fan_in = centred.shape
    if rows > fan_in:
        # Much faster than a singular value decomposition. Squaring loses values below 1e-8 of the
        # largest, which lie below _NO_SPREAD anyway.
        squares, directions = np.linalg.eigh(centred.T @ centred)
        values, directions = np.sqrt(np.maximum(squares[::-1], 0.0)), directions[:, ::-1]
    else:
        _, values, transposed = np.linalg.svd(centred, full_matrices=False)
        directions = transposed.T
    rank = np.count_nonzero(values > _NO_SPREAD * values[0])
    return values[:rank] / math.sqrt(rows), directions[:, :rank]


def fix_signs(columns: np.ndarray) -> np.ndarray:
    """Makes the largest entry of each column positive; of several equal ones, the first.

    A decomposition may return a direction or its negative, so the signs would differ between platforms.
    """
    sizes = np.abs(columns)
    # Rounding cannot tell which of two equal entries is larger. All within 1e-6 count as largest.
    place = np.argmax(sizes > (1 - 1e-6) * sizes.max(axis=0), axis=0)
    return columns * np.where(columns[place, np.arange(columns.shape[1])] < 0, -1.0, 1.0)


def extend(columns: np.ndarray, units: int, generator: np.random.Generator) -> np.ndarray:
    """Adds random unit columns up to `units` columns, orthogonal to all others as long as there is room."""
    size, count = columns.shape
    drawn = generator.standard_normal((size, units - count))
    # A space of `size` dimensions has room for `size` orthogonal columns. The rest stay as they are drawn.
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
    """Fits unit columns to the directions of rows, by spherical k-means. A row may point either way.

    Args:
        rows: Data of shape (rows, fan_in).
        centroids: Unit columns to begin with, of shape (fan_in, units).
        iterations: Number of rounds.
        generator: Chooses the rows that begin as centroids.

    Returns:
        Unit columns of shape (fan_in, units).
    """
    lengths, columns = np.square(rows).sum(axis=1), np.arange(centroids.shape[1])
    centroids = _seat(rows, centroids, columns, lengths, generator)
    for _ in range(iterations):
        scores = rows @ centroids
        owners = np.abs(scores).argmax(axis=1)
        # Adding the old centroid damps the step, and keeps a centroid without rows where it is.
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
    """Sets columns, one after the other, to random rows. A row is likely if it is not fitted yet.

    Args:
        rows: Data of shape (rows, fan_in).
        centroids: Unit columns of shape (fan_in, units).
        columns: Numbers of the columns to set.
        misfit: Squared part of each row that no centroid explains; a row is drawn in proportion to it.
        generator: Chooses the rows.
    """
    centroids, lengths = centroids.copy(), np.square(rows).sum(axis=1)
    for column in columns:
        misfit = np.maximum(misfit, 0.0)  # a difference of equal numbers may round below 0
        if misfit.sum() <= _NO_SPREAD * lengths.sum():
            break
        row = generator.choice(len(rows), p=misfit / misfit.sum())
        centroids[:, column] = rows[row] / math.sqrt(lengths[row])
        misfit = np.minimum(misfit, lengths - np.square(rows @ centroids[:, column]))
    return centroids
