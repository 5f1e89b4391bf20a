"""The size of a kernel as muP measures it: how much the kernel can grow a signal."""

import numpy as np

from keras_initx.walk import KernelSite

__all__ = ["norm_of"]

_ROUNDS = 20  # of power iteration: a few digits are enough for a slope


def norm_of(site: KernelSite, values: np.ndarray) -> float | None:
    """Returns the spectral norm of a kernel as a matrix from inputs to units.

    A table that is looked up has sqrt(units) times the root mean square of its entries: one row is the whole
    product.

    Args:
        site: The kernel.
        values: Its values, or a change of them.

    Returns:
        The norm. None for kernels that act on each channel or group by itself, or of unknown axes.
    """
    values = values.astype("float32")
    if site.fans is None or site.unit_axes is None or site.role == "depthwise":
        return None
    if site.layout is not None and getattr(site.layout, "groups", 1) > 1:
        return None
    axes = site.unit_axes[0]
    matrix = np.moveaxis(values, axes, range(-len(axes), 0))
    matrix = matrix.reshape(-1, int(np.prod(matrix.shape[matrix.ndim - len(axes) :])))
    if site.role == "embedding":
        return float(np.sqrt(np.mean(matrix**2) * matrix.shape[1]))
    return _spectral(matrix)


def _spectral(matrix: np.ndarray) -> float:
    vector: np.ndarray = np.random.default_rng(0).standard_normal((matrix.shape[1],), "float32")
    size = 0.0
    for _ in range(_ROUNDS):
        vector = matrix.T @ (matrix @ vector)
        size = float(np.linalg.norm(vector))
        if not 0 < size < np.inf:
            return size
        vector = vector / size
    return float(np.sqrt(size))
