"""A comparison as text and as Markdown."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_initx.experiments._notes import notes_of

if TYPE_CHECKING:
    from keras_initx.experiments._comparison import Comparison, Difference, SchemeRow

__all__ = ["as_markdown", "as_text", "say"]


def as_text(comparison: "Comparison") -> str:
    """The table of the best learning rates, aligned, and the summary."""
    table = [_titles(comparison), *(_cells(row) for row in comparison.rows)]
    kept = [index for index, title in enumerate(table[0]) if any(cells[index] for cells in table[1:])]
    widths = [max(len(cells[index]) for cells in table) for index in kept]
    lines = [
        "  ".join(
            cells[index].ljust(width) if index == 0 else cells[index].rjust(width)
            for index, width in zip(kept, widths, strict=True)
        ).rstrip()
        for cells in table
    ]
    reasons = [f"{row.initializer} failed: {reason}" for row in comparison.grid for reason in row.failures]
    return "\n".join([*lines, "", *reasons, *notes_of(comparison.results), comparison.summary])


def as_markdown(comparison: "Comparison") -> str:
    """The tables of the best learning rates, of all of them if there are several, and the summary."""
    parts = [_table(comparison, comparison.rows)]
    if len(comparison.grid) > len(comparison.rows):
        parts.append("All learning rates:\n\n" + _table(comparison, comparison.grid))
    reasons = [f"{row.initializer} failed: {reason}" for row in comparison.grid for reason in row.failures]
    lines = [*reasons, *notes_of(comparison.results), *comparison.summary.split("\n")]
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in lines)]) + "\n"


def say(difference: "Difference", rows: Sequence["SchemeRow"]) -> str:
    """One difference in a sentence."""
    first, second = difference.first, difference.second
    if difference.seeds < 2:
        well = {row.initializer: f"{row.seeds - row.lost} of {row.seeds}" for row in rows}
        verb = (
            "ends well more often than" if difference.real else "ends well as often as far as can be told as"
        )
        return f"{first} {verb} {second}: {well[first]} against {well[second]} ({_p(difference)})."
    size = f"{difference.mean:+.3g} [{difference.low:.3g}, {difference.high:.3g}]"
    tail = f"{size} ({_p(difference)}, {difference.seeds} seeds)."
    return (
        f"{first} beats {second}: {tail}"
        if difference.real
        else f"{first} against {second} may be noise: {tail}"
    )


def _p(difference: "Difference") -> str:
    return "p < 0.001" if difference.corrected < 0.001 else f"p = {difference.corrected:.2g}"


def _titles(comparison: "Comparison") -> list[str]:
    return [
        *("initializer", "learning rate", f"{comparison.reported} {comparison.metric}", "95 % interval"),
        *("seeds", "diverged", "stopped", "failed", "epochs to target", "s to target", "forward gain", "s"),
    ]


def _cells(row: "SchemeRow") -> list[str]:
    def number(value: float | None, form: str = ".4g") -> str:
        return "" if value is None else format(value, form)

    bounds = "" if row.low is None else f"[{row.low:.4g}, {row.high:.4g}]"
    return [
        *(row.initializer, number(row.learning_rate), number(row.mean), bounds, str(row.seeds)),
        *(str(count or "") for count in (row.diverged, row.stopped, row.failed)),
        *(number(row.epochs_to_target), number(row.seconds_to_target, ".3g")),
        *(number(row.forward_gain, ".3g"), number(row.seconds, ".3g")),
    ]


def _table(comparison: "Comparison", rows: Sequence["SchemeRow"]) -> str:
    titles = _titles(comparison)
    lines = [titles, ["---"] * len(titles), *(_cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
