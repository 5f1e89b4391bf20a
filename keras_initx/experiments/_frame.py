"""A comparison as rows of plain cells: texts, numbers and None."""

import itertools
from typing import TYPE_CHECKING, Any

from keras_initx.checks import check_choice

if TYPE_CHECKING:
    from keras_initx.experiments._comparison import Comparison
    from keras_initx.experiments._trial import TrialResult

__all__ = ["TABLES", "records_of"]

TABLES = ("epochs", "initializers", "trials")


def records_of(comparison: "Comparison", table: str) -> list[dict[str, Any]]:
    """Returns the rows of one of the tables."""
    check_choice("table", table, TABLES)
    if table == "trials":
        return [_trial(result) for result in comparison.results]
    if table == "epochs":
        return [row for result in comparison.results for row in _epochs(result)]
    chosen = {(row.initializer, row.learning_rate) for row in comparison.rows}
    about = {"metric": comparison.metric, "minimize": comparison.minimize, "reported": comparison.reported}
    return [
        {
            **{name: _flat(value) for name, value in vars(row).items() if not isinstance(value, dict)},
            "chosen": (row.initializer, row.learning_rate) in chosen,
            **about,
        }
        for row in comparison.grid
    ]


def _trial(result: "TrialResult") -> dict[str, Any]:
    """A trial, what `diagnose` found, and each log after the last epoch."""
    found = {**vars(result.trial), **{name: value for name, value in vars(result).items() if name != "trial"}}
    signal, curves = found.pop("signal") or {}, found.pop("curves")
    found |= {f"signal_{name}": value for name, value in signal.items()}
    found |= {f"last_{name}": curve[-1] for name, curve in curves.items() if len(curve)}
    return {name: _flat(value) for name, value in found.items()}


def _epochs(result: "TrialResult") -> list[dict[str, Any]]:
    trial = {name: value for name, value in vars(result.trial).items() if name != "epochs"}
    return [
        {**trial, "epoch": epoch, **dict(zip(result.curves, logs, strict=True))}
        for epoch, logs in enumerate(itertools.zip_longest(*result.curves.values()), 1)
    ]


def _flat(value: Any) -> Any:
    """A cell: what is several texts is one."""
    return "; ".join(map(str, value)) if isinstance(value, list | tuple) else value
