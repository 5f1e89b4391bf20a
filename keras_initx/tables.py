"""One writer of tables for all reports: text, HTML for notebooks, Markdown and LaTeX."""

import dataclasses
import html
import io
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group
from rich.table import Table as RichTable
from rich.text import Text

__all__ = ["Column", "Table", "listed", "numbers", "words"]

_GAP = 2  # spaces between two columns
_LEAST = 24  # characters that a column of texts keeps in a narrow terminal
_LATEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
        **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"},
    }
)


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        title: The text above the column.
        cells: A text for each row; empty where the row has nothing to say.
        number: Whether the cells are numbers. Numbers stand to the right and never wrap.
        note: Whether the cells are remarks. An empty remark stays blank; any other empty cell is a dash.
        about: The tooltip of the title in HTML.
    """

    title: str
    cells: tuple[str, ...]
    number: bool = False
    note: bool = False
    about: str = ""

    @property
    def shown(self) -> tuple[str, ...]:
        """The cells as a reader sees them."""
        return self.cells if self.note else tuple(cell or "-" for cell in self.cells)


def words(title: str, cells: Iterable[str], *, note: bool = False, about: str = "") -> Column:
    """Returns a column of texts.

    >>> words("role", ["dense", ""]).shown
    ('dense', '-')

    Args:
        title: The text above the column.
        cells: A text for each row; empty where the row has nothing to say.
        note: Whether the texts are remarks, so that an empty text stays blank.
        about: The tooltip of the title in HTML.
    """
    return Column(title, tuple(cells), note=note, about=about)


def numbers(title: str, values: Iterable[float | None], form: str = ".4g", *, about: str = "") -> Column:
    """Returns a column of numbers.

    >>> numbers("std", [0.123456, None]).shown
    ('0.1235', '-')

    Args:
        title: The text above the column.
        values: A number for each row; None where the row has none.
        form: The format of a number, as `format` takes it.
        about: The tooltip of the title in HTML.
    """
    cells = tuple("" if value is None else format(value, form) for value in values)
    return Column(title, cells, number=True, about=about)


def listed(texts: Sequence[str], most: int = 3) -> str:
    """Returns the first texts of a list, and how many more there are.

    >>> listed(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'

    Args:
        texts: The texts, such as paths.
        most: Number of texts that are shown.
    """
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


@dataclasses.dataclass(frozen=True)
class Table:
    """Columns and the sentences that belong to them, to be written in any form.

    A column in which no row says anything is left out.

    >>> print(Table((words("path", ["dense", "head"]), numbers("std", [1.0, 0.25]))).to_text())
    path    std
    dense     1
    head   0.25

    Attributes:
        columns: The columns, all of the same length.
        lines: Sentences, such as totals. Text has them below the table, HTML above the table.
        first: Sentences to read before all else. They stand above the table and above `lines`.
    """

    columns: tuple[Column, ...]
    lines: tuple[str, ...] = ()
    first: tuple[str, ...] = ()

    @property
    def kept(self) -> tuple[Column, ...]:
        """The columns in which any row says something; all columns of a table without rows."""
        return tuple(column for column in self.columns if any(column.cells) or not column.cells)

    def to_text(self, width: int | None = None) -> str:
        """Returns an aligned table with the sentences below, and `first` above.

        Args:
            width: Characters of a line. Texts wrap to fit, but keep 24 characters, and numbers never wrap: a
                table that is still too wide has longer lines. None for the width of the terminal. Where there
                is no terminal, such as in a file, nothing wraps.
        """
        room = _terminal_width() if width is None else width
        columns = self.kept
        widths = _fit(columns, room)
        file = io.StringIO()
        # Whatever the program's own output is, this one is plain text: no colours, no HTML of a notebook.
        console = Console(
            file=file,
            width=sum(widths) + _GAP * len(widths),
            color_system=None,
            force_terminal=False,
            force_jupyter=False,
            legacy_windows=False,
        )
        if columns:
            console.print(_rich_table(columns, widths))
        table = [line.rstrip() for line in file.getvalue().splitlines()]
        return "\n".join([*self.first, *table, *self.lines])

    def to_rich(self) -> Group:
        """Returns a table that `rich.print` shows in colours, with the sentences below."""
        table = _rich_table(self.kept, None, box=box.SIMPLE_HEAD, collapse_padding=True)
        return Group(*map(Text, self.first), table, *map(Text, self.lines))

    def to_html(self) -> str:
        """Returns a table for notebooks, with the sentences above. It is well-formed XML, too."""
        columns = self.kept
        head = "".join(_html_cell("th", column, column.title) for column in columns)
        rows = [
            "".join(map(_html_cell, ["td"] * len(columns), columns, cells))
            for cells in zip(*(column.shown for column in columns), strict=True)
        ]
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        lines = "".join(f"<p>{html.escape(line)}</p>" for line in (*self.first, *self.lines) if line)
        return f"<div>{lines}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"

    def to_markdown(self) -> str:
        """Returns the table alone, as Markdown."""
        columns = self.kept
        titles = [column.title for column in columns]
        rule = ["---:" if column.number else "---" for column in columns]
        rows = zip(*(column.cells for column in columns), strict=True)
        escaped = [[cell.replace("|", r"\|") for cell in cells] for cells in (titles, rule, *rows)]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in escaped)

    def to_latex(self) -> str:
        r"""Returns the table alone, as LaTeX for the package booktabs."""
        columns = self.kept
        rows = zip(*(column.cells for column in columns), strict=True)
        titles, *lines = [
            " & ".join(cell.translate(_LATEX) for cell in cells) + r" \\"
            for cells in ([column.title for column in columns], *rows)
        ]
        sides = "".join("r" if column.number else "l" for column in columns)
        return "\n".join(
            [
                f"\\begin{{tabular}}{{{sides}}}",
                *(r"\toprule", titles, r"\midrule", *lines, r"\bottomrule", r"\end{tabular}"),
            ]
        )


def _terminal_width() -> int:
    """Returns the characters of a line of the terminal; 0 if the output does not go to a terminal."""
    # The variable COLUMNS is not enough: readline sets it in programs whose output goes to a file.
    shown = sys.stdout is not None and sys.stdout.isatty()
    return shutil.get_terminal_size().columns if shown else 0


def _fit(columns: Sequence[Column], room: int) -> list[int]:
    """Returns the width of each column: as wide as its text, or narrower until all columns fit.

    The widest column that can wrap gives way first, so that a long note wraps while paths stay whole. `rich`
    has a rule of its own, but that one also cuts numbers.
    """
    widths = [max(map(cell_len, (column.title, *column.shown))) for column in columns]
    least = [_least(column, width) for column, width in zip(columns, widths, strict=True)]
    while room and sum(widths) + _GAP * (len(widths) - 1) > room:
        wide = [place for place, width in enumerate(widths) if width > least[place]]
        if not wide:
            break
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _least(column: Column, width: int) -> int:
    """The width below which a column would be hard to read: numbers stay whole, and only titles wrap."""
    if not column.number:
        return min(width, _LEAST)
    return max(map(cell_len, (*column.title.split(), *column.shown)), default=1)


def _rich_table(columns: Sequence[Column], widths: Sequence[int] | None, **look: Any) -> RichTable:
    table = RichTable(**{"box": None, "pad_edge": False, "padding": (0, _GAP, 0, 0)} | look)
    for place, column in enumerate(columns):
        longest = max(map(cell_len, (column.title, *column.shown)))
        table.add_column(
            Text(column.title),
            justify="right" if column.number else "left",
            overflow="fold",
            width=widths[place] if widths else None,
            min_width=_least(column, longest),
        )
    for cells in zip(*(column.shown for column in columns), strict=True):
        table.add_row(*map(Text, cells))  # plain: a path may hold brackets, which are markup to `rich`
    return table


def _html_cell(tag: str, column: Column, text: str) -> str:
    side = "text-align:right;white-space:nowrap" if column.number else "text-align:left"
    about = f' title="{html.escape(column.about)}"' if tag == "th" and column.about else ""
    return f'<{tag} style="{side};padding:0 0.6em"{about}>{html.escape(text)}</{tag}>'
