"""Mean and variance of a tensor, over all elements or for each unit."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_initx._types import Tensor

__all__ = ["mean_and_variance", "unit_moments"]


def mean_and_variance(tensor: Tensor) -> tuple[float, float]:
    """Returns the mean and the population variance over all elements, accumulated in float32 or better.

    >>> mean_and_variance(ops.convert_to_tensor([1.0, 3.0]))
    (2.0, 1.0)

    Args:
        tensor: A tensor of any float dtype and shape, with at least one element.

    Returns:
        Mean and variance as Python floats.
    """
    if keras.backend.standardize_dtype(tensor.dtype) in ("bfloat16", "float16"):
        tensor = ops.cast(tensor, "float32")
    if "cpu" in str(getattr(tensor, "device", "")).lower():
        # `ops.convert_to_numpy` would copy on TensorFlow.
        mean, square = _moments_on_host(np.asarray(tensor))
    else:
        mean, square = float(ops.mean(tensor)), float(ops.mean(ops.square(tensor)))
    variance = square - mean * mean
    if variance < 1e-2 * square:
        # E[y^2] - E[y]^2 cancels digits if the mean is large beside the std. Then a second pass over the
        # data is worth its time; it is seldom needed.
        variance = float(ops.mean(ops.square(tensor - mean)))
    return mean, variance


def _moments_on_host(values: np.ndarray) -> tuple[float, float]:
    # To dispatch eager operations costs more than to compute here. NumPy reads the same buffer, and its dot
    # product squares and sums in one pass without a temporary.
    flat = values.reshape(-1)
    # An overflow gives an infinite result, which callers check; NumPy's warning would add nothing.
    with np.errstate(over="ignore", invalid="ignore"):
        return float(flat.mean()), float(np.dot(flat, flat)) / flat.size


def unit_moments(tensor: Tensor, axes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean and the population variance of each unit, in float64.

    >>> mean, variance = unit_moments(ops.convert_to_tensor([[1.0, 0.0], [3.0, 0.0]]), (-1,))
    >>> mean.tolist(), variance.tolist()
    ([2.0, 0.0], [1.0, 0.0])

    Args:
        tensor: A tensor of any float dtype.
        axes: The axes that index the units, in the order of the flattened result.

    Returns:
        Means and variances, two arrays of one axis.
    """
    values = np.moveaxis(ops.convert_to_numpy(tensor), axes, range(-len(axes), 0))
    rows = values.reshape(-1, int(np.prod(values.shape[values.ndim - len(axes) :]))).astype("float64")
    return rows.mean(0), rows.var(0)
