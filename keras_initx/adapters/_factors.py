"""Factors A and B of adapters from the kernels that they adapt: PiSSA, OLoRA and LoftQ."""

import dataclasses
from collections.abc import Callable

from keras import ops

from keras_initx._types import Tensor
from keras_initx.adapters._svd import leading_svd

__all__ = ["Factors", "loftq", "olora", "pissa"]


@dataclasses.dataclass(frozen=True)
class Factors:
    """The start of one adapter, as float32 matrices.

    Attributes:
        base: The base that goes with the factors, of shape (rows, columns): the kernel is near
            base + scale A B.
        a: A, of shape (rows, rank).
        b: B, of shape (rank, columns).
    """

    base: Tensor
    a: Tensor
    b: Tensor


def pissa(kernel: Tensor, rank: int, scale: float, iterations: int | None = None, seed: int = 0) -> Factors:
    """Returns the principal singular values as A and B, and the rest as the base.

    >>> import numpy as np
    >>> kernel = np.diag([3.0, 2.0, 1.0]).astype("float32")
    >>> parts = pissa(kernel, rank=2, scale=2.0)
    >>> base = ops.convert_to_numpy(parts.base)
    >>> np.abs(base).round(3).tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]

    Args:
        kernel: float32 of shape (rows, columns).
        rank: Columns of A.
        scale: The factor of A B.
        iterations: Iterations of a random projection; None for an exact decomposition.
        seed: Seed of the projection.
    """
    kernel = ops.convert_to_tensor(kernel, "float32")
    a, b = _halves(kernel, rank, scale, iterations, seed)
    return Factors(kernel - scale * ops.matmul(a, b), a, b)


def olora(kernel: Tensor, rank: int, scale: float) -> Factors:
    """Returns the leading part of the QR decomposition of the transposed kernel, and the rest as the base.

    B is orthonormal: its rows are the first `rank` columns of Q. A is the matching part of R.

    >>> import numpy as np
    >>> parts = olora(np.random.default_rng(0).normal(size=(5, 4)).astype("float32"), 2, 1.0)
    >>> np.allclose(ops.matmul(parts.b, ops.transpose(parts.b)), np.eye(2), atol=1e-5)
    True

    Args:
        kernel: float32 of shape (rows, columns).
        rank: Columns of A.
        scale: The factor of A B.
    """
    kernel = ops.convert_to_tensor(kernel, "float32")
    # The first columns of Q depend on the first columns of the matrix alone.
    basis, _ = ops.qr(ops.transpose(kernel[:rank]), mode="reduced")
    a, b = ops.matmul(kernel, basis), ops.transpose(basis)
    return Factors(kernel - scale * ops.matmul(a, b), a, b)


def loftq(
    kernel: Tensor, rank: int, scale: float, rounded: Callable[[Tensor], Tensor], iterations: int = 1
) -> Factors:
    """Returns a quantized base, and the leading part of what quantization takes from the kernel.

    Law: from A B = 0, each iteration sets base = rounded(kernel - scale A B), and A B to the leading
    singular values of (kernel - base) / scale.

    >>> import numpy as np
    >>> kernel = np.random.default_rng(0).normal(size=(32, 24)).astype("float32")
    >>> coarse = lambda values: ops.round(4 * values) / 4
    >>> parts = loftq(kernel, 4, 1.0, coarse, iterations=3)
    >>> error = lambda values: float(ops.norm(values - kernel))
    >>> error(parts.base + parts.a @ parts.b) < error(coarse(kernel))
    True

    Args:
        kernel: float32 of shape (rows, columns).
        rank: Columns of A.
        scale: The factor of A B.
        rounded: Function from a matrix to its quantized values.
        iterations: Number of rounds, at least 1.
    """
    kernel = rest = ops.convert_to_tensor(kernel, "float32")
    for _ in range(iterations):
        base = rounded(rest)
        a, b = _halves(kernel - base, rank, scale)
        rest = kernel - scale * ops.matmul(a, b)
    return Factors(base, a, b)


def _halves(
    matrix: Tensor, rank: int, scale: float, iterations: int | None = None, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """A and B that share the leading singular values of matrix / scale evenly."""
    left, values, right = leading_svd(matrix, rank, iterations, seed)
    root = ops.sqrt(values / scale)
    return left * root, ops.expand_dims(root, -1) * right
