"""What calibrate tells of its work."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

from keras_initx.reports import Report
from keras_initx.tables import Table, numbers, words

__all__ = ["CONSTANT", "FROZEN", "TINY", "TOO_SMALL", "CalibrationReport", "CalibrationRow", "warn_of"]

CONSTANT = "zero variance: its output is constant on this data"
FROZEN = "frozen: left as it is"
TOO_SMALL = "its output is too small for a variance: scale `data`"
TINY = 1e-18  # below it squares leave the range of float32

_SHOWN = 3  # paths for each reason in a warning


@dataclasses.dataclass(frozen=True)
class CalibrationRow:
    """What became of one kernel.

    Attributes:
        path: Path of the kernel within the model.
        role: Role of the kernel, as in `keras_initx.walk`.
        std_before: Standard deviation of the pre-activation on the batch, all earlier layers calibrated;
            None when it was not measured.
        scale: What kernel and bias were multiplied by; the geometric mean where each unit has its own.
        std_after: Standard deviation of the pre-activation in the finished model, over all calls of the layer
            and of those that hold the same kernel.
        iterations: Passes that changed the scale: 0 or 1, more for a layer that runs several times.
        note: Why the kernel was left alone or may be off target; empty when all is well.
        bias: What the bias holds and how, where it is a head's prior and not scaled with the kernel; empty
            elsewhere.
    """

    path: str
    role: str
    std_before: float | None = None
    scale: float = 1.0
    std_after: float | None = None
    iterations: int = 0
    note: str = ""
    bias: str = ""


@dataclasses.dataclass(frozen=True)
class CalibrationReport(Report):
    """What `calibrate` did.

    Attributes:
        rows: One row per kernel that the law was to calibrate.
        samples: Rows of data in the batch.
        forward_passes: Forward passes spent.
        seconds: Seconds spent.
        steps: Candidates that a law over the whole model looked at; 0 for the laws of single layers.
        objective: What such a law makes small, at the start and at the end.
        ranked: What it chose the best candidate by, by name: the first number counts, the next ones where
            those before are equal. The last is the objective.
        interrupted: Whether Ctrl-C ended its search; the weights are then those of the best candidate so far.
    """

    rows: tuple[CalibrationRow, ...]
    samples: int
    forward_passes: int
    seconds: float
    steps: int = 0
    objective: tuple[float, float] | None = None
    ranked: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    interrupted: bool = False

    @property
    def calibrated(self) -> int:
        """Number of kernels that were calibrated."""
        return sum(row.iterations > 0 for row in self.rows)

    def _more(self) -> dict[str, Any]:
        return {"calibrated": self.calibrated}

    def _table(self) -> Table:
        """The kernels, with the totals and the objective of a law over the whole model."""
        columns = (
            words("path", [row.path for row in self.rows]),
            words("role", [row.role for row in self.rows]),
            numbers("std before", [row.std_before for row in self.rows]),
            numbers("scale", [row.scale for row in self.rows]),
            numbers("std after", [row.std_after for row in self.rows]),
            words("note", ["; ".join(filter(None, (row.note, row.bias))) for row in self.rows], note=True),
        )
        passes = "1 forward pass" if self.forward_passes == 1 else f"{self.forward_passes} forward passes"
        total = (
            f"{self.calibrated} of {len(self.rows)} kernels calibrated on {self.samples} rows, {passes}, "
            f"{self.seconds:.2f} s"
        )
        return Table(columns, (total, *self._search()))

    def _search(self) -> list[str]:
        """How far the search of a law over the whole model went; nothing for the laws of single layers."""
        if self.objective is None:
            return []
        names = ", then ".join(self.ranked)
        start, end = (", ".join(f"{pair[n]:.4g}" for pair in self.ranked.values()) for n in (0, 1))
        several = f"({names}) " if len(self.ranked) > 1 else ""
        how = ", interrupted" if self.interrupted else ""
        return [f"objective {several}{start} to {end} in {self.steps} steps{how}"]


def warn_of(rows: Sequence[CalibrationRow]) -> None:
    """Warns of the kernels with a note, those of one reason together; of frozen ones if all are."""
    told = [row for row in rows if row.note and row.note != FROZEN]
    if rows and all(row.note == FROZEN for row in rows):
        told = list(rows)
    by_reason: dict[str, list[str]] = {}
    for row in told:
        by_reason.setdefault(row.note, []).append(f"`{row.path}`")
    reasons = [f"{_listed(paths)}: {note}" for note, paths in by_reason.items()]
    if told:
        warnings.warn(
            f"{len(told)} of {len(rows)} kernels were left as they are or may be off their target: "
            f"{'; '.join(reasons)}.",
            stacklevel=3,
        )


def _listed(paths: list[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more
