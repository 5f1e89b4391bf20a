"""How far two answers are apart, and how far they may be."""

from collections.abc import Callable
from typing import Any

import numpy as np

# Greatest difference as a part of an output's largest entry: graphs fuse and reorder what eager code rounds.
_TOLERANCES = {"float64": 1e-8, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}


def tolerance_of(*layers: Any) -> Callable[[np.dtype], float]:
    """Returns what tells the greatest difference for an output: that of the coarsest dtype on the way to it.

    Args:
        layers: The layers that compute it, as far as they are known.
    """
    computed = {layer.compute_dtype for layer in layers}
    return lambda dtype: (
        max(_TOLERANCES.get(name, 0.0) for name in {dtype.name, *computed}) if dtype.kind in "fc" else 0.0
    )


def scale_of(*values: np.ndarray) -> float:
    """Returns the largest finite entry of arrays; 1 where there is none but zero, and for what is no number.

    Args:
        values: Arrays of one dtype.
    """
    if values[0].dtype.kind not in "fc":
        return 1.0
    return float(max(np.abs(value[np.isfinite(value)]).max(initial=0.0) for value in values)) or 1.0


def apart(want: Any, got: Any, scale: float) -> float:
    """Returns the largest difference as a part of a scale; Inf where shapes, NaN, integers or strings differ.

    Args:
        want: An array.
        got: Another.
        scale: As `scale_of` returns it.
    """
    want, got = np.asarray(want), np.asarray(got)
    if want.shape != got.shape:
        return np.inf
    if want.dtype.kind not in "fc":
        return 0.0 if np.array_equal(want, got) else np.inf
    finite = np.isfinite(want)
    if not np.array_equal(want[~finite], got[~finite], equal_nan=True) or not np.isfinite(got[finite]).all():
        return np.inf
    return float(np.abs(want[finite] - got[finite]).max(initial=0.0)) / scale
