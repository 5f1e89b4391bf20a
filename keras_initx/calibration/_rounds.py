"""Passes until what is reported is what the finished model has."""

import dataclasses
from collections.abc import Callable
from typing import Any

from keras_initx.calibration._gates import Cell, fit
from keras_initx.calibration._measurement import Measurement
from keras_initx.calibration._pass import Measurements, Pass, starter
from keras_initx.calibration._rewritten import Rewritten
from keras_initx.walk import KernelSite

__all__ = ["Outcome", "TiedError", "calibrate_sites", "limit"]

Update = Callable[..., None]
# How far, relatively, the finished model may be from a law and count as on it: rounding stays below.
_NEAR = {"float16": 5e-3, "bfloat16": 2e-2}


class TiedError(Exception):
    """Some kernels must be left as they are, as a pass has shown; what it changed is to be put back.

    Attributes:
        notes: The reason, by kernel.
        passes: Forward passes that were spent.
    """

    def __init__(self, notes: dict[KernelSite, str], passes: int) -> None:
        super().__init__(notes)
        self.notes, self.passes = notes, passes


@dataclasses.dataclass(eq=False)
class Outcome:
    """What became of one kernel.

    Attributes:
        first: What the first pass measured.
        last: What the last one did.
        scale: The product of all scales.
        rounds: Number of scales that it had.
        reader: Name of what else reads the kernel; empty for nothing.
        late: Whether the next training call moves what reaches it.
        settled: Whether its pre-activation varies.
    """

    first: Measurement
    last: Measurement
    scale: float
    rounds: int
    reader: str = ""
    late: bool = False
    settled: bool = True


def limit(site: KernelSite) -> float:
    """How far, relatively, the std of the finished model may be from the law's and count as on it."""
    return _NEAR.get(site.layer.compute_dtype, 5e-4)


def calibrate_sites(
    model: Any,
    batch: Any,
    laws: dict[KernelSite, Any],
    notes: dict[KernelSite, str],
    cells: list[Cell],
    update: Update,
    *,
    training: bool,
    redraw: bool,
    tolerance: float,
    max_iterations: int,
    seed: int | None,
    rewritten: Rewritten,
) -> tuple[dict[KernelSite, Outcome], int]:
    """Calibrates the sites without a note, and the cells; arguments as in `calibrate` and `Pass`.

    One pass is enough where each kernel is read by its own layer alone and Keras' own code is linear in it.
    Elsewhere passes over the finished model follow, until one finds nothing to change: what it measures is
    what is reported.

    Returns:
        What became of each kernel that was reached, and the number of passes.

    Raises:
        TiedError: If the table of an embedding is read by more than it.
    """
    loops = _loops(cells, redraw, seed, tolerance, max_iterations, update)
    enter = starter(laws, redraw, seed, update)
    here = Pass(model, batch, laws, notes, enter, training, loops, rewritten)
    measured, rounds, passes = _iterate(here, cells, {}, tolerance, max_iterations)
    if tied := {site: _tied(name) for site, name in here.readers.items() if site.role == "embedding"}:
        raise TiedError(tied, passes)
    here.write(measured, update)
    found = {
        site: Outcome(m, m, m.factor, 0 if notes[site] else rounds.get(site, 1), settled=m.settled)
        for site, m in measured.items()
    }
    if here.readers or any(site.checked and not notes[site] for site in measured):
        passes += _finish(here, cells, found, update, tolerance, max_iterations)
    for site, one in found.items():
        one.reader, one.late = here.readers.get(site, ""), site in here.late
    return found, passes


def _tied(reader: str) -> str:
    return f"`{reader}` reads its table, too: left as it is"


def _finish(
    here: Pass,
    cells: list[Cell],
    found: dict[KernelSite, Outcome],
    update: Update,
    tolerance: float,
    max_iterations: int,
) -> int:
    """Runs the finished model, and mends what is off, until nothing is; returns the number of passes."""
    here.near, passes = limit, 0
    for _ in range(max_iterations):
        several = {site: _as_it_is(one.last) for site, one in found.items() if one.last.calls > 1}
        measured, _, spent = _iterate(here, cells, several, tolerance, max_iterations)
        passes += spent
        for site, measurement in measured.items():
            one = found.setdefault(site, Outcome(measurement, measurement, 1.0, 0))
            one.last, one.settled = measurement, one.settled or measurement.settled
            one.scale *= measurement.factor
            one.rounds += measurement.changes
        if not any(measurement.changes for measurement in measured.values()):
            return passes
        here.write(measured, update)
    for site, measurement in here.run({site: _as_it_is(one.last) for site, one in found.items()}).items():
        found[site].last = measurement
    return passes + 1


def _as_it_is(measurement: Measurement) -> Measurement:
    return Measurement(measurement.law, measurement.movable, measurement.rank, (1.0, 0.0))


def _loops(
    cells: list[Cell], redraw: bool, seed: int | None, tolerance: float, max_iterations: int, update: Update
) -> list[tuple[Any, Callable[..., None]]]:
    """For each recurrent layer what is to be called before it runs."""
    by_owner: dict[Any, list[Cell]] = {}
    for cell in cells:
        by_owner.setdefault(cell.owner, []).append(cell)
    return [
        (owner, fit(group, redraw, seed, tolerance, max_iterations, update))
        for owner, group in by_owner.items()
        if not any(cell.note for cell in group)
    ]


def _iterate(
    here: Pass, cells: list[Cell], kept: Measurements, tolerance: float, max_iterations: int
) -> tuple[Measurements, dict[KernelSite, int], int]:
    """Runs the model until the scales of all layers that run several times fit their pooled moments.

    Returns:
        What was measured in the last pass, the number of scales that each such layer had, and of passes.
    """
    rounds: dict[KernelSite, int] = {}
    for passes in range(1, max_iterations + 1):
        for cell in cells:
            cell.calls = 0
        measured = here.run(kept)
        off = [site for site, m in measured.items() if m.calls > 1 and m.settled and m.error() > tolerance]
        if not off or passes == max_iterations:
            break
        kept = {site: m.again(site in off) for site, m in measured.items() if m.calls > 1}
        rounds |= {site: rounds.get(site, 1) + 1 for site in off}
    return measured, rounds, passes
