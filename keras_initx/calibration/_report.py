"""What calibrate tells of its work."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

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
class CalibrationReport:
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

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as dicts, tuples and numbers, its totals included."""
        return dataclasses.asdict(self) | {"calibrated": self.calibrated}

    def __str__(self) -> str:
        """Formats the report as an aligned table."""
        cells = [("path", "role", "std before", "scale", "std after", "note")]
        for row in self.rows:
            numbers = (row.std_before, row.scale, row.std_after)
            before, scale, after = ("-" if n is None else f"{n:.4g}" for n in numbers)
            told = "; ".join(filter(None, (row.note, row.bias)))
            cells.append((row.path, row.role, before, scale, after, told))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in cells
        ]
        passes = "1 forward pass" if self.forward_passes == 1 else f"{self.forward_passes} forward passes"
        lines.append(
            f"{self.calibrated} of {len(self.rows)} kernels calibrated on {self.samples} rows, {passes}, "
            f"{self.seconds:.2f} s"
        )
        if self.objective is not None:
            names = ", then ".join(self.ranked)
            start, end = (", ".join(f"{pair[n]:.4g}" for pair in self.ranked.values()) for n in (0, 1))
            several = f"({names}) " if len(self.ranked) > 1 else ""
            how = ", interrupted" if self.interrupted else ""
            lines.append(f"objective {several}{start} to {end} in {self.steps} steps{how}")
        return "\n".join(line.rstrip() for line in lines)


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
