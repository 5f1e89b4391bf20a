"""What calibrate tells of its work."""

import dataclasses
from typing import Any

__all__ = ["FROZEN", "CalibrationReport", "CalibrationRow"]

FROZEN = "frozen: left as it is"


@dataclasses.dataclass(frozen=True)
class CalibrationRow:
    """What became of one kernel.

    Attributes:
        path: Path of the kernel within the model.
        role: Role of the kernel, as in `keras_initx.walk`.
        std_before: Standard deviation of the pre-activation on the batch, all earlier layers calibrated;
            None when it was not measured.
        scale: What kernel and bias were multiplied by; the geometric mean where each unit has its own.
        std_after: Standard deviation of the calibrated pre-activation, over all calls of the layer.
        iterations: Passes that changed the scale: 0 or 1, more for a layer that runs several times.
        note: Why the kernel was left alone or may be off target; empty when all is well.
    """

    path: str
    role: str
    std_before: float | None = None
    scale: float = 1.0
    std_after: float | None = None
    iterations: int = 0
    note: str = ""


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
        interrupted: Whether Ctrl-C ended its search; the weights are then those of the best candidate so far.
    """

    rows: tuple[CalibrationRow, ...]
    samples: int
    forward_passes: int
    seconds: float
    steps: int = 0
    objective: tuple[float, float] | None = None
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
            cells.append((row.path, row.role, before, scale, after, row.note))
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
            start, end = self.objective
            how = ", interrupted" if self.interrupted else ""
            lines.append(f"objective {start:.4g} to {end:.4g} in {self.steps} steps{how}")
        return "\n".join(line.rstrip() for line in lines)
