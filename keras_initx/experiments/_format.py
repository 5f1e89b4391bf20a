"""A comparison as text, as Markdown and as LaTeX."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_initx.experiments._notes import notes_of
from keras_initx.experiments._words import better

if TYPE_CHECKING:
    from keras_initx.experiments._comparison import Comparison, SchemeRow

__all__ = ["as_latex", "as_markdown", "as_text"]

_LATEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
        **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"},
    }
)


def as_text(comparison: "Comparison") -> str:
    """The table of the best learning rates, aligned, and the summary."""
    table = _table(comparison, comparison.rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in table
    ]
    return "\n".join([*lines, "", *_notes(comparison)])


def as_markdown(comparison: "Comparison") -> str:
    """The tables of the best learning rates, of all of them if there are several, and the summary."""
    parts = [_markdown(_table(comparison, comparison.rows))]
    if len(comparison.grid) > len(comparison.rows):
        parts.append("All learning rates:\n\n" + _markdown(_table(comparison, comparison.grid)))
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in _notes(comparison))]) + "\n"


def as_latex(comparison: "Comparison") -> str:
    """The table of the best learning rates, for the package booktabs, and the summary in comments."""
    titles, *rows = [
        [cell.translate(_LATEX) for cell in cells] for cells in _table(comparison, comparison.rows)
    ]
    arrow = r"$\downarrow$" if comparison.minimize else r"$\uparrow$"
    titles = [title.replace(f"({better(comparison.minimize)})", arrow) for title in titles]
    line = lambda cells: " & ".join(cells) + r" \\"  # noqa: E731
    return "\n".join(
        [
            f"\\begin{{tabular}}{{l{'r' * (len(titles) - 1)}}}",
            *(r"\toprule", line(titles), r"\midrule", *map(line, rows), r"\bottomrule", r"\end{tabular}"),
            *(f"% {note}" for note in _notes(comparison)),
        ]
    )


def _notes(comparison: "Comparison") -> list[str]:
    """Sentences below the table, each on a line: why trials failed, what to know of them, and the summary."""
    reasons = [f"{row.initializer} failed: {reason}" for row in comparison.grid for reason in row.failures]
    told = [*dict.fromkeys(reasons), *notes_of(comparison.results), comparison.summary]
    lines = "\n".join(told).splitlines()
    return [line for line in lines if line.strip()]


def _table(comparison: "Comparison", rows: Sequence["SchemeRow"]) -> list[list[str]]:
    """Titles and cells, without the columns that are empty."""
    chosen = len(comparison.grid) > len(comparison.rows)
    table = [
        [
            *("initializer", "learning rate, chosen on validation" if chosen else "learning rate"),
            f"{comparison.reported} {comparison.metric} ({better(comparison.minimize)})",
            *("std", "95 % interval", "seeds", "diverged", "stopped", "failed"),
            *("epochs to target", "s to target", "forward gain", "note", "s"),
        ],
        *(_cells(row) for row in rows),
    ]
    kept = [index for index, column in enumerate(zip(*table, strict=True)) if any(column[1:])]
    return [[cells[index] for index in kept] for cells in table]


def _cells(row: "SchemeRow") -> list[str]:
    def number(value: float | None, form: str = ".4g") -> str:
        return "" if value is None else format(value, form)

    bounds = "" if row.std is None else f"[{row.low:.4g}, {row.high:.4g}]"
    return [
        *(row.initializer, number(row.learning_rate), number(row.mean), number(row.std, ".2g"), bounds),
        *(str(count or "") for count in (row.seeds, row.diverged, row.stopped, row.failed)),
        *(number(row.epochs_to_target), number(row.seconds_to_target, ".3g")),
        *(number(row.forward_gain, ".3g"), "at chance" if row.at_chance else "", number(row.seconds, ".3g")),
    ]


def _markdown(table: Sequence[Sequence[str]]) -> str:
    titles, *rows = table
    lines = [titles, ["---"] * len(titles), *rows]
    escaped = [[cell.replace("|", r"\|") for cell in cells] for cells in lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in escaped)
