"""The report of `calibrate`: a row for each kernel, as data and as a table."""

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import Any

from keras_initx._types import Model
from keras_initx.adapters import PlainLoRA, Start, as_plain
from keras_initx.reports import Report
from keras_initx.tables import Table, listed, numbers, words

__all__ = [
    "CONSTANT",
    "FROZEN",
    "TINY",
    "TOO_SMALL",
    "CalibrationReport",
    "CalibrationRow",
    "is_unseen",
    "warn_of",
]

CONSTANT = "zero variance: its output is constant on this data"
FROZEN = "frozen: left as it is"
TOO_SMALL = "its output is too small for a variance: scale `data`"
TINY = 1e-18  # the square of a smaller number leaves the range of float32


@dataclasses.dataclass(frozen=True)
class CalibrationRow:
    """One kernel: its scale, or the reason why the kernel kept its values.

    Attributes:
        path: Path of the kernel within the model.
        role: Role of the kernel, as in `keras_initx.walk`.
        std_before: Standard deviation of the pre-activation on the batch, after all earlier layers were
            calibrated; None if it was not measured.
        scale: Factor of the kernel and its bias; the geometric mean if each unit has a factor of its own.
        std_after: Standard deviation of the pre-activation in the finished model, over all calls of the
            layer, and of other layers with the same kernel.
        iterations: Number of passes that changed the scale: 0 or 1, or more for a layer that runs several
            times.
        note: Why the kernel was left as it is, or may be off its target; empty when all is well.
        bias: The values of a head's bias that is a prior, and so is not scaled with the kernel; empty for
            other kernels.
        head: How well a head that the law made answers rows that it is not made from; empty for other
            kernels.
        held_out: The number in `head`: the accuracy on these rows, or R2 for targets that are numbers. None
            for other kernels, and if no row could be held out.
    """

    path: str
    role: str
    std_before: float | None = None
    scale: float = 1.0
    std_after: float | None = None
    iterations: int = 0
    note: str = ""
    bias: str = ""
    head: str = ""
    held_out: float | None = None


@dataclasses.dataclass(frozen=True)
class CalibrationReport(Report):
    """The report of `calibrate`. `print(report)` shows the kernels as a table.

    Attributes:
        rows: One row for each kernel that the law was asked to calibrate.
        samples: Rows of data in the batch.
        forward_passes: Number of forward passes.
        seconds: Seconds that the call took.
        steps: Number of candidates that a law over the whole model tried; 0 for the laws of single layers.
        objective: The number that such a law makes small, at the start and at the end.
        ranked: The numbers that the law ranks candidates by, by name, at the start and at the end. The first
            number decides, and a later number only if the numbers before are equal. The last number is the
            objective.
        interrupted: Whether Ctrl-C ended the search. The weights are then from the best candidate so far.
        seen: Share of the parameters of these kernels without the kernels in `unseen`, from 0 to 1.
        ranks: After `EVA`, the rank that each adapter would have by the variance that it explains.
        starts: How the adapters began, for `as_lora`; empty for other laws.
    """

    rows: tuple[CalibrationRow, ...]
    samples: int
    forward_passes: int
    seconds: float
    steps: int = 0
    objective: tuple[float, float] | None = None
    ranked: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    interrupted: bool = False
    seen: float = 1.0
    ranks: dict[str, int] = dataclasses.field(default_factory=dict)
    starts: tuple[Start, ...] = dataclasses.field(default=(), repr=False)

    def as_lora(self, model: Model) -> PlainLoRA:
        """Returns the adapters of a model that a law started as plain LoRA, as `InitReport.as_lora` does.

        Args:
            model: The model that this report is of, trained or not.

        Raises:
            ValueError: If the report is not of a start of adapters, or the model has other adapters.
        """
        return as_plain(self.starts, model)

    @property
    def calibrated(self) -> int:
        """Number of kernels that were calibrated."""
        return sum(row.iterations > 0 for row in self.rows)

    @property
    def unseen(self) -> tuple[str, ...]:
        """Paths of the kernels that could not be calibrated. Frozen kernels are left on purpose."""
        return tuple(row.path for row in self.rows if is_unseen(row))

    def _more(self) -> dict[str, Any]:
        starts = [start.path for start in self.starts]
        return {"calibrated": self.calibrated, "unseen": self.unseen, "starts": starts}

    def _table(self) -> Table:
        """The kernels, with the totals and the objective of a law over the whole model."""
        columns = (
            words("path", [row.path for row in self.rows]),
            words("role", [row.role for row in self.rows]),
            numbers("std before", [row.std_before for row in self.rows]),
            numbers("scale", [row.scale for row in self.rows]),
            numbers("std after", [row.std_after for row in self.rows]),
            words(
                "note",
                ["; ".join(filter(None, (row.note, row.bias, row.head))) for row in self.rows],
                note=True,
            ),
        )
        passes = "1 forward pass" if self.forward_passes == 1 else f"{self.forward_passes} forward passes"
        total = (
            f"{self.calibrated} of {len(self.rows)} kernels calibrated on {self.samples} rows, {passes}, "
            f"{self.seconds:.2f} s"
        )
        return Table(columns, (total, *self._search()), self._first())

    def _first(self) -> tuple[str, ...]:
        """How many kernels were calibrated, if some could not be."""
        if not self.unseen:
            return ()
        seen, share = len(self.rows) - len(self.unseen), math.floor(100 * self.seen)
        of = f"{seen} of {len(self.rows)} kernels, {share} % of their parameters"
        return (f"saw {of}; not {listed(self.unseen)}",)

    def _search(self) -> list[str]:
        """How far the search of a law over the whole model went; nothing for the laws of single layers."""
        if self.objective is None:
            return []
        names = ", then ".join(self.ranked)
        start, end = (", ".join(f"{pair[n]:.4g}" for pair in self.ranked.values()) for n in (0, 1))
        several = f"({names}) " if len(self.ranked) > 1 else ""
        how = ", interrupted" if self.interrupted else ""
        return [f"objective {several}{start} to {end} in {self.steps} steps{how}"]


def is_unseen(row: CalibrationRow) -> bool:
    """Whether a kernel could not be calibrated, though nobody froze it."""
    return bool(row.note) and row.note != FROZEN and not row.iterations


def warn_of(rows: Sequence[CalibrationRow]) -> None:
    """Warns about kernels with a note, with one list of paths for each reason.

    Frozen kernels are left as they are on purpose, so they are named only if all kernels are frozen.
    """
    told = [row for row in rows if row.note and row.note != FROZEN]
    if rows and all(row.note == FROZEN for row in rows):
        told = list(rows)
    by_reason: dict[str, list[str]] = {}
    for row in told:
        by_reason.setdefault(row.note, []).append(f"`{row.path}`")
    reasons = [f"{listed(paths)}: {note}" for note, paths in by_reason.items()]
    if told:
        warnings.warn(
            f"{len(told)} of {len(rows)} kernels were left as they are or may be off their target: "
            f"{'; '.join(reasons)}.",
            stacklevel=3,
        )
