"""The columns of a comparison's table, and the table as Markdown and LaTeX."""

from collections.abc import Sequence

from keras_initx.experiments._rows import ComparisonRow
from keras_initx.tables import Column, Table, numbers, words

__all__ = ["columns_of", "direction", "to_latex", "to_markdown"]


def direction(minimize: bool) -> str:
    """Which values of the metric are better, in words."""
    return "less is better" if minimize else "more is better"


def columns_of(rows: Sequence[ComparisonRow], *, rate: str, mean: str) -> tuple[Column, ...]:
    """Returns the columns of rows; columns that say nothing are left out when the table is written.

    Args:
        rows: The rows.
        rate: Title of the column of learning rates.
        mean: Title of the column of means.
    """
    bounds = ["" if row.std is None else f"[{row.low:.4g}, {row.high:.4g}]" for row in rows]
    counts = {
        name: numbers(name, [getattr(row, name) or None for row in rows], "d")
        for name in ("seeds", "diverged", "stopped", "failed")
    }
    return (
        words("initializer", [row.initializer for row in rows]),
        numbers(rate, [row.learning_rate for row in rows]),
        numbers(mean, [row.mean for row in rows]),
        numbers("std", [row.std for row in rows], ".2g"),
        Column("95 % interval", tuple(bounds), number=True),
        *counts.values(),
        numbers("epochs to target", [row.epochs_to_target for row in rows]),
        numbers("s to target", [row.seconds_to_target for row in rows], ".3g"),
        numbers("forward gain", [row.forward_gain for row in rows], ".3g"),
        numbers("s", [row.seconds for row in rows], ".3g"),
        words("note", ["at chance" if row.at_chance else "" for row in rows], note=True),
    )


def to_markdown(best: Table, all_rates: Table | None, notes: Sequence[str]) -> str:
    """Returns the table of the best rates, the table of all rates if there is one, and a list of notes."""
    parts = [best.to_markdown()]
    if all_rates is not None:
        parts.append("All learning rates:\n\n" + all_rates.to_markdown())
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in notes)]) + "\n"


def to_latex(table: Table, minimize: bool, notes: Sequence[str]) -> str:
    """Returns the table with an arrow instead of the words for the direction, and the notes as comments."""
    arrow = r"$\downarrow$" if minimize else r"$\uparrow$"
    lines = table.to_latex().replace(f"({direction(minimize)})", arrow, 1)
    return "\n".join([lines, *(f"% {note}" for note in notes)])
