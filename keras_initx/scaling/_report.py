"""The report of `coordinates`: rows, slopes, findings, and limits for tests."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_initx.checks import check_choice, is_number
from keras_initx.reports import Report, frame_of, records_of
from keras_initx.scaling._findings import KINDS, MAX_FALL, MAX_SLOPE, Finding, find
from keras_initx.scaling._rows import CoordinateRow, Divergence, Growth, Slope
from keras_initx.tables import Column, Table, numbers, words

if TYPE_CHECKING:
    import pandas

__all__ = ["CoordinateError", "CoordinateReport"]


class CoordinateError(ValueError):
    """Raised by `CoordinateReport.check` for coordinates that break a limit.

    Attributes:
        findings: The findings that break a limit.
    """

    def __init__(self, message: str, findings: tuple[Finding, ...]) -> None:
        super().__init__(message)
        self.findings = findings


@dataclasses.dataclass(frozen=True)
class CoordinateReport(Report):
    """The report of `coordinates`. `print(report)` shows the slopes by layer, and the findings below.

    `keras_initx.plots.plot_coordinates` draws it.

    Attributes:
        rows: One row for each width, seed, layer and step.
        slopes: One row for each layer and step: the slopes of log size over log width.
        growths: One row for each kernel: how its weights and updates grow, and how they should.
        widths: The widths.
        steps: Number of training steps.
        seeds: The seeds.
        samples: Number of rows in the batch.
        optimizer: The optimizer that took the steps.
        diverged: The trainings in which a number was not finite.
        notes: Facts that the check could not read.
        seconds: Seconds that the call took.
    """

    rows: tuple[CoordinateRow, ...]
    slopes: tuple[Slope, ...]
    growths: tuple[Growth, ...]
    widths: tuple[int, ...]
    steps: int
    seeds: tuple[int, ...]
    samples: int
    optimizer: str
    diverged: tuple[Divergence, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The layers that break the default limits of `check`; those that are wrong themselves come first."""
        return self._find(MAX_SLOPE, MAX_FALL)

    def check(
        self,
        max_slope: float = MAX_SLOPE,
        *,
        max_fall: float | None = MAX_FALL,
        allow: str | Sequence[str] = (),
    ) -> None:
        """Raises CoordinateError if a coordinate grows with the width, or a change vanishes.

        A layer *grows* if a slope of its value or of its change is above `max_slope` at any step. It
        *vanishes* if the slope of its change is below `-max_fall` at all steps: the layer does not learn in
        the limit of great width. Values may fall: the outputs of muP fall as 1 / sqrt(width) at the start.

        A kernel is *unscaled* if its updates grow beyond muP's law by a power of 0.4, at a learning rate that
        does not go with the width as those of other kernels do: these may hide it at the widths that were
        measured.

        A slope breaks a limit if it does so by more than its standard error over the seeds, times Student's t
        for so few seeds. With one seed the slope itself counts, so that a small layer may break a limit by
        chance.

        Args:
            max_slope: Largest slope of a value or a change.
            max_fall: Largest fall of a change. The default lies half way between the slope 0 of muP and the
                slope -1/2 of the next law: at finite width, a change of muP falls with powers to about 0.15.
                None for no limit.
            allow: Kinds of findings that do not count: `"diverges"`, `"grows"`, `"unscaled"`,
                `"vanishes"`.

        Raises:
            CoordinateError: If a limit is broken. Its `findings` say where.
            ValueError: If a limit is not a number of at least 0, or `allow` holds a word that is not a kind.
        """
        for name, limit in (("max_slope", max_slope), ("max_fall", max_fall)):
            if not (name == "max_fall" and limit is None) and not (
                is_number(limit) and 0 <= limit < math.inf
            ):
                raise ValueError(f"`{name}` must be a number of at least 0. Received: {name}={limit!r}.")
        allowed = {allow} if isinstance(allow, str) else set(allow)
        for kind in sorted(allowed):
            check_choice("allow", kind, KINDS)
        broken = tuple(found for found in self._find(max_slope, max_fall) if found.kind not in allowed)
        if broken:
            limits = f"max_slope={max_slope:g}" + ("" if max_fall is None else f", max_fall={max_fall:g}")
            lines = [f"the coordinates break a limit ({limits}):", *map(str, broken)]
            raise CoordinateError("\n".join(lines), broken)

    def to_dataframe(self, table: str = "rows") -> "pandas.DataFrame":
        """Returns a `pandas.DataFrame`.

        Args:
            table: `"rows"` for a row for each width, seed, layer and step; `"slopes"` for a row for each
                layer and step; `"growths"` for a row for each kernel.

        Raises:
            ImportError: If pandas is not installed (the extra `dataframe`).
            ValueError: If there is no such table.
        """
        check_choice("table", table, ("growths", "rows", "slopes"))
        return frame_of(records_of(getattr(self, table)))

    def _find(self, max_slope: float, max_fall: float | None) -> tuple[Finding, ...]:
        return find(
            self.slopes,
            self.growths,
            self.diverged,
            self.widths,
            self.optimizer,
            len(self.seeds),
            max_slope,
            max_fall,
        )

    def _more(self) -> dict[str, Any]:
        return {"findings": [dataclasses.asdict(found) for found in self.findings]}

    def _table(self) -> Table:
        """The layers, with their slopes at the start, after the first step and after the last."""
        at = {(slope.path, slope.step): slope for slope in self.slopes}
        paths = list(dict.fromkeys(slope.path for slope in self.slopes))
        first, last = self._ends()
        starts = [at[path, 0] for path in paths]
        kinds = {found.path: found.kind for found in self.findings}
        columns = (
            words("path", paths),
            words("role", [slope.role for slope in starts]),
            numbers(f"size at {self.widths[0]}", [first[path] for path in paths]),
            numbers(f"size at {self.widths[-1]}", [last[path] for path in paths]),
            _column("slope at start", [(slope.value, slope.value_error) for slope in starts]),
            *(
                _column(
                    f"slope of change, step {step}",
                    [(at[path, step].change, at[path, step].change_error) for path in paths],
                )
                for step in dict.fromkeys((1, self.steps))
            ),
            words("finding", [kinds.get(path, "") for path in paths], note=True),
        )
        return Table(columns, self._lines())

    def _ends(self) -> tuple[dict[str, float], dict[str, float]]:
        """The mean size of each layer at the start, at the smallest and at the largest width."""
        found: list[dict[str, float]] = []
        for width in (self.widths[0], self.widths[-1]):
            sums: dict[str, float] = {}
            for row in self.rows:
                if row.width == width and row.step == 0:
                    sums[row.path] = sums.get(row.path, 0.0) + row.value / len(self.seeds)
            found.append(sums)
        return found[0], found[1]

    def _lines(self) -> tuple[str, ...]:
        seeds = f"{len(self.seeds)} seed{'s' if len(self.seeds) > 1 else ''}"
        about = (
            f"widths {', '.join(map(str, self.widths))}; {self.steps} steps of {self.optimizer} on "
            f"{self.samples} rows, {seeds}, {self.seconds:.1f} s"
        )
        count = len(self.findings)
        told = f"{count} finding{'s' if count > 1 else ''}" if count else "no findings"
        return (about, *self.notes, told, *map(str, self.findings))


def _column(title: str, slopes: Sequence[tuple[float | None, float | None]]) -> Column:
    """A column of slopes with their standard errors."""
    cells = [
        "" if slope is None else f"{slope:+.2f}" + ("" if error is None else f" ± {error:.2f}")
        for slope, error in slopes
    ]
    return Column(title, tuple(cells), number=True)
