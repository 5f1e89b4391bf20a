"""The outcome of the passes for one kernel."""

import dataclasses

from keras_initx.calibration._measurement import Measurement
from keras_initx.walk import KernelSite

__all__ = ["Outcome", "limit"]

# Largest relative distance from a law that counts as on it. Rounding stays below these.
_NEAR = {"float16": 5e-3, "bfloat16": 2e-2}
_NEAR_IN_FLOAT32 = 5e-4


@dataclasses.dataclass(eq=False)
class Outcome:
    """What the passes measured and did at one kernel.

    Attributes:
        first: The measurement of the first pass.
        last: The measurement of the last pass.
        scale: The product of all scales.
        rounds: Number of scales that the kernel had.
        reader: Name of other code that reads the kernel; empty if there is none.
        late: Whether the next training call moves the inputs of the kernel.
        settled: Whether the pre-activation varies on the data.
    """

    first: Measurement
    last: Measurement
    scale: float
    rounds: int
    reader: str = ""
    late: bool = False
    settled: bool = True


def limit(site: KernelSite) -> float:
    """Returns the relative distance from the law within which the finished model counts as on it."""
    return _NEAR.get(site.layer.compute_dtype, _NEAR_IN_FLOAT32)
