"""What a comparison found: rows, differences, a summary and a recommendation."""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keras_initx.experiments._curves import Curve, curves_of
from keras_initx.experiments._dashboard import write_runs
from keras_initx.experiments._format import as_latex, as_markdown, as_text
from keras_initx.experiments._frame import records_of
from keras_initx.experiments._statistics import Bounds
from keras_initx.experiments._trial import TrialResult
from keras_initx.extras import require

if TYPE_CHECKING:
    import pandas

__all__ = ["Comparison", "Difference", "SchemeRow"]


@dataclasses.dataclass(frozen=True)
class SchemeRow:
    """One initializer at one learning rate, over all seeds.

    Attributes:
        initializer: Its label.
        learning_rate: The learning rate; None for that of the compiled model.
        seeds: How many were tried.
        mean: Mean of the metric over the seeds that ended well; None if none did. It is measured on the test
            data where there are any, else on the validation data.
        std: Standard deviation over these seeds, with n - 1; None below two of them.
        low: Lower bound of the mean's 95 % interval, which stays within what the metric can be.
        high: Upper bound.
        validation: Mean of the metric on the validation data, by which the learning rate is chosen.
        diverged: How many seeds diverged, which speaks against the initializer.
        stopped: How many a scheduler ended early as they were behind, which speaks against it, too.
        failed: How many raised an exception, or were lost with their machine, which says nothing about it.
        at_chance: Whether none of the seeds that ended well is better than the best prediction that is the
            same for all rows. False also where that is not known.
        epochs_to_target: Median epochs until the target; None unless more than half of the seeds reached it.
        seconds_to_target: The same in seconds of training.
        forward_gain: Median over seeds of what `diagnose` found before the first step.
        verdicts: Kinds of verdicts that it found in any seed.
        seconds: Median seconds of a trial.
        values: The metric by seed, of the seeds that ended well.
        failures: What was raised, each reason once.
    """

    initializer: str
    learning_rate: float | None
    seeds: int
    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    validation: float | None
    diverged: int
    stopped: int
    failed: int
    at_chance: bool
    epochs_to_target: float | None
    seconds_to_target: float | None
    forward_gain: float | None
    verdicts: tuple[str, ...]
    seconds: float
    values: dict[int, float]
    failures: tuple[str, ...]

    @property
    def ended(self) -> int:
        """How many seeds ended well."""
        return len(self.values)

    @property
    def judged(self) -> int:
        """How many seeds say something about the initializer: all that did not fail by an exception."""
        return self.seeds - self.failed

    @property
    def lost(self) -> int:
        """How many seeds did not end well."""
        return self.diverged + self.stopped + self.failed


@dataclasses.dataclass(frozen=True)
class Difference:
    """Two initializers, each at its own learning rate: their values, or how often they end well.

    Attributes:
        first: The label of the one that is better by this test; of equal ones, that of the higher row.
        second: The other label.
        kind: `"values"`: the metric on the seeds on which both ended well, by Student's paired test.
            `"endings"`: how many seeds did not diverge and were not stopped, by Fisher's exact test.
        mean: Mean of the metric of the first less that of the second, on shared seeds; None without any.
        low: Lower bound of its 95 % interval, widened by as much as p is corrected: zero is outside exactly
            if `real`. None of endings.
        high: Upper bound.
        p: p value of the test, two-sided; 1 if they share fewer than two seeds.
        corrected: The same, corrected by Holm for the number of tests.
        seeds: How many seeds it rests on; of endings, those of the one that has fewer.
        real: Whether the corrected one is below 0.05: the first is better.
    """

    first: str
    second: str
    kind: str
    mean: float | None
    low: float | None
    high: float | None
    p: float
    corrected: float
    seeds: int
    real: bool


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `compare` found. `print(comparison)` shows it as a table, with the summary below.

    `keras_initx.plots` draws it: `plot_curves`, `plot_finals`, `plot_rates`.

    Attributes:
        rows: One row per initializer at its best learning rate, the best mean first.
        grid: One row per initializer and learning rate.
        differences: For each pair of initializers, that of their values, and that of how often they end well
            if either diverged or was stopped.
        summary: What is real and what is noise, in sentences.
        recommendation: The label of the one initializer that beats all others; None if there is none. It has
            the best mean over its seeds, and is not worse than any other on the seeds that they share.
        metric: The metric.
        minimize: Whether less of it is better.
        reported: The data that it is reported on, `test` or `validation`.
        results: The result of every trial.
        bounds: By the name of a log what it cannot be below and above, where that is known.
        chance: The metric of the best prediction that is the same for all rows of the data that it is
            reported on; None where it is not known.
    """

    rows: tuple[SchemeRow, ...]
    grid: tuple[SchemeRow, ...]
    differences: tuple[Difference, ...]
    summary: str
    recommendation: str | None
    metric: str
    minimize: bool
    reported: str
    results: tuple[TrialResult, ...]
    bounds: Mapping[str, Bounds] = dataclasses.field(default_factory=dict)
    chance: float | None = None

    def curves(self, name: str | None = None) -> dict[str, Curve]:
        """Returns what `fit` logged by epoch: a curve per row, by label and in the order of the rows.

        Args:
            name: A name of the logs, such as `loss` or `val_accuracy`; None for the metric on the validation
                data.

        Raises:
            ValueError: If nothing of that name was logged.
        """
        return curves_of(self, name)

    def to_dict(self) -> dict[str, Any]:
        """Returns the comparison as plain dicts, lists and numbers."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Returns the comparison as JSON, with null for what is NaN or infinite."""
        finite = json.loads(json.dumps(self.to_dict()), parse_constant=lambda _: None)
        return json.dumps(finite, indent=2)

    def to_markdown(self) -> str:
        """Returns the tables and the summary as Markdown."""
        return as_markdown(self)

    def to_latex(self) -> str:
        r"""Returns the table for a paper, with the summary as comments; it needs `\usepackage{booktabs}`."""
        return as_latex(self)

    def to_dataframe(self, table: str = "trials") -> "pandas.DataFrame":
        """Returns a table whose cells are texts, numbers and None.

        Args:
            table: `"trials"`, with what each log was after the last epoch; `"epochs"`: the logs of each epoch
                of each trial; or `"initializers"`: what `grid` holds, and whether the rate was chosen.

        Raises:
            ImportError: If pandas is not installed.
            ValueError: If there is no such table.
        """
        records = records_of(self, table)
        require("pandas", extra="dataframe", purpose="`to_dataframe`")
        import pandas

        return pandas.DataFrame(records)

    def to_tensorboard(self, log_dir: str | os.PathLike[str]) -> None:
        """Writes the trials for TensorBoard: a run each, on the pages HParams, Scalars and Time Series.

        Trials that the folder holds already are written anew, others stay.

        Args:
            log_dir: A local folder, for `tensorboard --logdir`; it is made when there is none.

        Raises:
            TypeError: If it is not a path.
            ValueError: If it cannot be written.
        """
        write_runs(self.results, self.metric, log_dir)

    def __str__(self) -> str:
        """Formats the comparison as a table."""
        return as_text(self)
