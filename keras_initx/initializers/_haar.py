"""Uniformly distributed (Haar) semi-orthogonal matrices, by products of random Householder reflections."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

_SMALL = 512  # rows up to which a QR decomposition costs less
_WIDTH = 512  # of a panel of reflections, which two matrix products apply
_LARGE = 2**24  # entries from which on panels are narrower, for the memory that they take


def draw_haar(blocks: list[int], rows: int, columns: int, dtype: str, seed: Callable[[str], Any]) -> Any:
    """Draws independent matrices of shape (*blocks, rows, columns) with orthonormal rows or columns.

    Args:
        blocks: Shape of the array of matrices.
        rows: Rows of a matrix.
        columns: Columns of a matrix.
        dtype: float32 or float64.
        seed: Gives the seed of each draw by its label.

    Returns:
        The matrices; columns are orthonormal if there are no more of them than rows, else rows are.

    Reference:
        Stewart, 1980, "The efficient generation of random orthogonal matrices"; Schreiber and
        Van Loan, 1989, for the product of reflections as I - V T V^T.
    """
    tall, wide = max(rows, columns), min(rows, columns)
    build = _by_qr if tall <= _SMALL else _by_reflections
    matrix = build(blocks, tall, wide, dtype, seed)
    return ops.swapaxes(matrix, -2, -1) if rows < columns else matrix


def _by_qr(blocks: list[int], rows: int, columns: int, dtype: str, seed: Callable[[str], Any]) -> Any:
    q, r = ops.qr(keras.random.normal((*blocks, rows, columns), dtype=dtype, seed=seed("")))
    signs = ops.where(ops.diagonal(r, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
    return q * ops.expand_dims(ops.cast(signs, dtype), -2)


def _by_reflections(
    blocks: list[int], rows: int, columns: int, dtype: str, seed: Callable[[str], Any]
) -> Any:
    """Applies the reflections that the QR decomposition of a Gaussian matrix would have, last panel first.

    Their vectors are Gaussian whatever the earlier ones did, so that there is nothing to decompose. The
    columns of a panel know of no later panel, whose reflections are free to go once they have been applied.
    """
    panels = []
    step = max(128, columns // 16) if rows * columns >= _LARGE else _WIDTH
    for start in range(0, columns, step):
        width = min(step, columns - start)
        gaussian = keras.random.normal((*blocks, rows, width), dtype=dtype, seed=seed(str(start)))
        vectors, signs = _unit_vectors(gaussian, start)
        inverse = ops.triu(_products(vectors, vectors), 1) + 0.5 * ops.eye(width, dtype=dtype)
        panels.append((start, vectors, signs, inverse))
    del gaussian, vectors
    results: list[Any] = []
    while panels:
        start, vectors, signs, inverse = panels.pop()
        width = vectors.shape[-1]
        own = ops.swapaxes(vectors[..., start : start + width, :], -2, -1) * signs
        result = _diagonal(signs, rows, start) - vectors @ ops.solve_triangular(inverse, own)
        for _, vectors, _, inverse in reversed(panels):
            result = result - vectors @ ops.solve_triangular(inverse, _products(vectors, result))
        results.insert(0, result)
    return ops.concatenate(results, -1)


def _products(left: Any, right: Any) -> Any:
    """Returns the inner products of columns, without the transposed copy that `matmul` would need."""
    return ops.einsum("...ri,...rj->...ij", left, right)


def _unit_vectors(gaussian: Any, start: int) -> tuple[Any, Any]:
    """Returns the unit vectors of the reflections, and the signs that make the triangular factor positive."""
    lower = ops.tril(gaussian, -start)
    diagonal = ops.diagonal(lower, -start, axis1=-2, axis2=-1)[..., None, :]
    norms = ops.sqrt(ops.sum(ops.square(lower), -2, keepdims=True))
    signs = ops.where(diagonal < 0, -ops.ones_like(diagonal), ops.ones_like(diagonal))
    lengths = ops.sqrt(2 * norms * (norms + ops.abs(diagonal)))
    return (lower + _diagonal(signs * norms, lower.shape[-2], start)) / lengths, -signs


def _diagonal(values: Any, rows: int, start: int) -> Any:
    """Returns the columns from `start` of a matrix that has the values on its diagonal."""
    # Keras' eye(rows, width, -start) has another shape on TensorFlow.
    here = ops.arange(rows)[:, None] == ops.arange(start, start + values.shape[-1])
    return ops.where(here, values, ops.zeros_like(values))
