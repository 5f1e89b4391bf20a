"""A comparison as rows of plain cells: texts, numbers and None."""

import itertools
from collections.abc import Mapping, Sequence

from keras_initx.checks import check_choice
from keras_initx.experiments._rows import ComparisonRow
from keras_initx.experiments._trial import TrialResult
from keras_initx.reports import records_of

__all__ = ["cells_of"]

_TABLES = ("epochs", "initializers", "rows", "trials")


def cells_of(
    table: str,
    rows: Sequence[ComparisonRow],
    grid: Sequence[ComparisonRow],
    results: Sequence[TrialResult],
    about: Mapping[str, object],
) -> list[dict[str, object]]:
    """Returns one of the tables of a comparison, a dict of column and cell for each row.

    Args:
        table: Name of the table: `rows`, `initializers`, `trials` or `epochs`.
        rows: Initializers at their best learning rates.
        grid: Initializers at all learning rates.
        results: The trials.
        about: Cells that all rows of initializers have.
    """
    check_choice("table", table, _TABLES)
    if table == "trials":
        return [_trial(result) for result in results]
    if table == "epochs":
        return [row for result in results for row in _epochs(result)]
    if table == "rows":
        return [{**record, **about} for record in records_of(rows)]
    chosen = {(row.initializer, row.learning_rate) for row in rows}
    return [
        {**record, "chosen": (row.initializer, row.learning_rate) in chosen, **about}
        for row, record in zip(grid, records_of(grid), strict=True)
    ]


def _trial(result: TrialResult) -> dict[str, object]:
    """A trial, the numbers of `diagnose`, and each log after the last epoch."""
    [about], [found] = records_of([result.trial]), records_of([result])
    del found["trial"]
    found.pop("signal", None)
    signal = {
        f"signal_{name}": "; ".join(value) if isinstance(value, list | tuple) else value
        for name, value in (result.signal or {}).items()
    }
    last = {f"last_{name}": curve[-1] for name, curve in result.curves.items() if len(curve)}
    return {**about, **found, **signal, **last}


def _epochs(result: TrialResult) -> list[dict[str, object]]:
    trial = {name: value for name, value in vars(result.trial).items() if name != "epochs"}
    return [
        {**trial, "epoch": epoch, **dict(zip(result.curves, logs, strict=True))}
        for epoch, logs in enumerate(itertools.zip_longest(*result.curves.values()), 1)
    ]
