"""A report as a table: for a terminal, for `rich`, for notebooks."""

import html
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_initx.diagnostics._report import SignalReport

__all__ = ["as_html", "as_rich", "as_text"]

_COLUMNS = {
    "path": "path",
    "role": "role",
    "expected": "expected_std",
    "std": "preactivation_std",
    "gain": "forward_gain",
    "back": "backward_gain",
    "act std": "activation_std",
    "dead": "dead",
    "satur.": "saturated",
    "cos": "correlation",
    "grad std": "gradient_std",
    "update": "update_ratio",
    "note": "note",
}
_WORDS = ("path", "role", "note")  # to the left; numbers stand to the right


def as_text(report: "SignalReport") -> str:
    """Returns an aligned table, the totals and the verdicts."""
    columns = [[name, *cells] for name, cells in _columns(report).items()]
    aligned = []
    for column in columns:
        width = max(map(len, column))
        word = column[0] in _WORDS
        aligned.append([text.ljust(width) if word else text.rjust(width) for text in column])
    lines = ["  ".join(line).rstrip() for line in zip(*aligned, strict=True)]
    return "\n".join([*lines, *_totals(report), *map(str, report.verdicts)])


def as_rich(report: "SignalReport") -> Any:
    """Returns a table that `rich` prints, with the totals and the verdicts."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    columns = _columns(report)
    for name, cells in columns.items():
        word = name in _WORDS
        least = min(24, max(map(len, cells))) if name == "path" else None  # not lost in a narrow terminal
        table.add_column(name, justify="left" if word else "right", overflow="fold", min_width=least)
    for line in zip(*columns.values(), strict=True):
        table.add_row(*map(Text, line))  # a path may hold brackets, which are markup
    return Group(table, *map(Text, [*_totals(report), *map(str, report.verdicts)]))


def as_html(report: "SignalReport") -> str:
    """Returns a table with the totals and the verdicts, for notebooks."""
    columns = _columns(report)
    sides = ["left" if name in _WORDS else "right" for name in columns]
    head = "".join(
        f'<th style="text-align:{side};padding:0 0.6em" title="{_COLUMNS[name]}">{name}</th>'
        for name, side in zip(columns, sides, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="text-align:{side};padding:0 0.6em">{html.escape(text)}</td>'
            for text, side in zip(line, sides, strict=True)
        )
        + "</tr>"
        for line in zip(*columns.values(), strict=True)
    )
    notes = "".join(f"<li>{html.escape(str(verdict))}</li>" for verdict in report.verdicts)
    totals = "<br>".join(map(html.escape, _totals(report)))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<p>{totals}</p>{f'<ol>{notes}</ol>' if notes else ''}{table}"


def _columns(report: "SignalReport") -> dict[str, list[str]]:
    """The columns in which any row says something."""
    columns = {name: [_text(getattr(row, field)) for row in report.rows] for name, field in _COLUMNS.items()}
    return {name: cells for name, cells in columns.items() if any(text != "-" for text in cells)}


def _text(value: Any) -> str:
    if value is None or value == "":
        return "-"
    return value if isinstance(value, str) else f"{value:.3g}"


def _totals(report: "SignalReport") -> list[str]:
    gains = {"forward gain": report.forward_gain, "backward gain": report.backward_gain}
    known = {name: value for name, value in (gains | {"chi_1": report.chi_1}).items() if value is not None}
    numbers = [f"{name} {value:.3g}" for name, value in known.items()]
    kept = report.step_kept
    step = [] if kept is None else [f"a step keeps {kept:.0%} of what its gradient promises"]
    lines = [
        ", ".join(
            [
                f"{len(report.rows)} kernels on {report.samples} rows",
                *numbers,
                f"loss {report.loss:.4g} ({report.loss_name})",
                *step,
                f"{report.seconds:.2f} s",
            ]
        )
    ]
    if report.jacobian is not None:
        spectrum = report.jacobian
        lines.append(
            f"Jacobian of {spectrum.outputs} outputs by {spectrum.inputs} inputs: largest singular value "
            f"{spectrum.largest:.4g}, root mean square {math.sqrt(spectrum.mean_square):.4g}"
        )
    count = len(report.verdicts)
    lines.append(f"{count} verdict{'s' if count > 1 else ''}" if count else f"no verdicts{_untold(report)}")
    return lines


def _untold(report: "SignalReport") -> str:
    """What a report without verdicts does not promise."""
    if report.step_kept is None:
        return "; nothing is known of the learning rate without targets and a compiled optimizer"
    return "; of the learning rate the first step alone is known"
