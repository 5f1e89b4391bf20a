"""The report of `compare`: rows, differences, a summary and a recommendation."""

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from keras_initx.experiments._curves import Curve, curves_of
from keras_initx.experiments._dashboard import write_runs
from keras_initx.experiments._format import columns_of, direction, to_latex, to_markdown
from keras_initx.experiments._frame import cells_of
from keras_initx.experiments._notes import sentences_of
from keras_initx.experiments._reset import Drawn, sentences_of_drawn
from keras_initx.experiments._rows import ComparisonRow, Difference
from keras_initx.experiments._statistics import Bounds
from keras_initx.experiments._trial import TrialResult
from keras_initx.reports import Report, frame_of
from keras_initx.tables import Table

if TYPE_CHECKING:
    import pandas

__all__ = ["Comparison"]


@dataclasses.dataclass(frozen=True)
class Comparison(Report):
    """The report of `compare`. `print(comparison)` shows a table with the summary below.

    `keras_initx.plots` draws a comparison: `plot_curves`, `plot_finals`, `plot_rates`.

    Attributes:
        rows: One row for each initializer at its best learning rate, the best mean first.
        grid: One row for each initializer and learning rate.
        differences: The tests of each pair of initializers: one test of their values, and one test of how
            often they end well if a seed of either diverged or was stopped.
        summary: Sentences that say which differences are real and which may be noise.
        recommendation: Label of the initializer that beats all others; None if no initializer does. The
            recommended initializer has the best mean over its seeds, and is not worse than any other
            initializer on the seeds that they share.
        metric: Name of the metric.
        minimize: Whether less of the metric is better.
        reported: The data that the metric is reported on: `test` or `validation`.
        results: The result of every trial.
        bounds: By name of a log, the least and the greatest value that the log can have, where known.
        chance: The metric of the best prediction that is the same for all rows of the reported data; None
            if it is not known.
        drawn: By label of an initializer, how many kernels it draws, and which share of their parameters.
    """

    rows: tuple[ComparisonRow, ...]
    grid: tuple[ComparisonRow, ...]
    differences: tuple[Difference, ...]
    summary: str
    recommendation: str | None
    metric: str
    minimize: bool
    reported: str
    results: tuple[TrialResult, ...]
    bounds: Mapping[str, Bounds] = dataclasses.field(default_factory=dict)
    chance: float | None = None
    drawn: Mapping[str, Drawn] = dataclasses.field(default_factory=dict)

    def curves(self, name: str | None = None) -> dict[str, Curve]:
        """Returns a log of `fit` by epoch: a curve for each row, by label, in the order of the rows.

        Args:
            name: A name of the logs, such as `loss` or `val_accuracy`; None for the metric on the validation
                data.

        Raises:
            ValueError: If `fit` logged nothing of that name.
        """
        default = f"val_{self.metric}"
        return curves_of(self.rows, self.results, default if name is None else name, default, self.bounds)

    def to_dataframe(self, table: str = "rows") -> "pandas.DataFrame":
        """Returns a `pandas.DataFrame`, with texts, numbers and None in its cells.

        Args:
            table: `"rows"` for the rows of the comparison, as `print` shows them; `"initializers"` for a row
                for each initializer and learning rate, with a column that says whether the rate was chosen;
                `"trials"` for a row for each trial, with every log after the last epoch; `"epochs"` for a
                row for each epoch of each trial, with the logs of the epoch.

        Raises:
            ImportError: If pandas is not installed (the extra `dataframe`).
            ValueError: If there is no such table.
        """
        about = {"metric": self.metric, "minimize": self.minimize, "reported": self.reported}
        return frame_of(cells_of(table, self.rows, self.grid, self.results, about))

    def to_markdown(self) -> str:
        """Returns the table and the summary as Markdown; also the table of all learning rates if several."""
        several = len(self.grid) > len(self.rows)
        return to_markdown(self._columns(), self._columns(all_rates=True) if several else None, self._notes())

    def to_latex(self) -> str:
        r"""Returns the table for a paper, with the summary as comments; it needs `\usepackage{booktabs}`."""
        return to_latex(self._columns(), self.minimize, self._notes())

    def to_tensorboard(self, log_dir: str | os.PathLike[str]) -> None:
        """Writes the trials for TensorBoard: a run each, on the pages HParams, Scalars and Time Series.

        The folder may hold runs already: the same trials are written anew, other runs stay.

        Args:
            log_dir: A local folder, for `tensorboard --logdir`; it is made if it does not exist.

        Raises:
            TypeError: If `log_dir` is not a path.
            ValueError: If the folder cannot be written.
        """
        write_runs(self.results, self.metric, log_dir)

    def _table(self) -> Table:
        some = {label: drawn for label, drawn in self.drawn.items() if drawn.others}
        return Table(self._columns().columns, ("", *self._notes()), tuple(sentences_of_drawn(some)))

    def _columns(self, all_rates: bool = False) -> Table:
        """The table of the best learning rates, or of all learning rates."""
        chosen = len(self.grid) > len(self.rows)
        return Table(
            columns_of(
                self.grid if all_rates else self.rows,
                rate="learning rate, chosen on validation" if chosen else "learning rate",
                mean=f"{self.reported} {self.metric} ({direction(self.minimize)})",
            )
        )

    def _notes(self) -> list[str]:
        return sentences_of(self.grid, self.results, self.summary)
