"""The difference between two answers, and its limit."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from keras_initx._types import Layer

# The largest difference, as a part of the largest entry of the output. It cannot be zero: TensorFlow fuses
# and reorders the operations of a graph, and each order rounds in another way. The coarser the dtype, the
# coarser the rounding.
_TOLERANCES = {"float64": 1e-8, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}


def tolerance_of(*layers: Layer) -> Callable[[np.dtype], float]:
    """Returns a function from an output's dtype to the largest difference that the output may have.

    The coarsest dtype on the way to an output decides: a layer that computes in bfloat16 rounds more than the
    float32 of its output shows.

    Args:
        layers: The layers that compute the output, as far as they are known.
    """
    computed = {layer.compute_dtype for layer in layers}
    # Integers, booleans and strings do not round: they must be equal.
    return lambda dtype: (
        max(_TOLERANCES.get(name, 0.0) for name in {dtype.name, *computed}) if dtype.kind in "fc" else 0.0
    )


def scale_of(*values: np.ndarray) -> float:
    """Returns the largest finite entry of the arrays, by which differences are divided.

    It is 1 where all entries are zero or not finite, and for integers, booleans and strings.

    Args:
        values: Arrays of one dtype.
    """
    if values[0].dtype.kind not in "fc":
        return 1.0
    return float(max(np.abs(value[np.isfinite(value)]).max(initial=0.0) for value in values)) or 1.0


def apart(want: ArrayLike, got: ArrayLike, scale: float) -> float:
    """Returns the largest difference between two arrays, as a part of a scale.

    It is infinity where shapes differ, where integers or strings differ, or where NaN and infinity do not
    stand at the same places.

    Args:
        want: An array.
        got: Another array.
        scale: The scale, from `scale_of`.
    """
    want, got = np.asarray(want), np.asarray(got)
    if want.shape != got.shape:
        return np.inf
    if want.dtype.kind not in "fc":
        return 0.0 if np.array_equal(want, got) else np.inf
    finite = np.isfinite(want)
    # A model may answer NaN. Then the other answer must be NaN at the same place, and no difference can tell.
    if not np.array_equal(want[~finite], got[~finite], equal_nan=True) or not np.isfinite(got[finite]).all():
        return np.inf
    return float(np.abs(want[finite] - got[finite]).max(initial=0.0)) / scale
