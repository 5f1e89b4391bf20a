"""The report's row of one kernel that its layer's passes calibrated."""

import numpy as np

from keras_initx.calibration._aim import Aim
from keras_initx.calibration._outcome import Outcome, limit
from keras_initx.calibration._report import CONSTANT, TINY, TOO_SMALL, CalibrationRow
from keras_initx.walk import KernelSite

__all__ = ["row_of"]


def row_of(
    site: KernelSite, aim: Aim, note: str, later: str, outcome: Outcome | None, tolerance: float
) -> CalibrationRow:
    """Returns the row of a kernel.

    Args:
        site: The kernel.
        aim: Its aim.
        note: Why it was left as it is; empty if it was calibrated.
        later: Note for a kernel whose inputs the next training call moves.
        outcome: What the passes measured and did; None if no pass reached the kernel.
        tolerance: The tolerance of `calibrate`.
    """
    if outcome is None:
        return CalibrationRow(site.path, site.role, note=note or "the data never reached it")
    last, rounds, left = outcome.last, outcome.rounds, bool(note)
    if not left and not outcome.settled:
        # Squares of tiny numbers round to zero, so tiny outputs look constant. A larger scale of data helps.
        small = 0 < np.max(np.abs(last.mean)) < TINY
        note, rounds = (TOO_SMALL if small else CONSTANT), 0
    elif not left:
        note = _fault(site, outcome, tolerance) or (later if outcome.late else "")
    filtered = aim.law is not None and aim.law.draws_from_inputs and not left
    return CalibrationRow(
        path=site.path,
        role=site.role,
        std_before=None if filtered else outcome.first.std_before,
        scale=outcome.scale,
        std_after=last.std_after,
        iterations=rounds,
        note=note,
        bias=aim.told if rounds else "",
    )


def _fault(site: KernelSite, outcome: Outcome, tolerance: float) -> str:
    """Returns in which way a calibrated kernel falls short of its law; empty if it does not."""
    last = outcome.last
    # A row has one note, so the fault that matters most comes first.
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
