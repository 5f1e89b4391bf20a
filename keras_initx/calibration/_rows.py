"""What the report tells of one kernel."""

from typing import Any

import numpy as np

from keras_initx.calibration._heads import told_of_bias
from keras_initx.calibration._report import CONSTANT, TINY, TOO_SMALL, CalibrationRow
from keras_initx.calibration._rounds import Outcome, limit
from keras_initx.initializers import DataFilters
from keras_initx.walk import KernelSite

__all__ = ["row_of"]


def row_of(
    site: KernelSite, law: Any, note: str, later: str, outcome: Outcome | None, tolerance: float
) -> CalibrationRow:
    """Returns the row of a kernel.

    Args:
        site: The kernel.
        law: Its law.
        note: Why it was left alone.
        later: What is to be said of it if the next training call moves what reaches it.
        outcome: What became of it; None when it was left as it is.
        tolerance: As in `calibrate`.
    """
    if outcome is None:
        return CalibrationRow(site.path, site.role, note=note or "the data never reached it")
    last, rounds, left = outcome.last, outcome.rounds, bool(note)
    if not left and not outcome.settled:
        small = 0 < np.max(np.abs(last.mean)) < TINY
        note, rounds = (TOO_SMALL if small else CONSTANT), 0
    elif not left:
        note = _fault(site, outcome, tolerance) or (later if outcome.late else "")
    return CalibrationRow(
        path=site.path,
        role=site.role,
        std_before=None if isinstance(law, DataFilters) and not left else outcome.first.std_before,
        scale=outcome.scale,
        std_after=last.std_after,
        iterations=rounds,
        note=note,
        bias=told_of_bias(law) if rounds else "",
    )


def _fault(site: KernelSite, outcome: Outcome, tolerance: float) -> str:
    """What a kernel that was calibrated has besides, or falls short of."""
    last = outcome.last
    why = f": `{outcome.reader}` reads its kernel, too" if outcome.reader else ""
    if last.calls > 1 and last.error() > tolerance:
        return f"ran {last.calls} times; its scale is {last.error():.0%} off the law's{why}"
    if last.calls == 1 and last is not outcome.first and last.distance() > limit(site):
        return f"{last.distance():.0%} off the law, scaled {outcome.rounds} times{why}"
    if why:
        return f"`{outcome.reader}` reads its kernel, too: it fits its own layer alone"
    if last.idle:
        return f"{last.idle} units are constant on this data: left as they are"
    return "it has no bias to hold the law's shift: scaled alone" if last.unmoved else ""
