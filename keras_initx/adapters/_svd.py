"""The leading singular values and vectors of a matrix: exact, or by random projections."""

import keras
from keras import ops

from keras_initx._types import Tensor

__all__ = ["leading_svd"]

_OVERSAMPLING = 16  # more columns than asked for: the last of them are the inaccurate ones


def leading_svd(
    matrix: Tensor, rank: int, iterations: int | None = None, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the largest singular values of a matrix with their left and right vectors.

    Law: the columns of Y = (M M')^q M G, with a Gaussian matrix G of rank + 16 columns, span nearly the
    leading left vectors. An orthonormal basis Q of Y reduces the problem to the small matrix Q' M. Each of
    the q iterations multiplies the lead of a singular value over the next one.

    >>> import numpy as np
    >>> matrix = np.random.default_rng(0).normal(size=(300, 200)) @ np.diag(0.9 ** np.arange(200))
    >>> matrix = matrix.astype("float32")
    >>> exact, fast = (leading_svd(matrix, 4, iterations)[1] for iterations in (None, 4))
    >>> bool(ops.max(ops.abs(exact - fast)) < 1e-3 * exact[0])
    True

    Args:
        matrix: float32 of shape (rows, columns).
        rank: Number of singular values.
        iterations: The number q; None for an exact decomposition.
        seed: Seed of G.

    Returns:
        Left vectors of shape (rows, rank), values of shape (rank,) from the largest on, and right vectors of
        shape (rank, columns).

    Reference:
        Halko, Martinsson and Tropp, 2011, "Finding structure with randomness", algorithms 4.4 and 5.1
        (https://arxiv.org/abs/0909.4061). Deviation: the oversampling is fixed.
    """
    matrix = ops.convert_to_tensor(matrix, "float32")
    rows, columns = matrix.shape
    kept = min(rank + _OVERSAMPLING, rows, columns)
    if iterations is None or kept >= min(rows, columns):
        left, values, right = ops.svd(matrix, full_matrices=False)
        return left[:, :rank], values[:rank], right[:rank]
    basis = keras.random.normal((columns, kept), dtype="float32", seed=keras.random.SeedGenerator(seed))
    basis = _basis(ops.matmul(matrix, basis))
    for _ in range(iterations):
        basis = _basis(ops.matmul(ops.transpose(matrix), basis))
        basis = _basis(ops.matmul(matrix, basis))
    left, values, right = ops.svd(ops.matmul(ops.transpose(basis), matrix), full_matrices=False)
    return ops.matmul(basis, left)[:, :rank], values[:rank], right[:rank]


def _basis(columns: Tensor) -> Tensor:
    return ops.qr(columns, mode="reduced")[0]
