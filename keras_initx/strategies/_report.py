"""What `initialize` did, as data and as a table."""

import dataclasses
from typing import Any

from keras_initx.fans import Fans

__all__ = ["FROZEN", "UNKNOWN", "InitReport", "InitRow"]

FROZEN = "frozen: left as it is"
UNKNOWN = "nothing tells its initial value: left as it is"


@dataclasses.dataclass(frozen=True)
class InitRow:
    """What became of one weight.

    Attributes:
        path: Path of the weight within the model.
        role: Role of a kernel, as in `keras_initx.walk`; `bias`, `shift`, `statistic` or `other` for the
            rest.
        shape: Its shape.
        initializer: What drew it; empty when it was left as it is.
        fans: The kernel's true fans, or None.
        std: Standard deviation of a kernel's new values, of the first of them where it is large; None for the
            rest, and when it was left as it is.
        learning_rate: What the strategy asks the weight's learning rate to be multiplied by.
        note: Why it was left as it is, or what to know of it; empty when all is well.
    """

    path: str
    role: str
    shape: tuple[int, ...]
    initializer: str = ""
    fans: Fans | None = None
    std: float | None = None
    learning_rate: float = 1.0
    note: str = ""


@dataclasses.dataclass(frozen=True)
class InitReport:
    """What `initialize` did.

    Attributes:
        rows: One row per weight in its scope, kernels first, in call order.
        scheme: The initializer or strategy.
        seed: The seed; given again, it gives the same weights.
        optimizer_reset: Whether the slots of the model's optimizer were set back.
        seconds: Seconds spent.
    """

    rows: tuple[InitRow, ...]
    scheme: str
    seed: int
    optimizer_reset: bool
    seconds: float

    @property
    def learning_rates(self) -> dict[str, float]:
        """Multipliers of learning rates that are not 1, by path."""
        return {row.path: row.learning_rate for row in self.rows if row.learning_rate != 1}

    @property
    def kept(self) -> tuple[str, ...]:
        """Paths of the weights that were left as they were because nothing tells their initial values."""
        return tuple(row.path for row in self.rows if row.note.endswith(UNKNOWN))

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as dicts, tuples and numbers."""
        return dataclasses.asdict(self) | {"kept": self.kept}

    def __str__(self) -> str:
        """Formats the kernels as an aligned table, and counts the rest."""
        shown = [
            row for row in self.rows if row.fans or row.learning_rate != 1 or (row.note and not row.fans)
        ]
        rates = any(row.learning_rate != 1 for row in shown)
        cells = [
            ("path", "role", "shape", "fans", "initializer", "std", *(["lr x"] if rates else []), "note")
        ]
        for row in shown:
            fans = f"{row.fans.fan_in:.4g}, {row.fans.fan_out:.4g}" if row.fans else "-"
            std = "-" if row.std is None else f"{row.std:.4g}"
            shape = "x".join(map(str, row.shape)) or "()"
            rate = [f"{row.learning_rate:.4g}"] if rates else []
            cells.append((row.path, row.role, shape, fans, row.initializer or "-", std, *rate, row.note))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
            for line in cells
        ]
        drawn = sum(bool(row.initializer) for row in self.rows)
        rest = len(self.rows) - len(shown)
        reset = ", optimizer slots reset" if self.optimizer_reset else ""
        lines.append(
            f"{drawn} of {len(self.rows)} weights drawn by {self.scheme} with seed {self.seed}{reset}, "
            f"{self.seconds:.2f} s; {rest} biases, scales and statistics, by their layers' own initializers, "
            "are not shown"
        )
        return "\n".join(lines)
