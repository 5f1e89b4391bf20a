"""Calibration by a law for each kernel: passes over the model until the report is true.

One pass is enough where only its own layer reads a kernel and Keras' own code is linear in it. Three cases
need more:

    a layer runs several times    its scale has to fit all calls, and later calls depend on it:
                                  `_iterate` repeats the pass until the scale fits
    other code reads a kernel     the scale of one layer moves another reader's output:
    or computes the output        `_finish` measures the finished model and mends it
    an embedding's table is read  scaling it would scale the logits: `TiedError` undoes the pass, and
    by another layer              the next attempt leaves the table as it is
"""

from collections.abc import Callable
from typing import Any

from keras_initx._types import Layer
from keras_initx.calibration._draw import Update
from keras_initx.calibration._gates import Cell, fit
from keras_initx.calibration._measurement import Measurement
from keras_initx.calibration._outcome import Outcome, limit
from keras_initx.calibration._pass import Measurements, Pass, starter
from keras_initx.calibration._plan import Job, Plan
from keras_initx.calibration._report import CalibrationRow
from keras_initx.calibration._rows import row_of
from keras_initx.walk import KernelSite

__all__ = ["TiedError", "act_by_layer"]


class TiedError(Exception):
    """A pass found kernels that have to be left as they are; its changes are to be undone.

    Attributes:
        notes: The reason for each of these kernels.
        passes: Number of forward passes that were spent.
    """

    def __init__(self, notes: dict[KernelSite, str], passes: int) -> None:
        super().__init__(notes)
        self.notes, self.passes = notes, passes


def act_by_layer(job: Job, plan: Plan, update: Update) -> tuple[list[CalibrationRow], dict[str, Any]]:
    """Scales the kernels of a plan and its cells; returns the rows and the totals of the report.

    Raises:
        TiedError: If other code reads the table of an embedding.
    """
    here = Pass(job, plan, starter(job, plan, update), _loops(job, plan, update))
    measured, rounds, passes = _iterate(here, {})
    if tied := {site: _tied(name) for site, name in here.readers.items() if site.role == "embedding"}:
        raise TiedError(tied, passes)
    # Written before any further pass: `_finish` measures the model with its new weights.
    here.write(measured, update)
    notes = plan.notes
    found = {
        site: Outcome(m, m, m.factor, 0 if notes[site] else rounds.get(site, 1), settled=m.settled)
        for site, m in measured.items()
    }
    if here.readers or any(site.checked and not notes[site] for site in measured):
        passes += _finish(here, found, update)
    for site, one in found.items():
        one.reader, one.late = here.readers.get(site, ""), site in here.late
    return _rows(job, plan, found), {"forward_passes": passes}


def _rows(job: Job, plan: Plan, found: dict[KernelSite, Outcome]) -> list[CalibrationRow]:
    # Kernels that no pass reached come last.
    in_call_order = dict.fromkeys([*found, *plan.notes])
    rows = [
        row_of(
            site,
            plan.aims[site],
            plan.notes[site],
            plan.rewritten.later,
            found.get(site),
            job.settings.tolerance,
        )
        for site in in_call_order
    ]
    return [*rows, *(row for cell in plan.cells for row in cell.rows())]


def _tied(reader: str) -> str:
    return f"`{reader}` reads its table, too: left as it is"


def _finish(here: Pass, found: dict[KernelSite, Outcome], update: Update) -> int:
    """Runs the finished model and mends kernels that are off, until none is; returns the number of passes."""
    here.near, passes = limit, 0
    for _ in range(here.job.settings.max_iterations):
        # The weights of a layer that runs several times fit its calls together, and perhaps none of them
        # alone. So its scale starts from 1, and not from its first call.
        several = {site: _as_it_is(one.last) for site, one in found.items() if one.last.calls > 1}
        measured, _, spent = _iterate(here, several)
        passes += spent
        for site, measurement in measured.items():
            # A model with branches in its code may reach a layer for the first time in this pass.
            one = found.setdefault(site, Outcome(measurement, measurement, 1.0, 0))
            one.last, one.settled = measurement, one.settled or measurement.settled
            one.scale *= measurement.factor
            one.rounds += measurement.changes
        if not any(measurement.changes for measurement in measured.values()):
            return passes
        here.write(measured, update)
    # The last change has to be measured as well.
    for site, measurement in here.run({site: _as_it_is(one.last) for site, one in found.items()}).items():
        found[site].last = measurement
    return passes + 1


def _as_it_is(measurement: Measurement) -> Measurement:
    return Measurement(measurement.aim, measurement.movable, measurement.rank, (1.0, 0.0))


def _loops(job: Job, plan: Plan, update: Update) -> list[tuple[Layer, Callable[..., None]]]:
    """Returns, for each recurrent layer, the function that fits its cells before the layer runs."""
    by_owner: dict[Layer, list[Cell]] = {}
    for cell in plan.cells:
        by_owner.setdefault(cell.owner, []).append(cell)
    return [
        (owner, fit(group, job.settings, update))
        for owner, group in by_owner.items()
        # `fit_cells` fits all cells of a layer, so a note about one cell keeps the others as they are, too.
        if not any(cell.note for cell in group)
    ]


def _iterate(here: Pass, kept: Measurements) -> tuple[Measurements, dict[KernelSite, int], int]:
    """Runs the model until the scales of all layers that run several times fit their pooled moments.

    Returns:
        The measurements of the last pass; the number of scales of each layer that needed several; the number
        of passes.
    """
    rounds: dict[KernelSite, int] = {}
    settings = here.job.settings
    for passes in range(1, settings.max_iterations + 1):
        for cell in here.plan.cells:
            cell.calls = 0
        measured = here.run(kept)
        off = [
            site
            for site, m in measured.items()
            if m.calls > 1 and m.settled and m.error() > settings.tolerance
        ]
        if not off or passes == settings.max_iterations:
            break
        kept = {site: m.again(site in off) for site, m in measured.items() if m.calls > 1}
        rounds |= {site: rounds.get(site, 1) + 1 for site in off}
    return measured, rounds, passes
