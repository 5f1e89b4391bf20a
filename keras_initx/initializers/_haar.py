"""Uniformly distributed (Haar) matrices with orthonormal rows or columns, for any backend.

Small matrices come from the QR decomposition of a Gaussian matrix. Large ones skip the decomposition:

- Householder's QR turns the columns of a matrix into a triangle by reflections H_1, H_2, ..., one for each
  column, and Q = H_1 H_2 ... H_n. After the first k reflections, the rest of a Gaussian matrix is Gaussian
  again and independent of them (Stewart). So the vector of H_{k+1} can be drawn directly: there is nothing to
  decompose, and only the product of the reflections remains to be computed.
- One reflection at a time is limited by memory bandwidth. So the reflections of a panel of columns are
  applied together, as I - V T V^T (Schreiber and Van Loan), which is two matrix products. For unit vectors
  the inverse of T is the strict upper triangle of V^T V plus 1/2 on the diagonal. Solving with this triangle
  takes the place of computing T.
- Vector k is zero above row k, so a panel changes no unit vector of an earlier column:

        columns:   panel 1   panel 2   panel 3
        V =          x         0         0        The columns of panel 2 in Q are H(1) H(2) E(2).
                     x         x         0        H(3) leaves E(2), the unit vectors of panel 2, as they are.
                     x         x         x

  Panels are applied from the last to the first. The vectors of a panel that has been applied are freed.

The product has the law of Q only if R has a positive diagonal (Mezzadri). Each column is multiplied by the
sign that makes it so.
"""

from collections.abc import Callable
from typing import TypeAlias

import keras
from keras import ops

from keras_initx._types import Tensor
from keras_initx.initializers._base import Seed

# Returns the seed of each draw by its label.
_Seeds: TypeAlias = Callable[[str], Seed]

_SMALL = 512  # rows up to which a QR decomposition takes less time
_WIDTH = 512  # columns of a panel
_LARGE = 2**24  # entries from which on panels are narrower, because of the memory that they take


def draw_haar(blocks: list[int], rows: int, columns: int, dtype: str, seed: _Seeds) -> Tensor:
    """Draws independent matrices of shape (*blocks, rows, columns) with orthonormal rows or columns.

    Args:
        blocks: Shape of the array of matrices.
        rows: Rows of a matrix.
        columns: Columns of a matrix.
        dtype: `"float32"` or `"float64"`.
        seed: Gives the seed of each draw by its label.

    Returns:
        A tensor of shape (*blocks, rows, columns). If columns <= rows the columns are orthonormal, else the
        rows are.

    Reference:
        Stewart, 1980, "The efficient generation of random orthogonal matrices"; Schreiber and
        Van Loan, 1989, for the product of reflections as I - V T V^T; Mezzadri, 2007, section 5
        (https://arxiv.org/abs/math-ph/0609050), for the signs.
    """
    tall, wide = max(rows, columns), min(rows, columns)
    build = _by_qr if tall <= _SMALL else _by_reflections
    matrix = build(blocks, tall, wide, dtype, seed)
    return ops.swapaxes(matrix, -2, -1) if rows < columns else matrix


def _by_qr(blocks: list[int], rows: int, columns: int, dtype: str, seed: _Seeds) -> Tensor:
    q, r = ops.qr(keras.random.normal((*blocks, rows, columns), dtype=dtype, seed=seed("")))
    # A library chooses the signs of R as it likes, which would prefer some matrices to others.
    signs = ops.where(ops.diagonal(r, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
    return q * ops.expand_dims(ops.cast(signs, dtype), -2)


def _by_reflections(blocks: list[int], rows: int, columns: int, dtype: str, seed: _Seeds) -> Tensor:
    """Applies the reflections that the QR decomposition of a Gaussian matrix would have, last panel first."""
    panels = []
    step = max(128, columns // 16) if rows * columns >= _LARGE else _WIDTH
    for start in range(0, columns, step):
        width = min(step, columns - start)
        gaussian = keras.random.normal((*blocks, rows, width), dtype=dtype, seed=seed(str(start)))
        vectors, signs = _unit_vectors(gaussian, start)
        inverse = ops.triu(_products(vectors, vectors), 1) + 0.5 * ops.eye(width, dtype=dtype)
        panels.append((start, vectors, signs, inverse))
    del gaussian, vectors  # else the last panel stays in memory while the others are applied
    results: list[Tensor] = []
    while panels:
        start, vectors, signs, inverse = panels.pop()
        width = vectors.shape[-1]
        # V^T times the panel's signed unit vectors: only rows of V, no product.
        own = ops.swapaxes(vectors[..., start : start + width, :], -2, -1) * signs
        result = _diagonal(signs, rows, start) - vectors @ ops.solve_triangular(inverse, own)
        for _, vectors, _, inverse in reversed(panels):
            result = result - vectors @ ops.solve_triangular(inverse, _products(vectors, result))
        results.insert(0, result)
    return ops.concatenate(results, -1)


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Returns the inner products of columns, without the transposed copy that `matmul` would need."""
    return ops.einsum("...ri,...rj->...ij", left, right)


def _unit_vectors(gaussian: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Returns the unit vectors of a panel's reflections, and the signs that make R's diagonal positive."""
    # Column k of the matrix plays its part from row k on only: earlier reflections have used up the rest.
    lower = ops.tril(gaussian, -start)
    diagonal = ops.diagonal(lower, -start, axis1=-2, axis2=-1)[..., None, :]
    norms = ops.sqrt(ops.sum(ops.square(lower), -2, keepdims=True))
    signs = ops.where(diagonal < 0, -ops.ones_like(diagonal), ops.ones_like(diagonal))
    # The vector is x + sign(x_1) |x| e_1. With this sign nothing cancels.
    lengths = ops.sqrt(2 * norms * (norms + ops.abs(diagonal)))
    return (lower + _diagonal(signs * norms, lower.shape[-2], start)) / lengths, -signs


def _diagonal(values: Tensor, rows: int, start: int) -> Tensor:
    """Returns the columns from `start` of a matrix that has the values on its diagonal, else zeros."""
    # Keras' eye(rows, width, -start) has another shape on TensorFlow.
    here = ops.arange(rows)[:, None] == ops.arange(start, start + values.shape[-1])
    return ops.where(here, values, ops.zeros_like(values))
