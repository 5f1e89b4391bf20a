"""The writer of tables: alignment, wrapping, and signs that mean something to a format."""

import io
import sys

import pytest
from rich.cells import cell_len
from rich.console import Console

from keras_initx.tables import Column, Table, numbers, words

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites

NOTE = "frozen: left as it is, so that its law is not applied to its kernel here"
TABLE = Table(
    (
        words("path", ["stage[1]/block[red]/kernel", "head"]),
        numbers("std", [0.5, 12.25]),
        numbers("gain", [None, None]),
        numbers("a title of several words", [1.0, None]),
        words("note", ["", NOTE], note=True),
    ),
    ("2 kernels", "", "done"),
)


def test_numbers_stand_to_the_right_texts_to_the_left_and_empty_columns_go(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert TABLE.to_text().splitlines() == [
        "path                          std  a title of several words  note",
        "stage[1]/block[red]/kernel    0.5                         1",
        f"head                        12.25                         -  {NOTE}",
        "2 kernels",
        "",
        "done",
    ]


@pytest.mark.parametrize("width", [30, 60, 80, 100, 120])
def test_a_narrow_table_wraps_texts_and_titles_and_keeps_numbers_whole(width):
    text = TABLE.to_text(width)
    table = text.split("\n2 kernels")[0].splitlines()
    least = 24 + 2 + 5 + 2 + 7 + 2 + 24  # texts keep 24 characters; "several" is the longest word of a title
    assert max(map(cell_len, table)) <= max(width, least)
    assert "12.25" in text
    assert [word for line in table for word in line.split() if word in NOTE.split()] == NOTE.split()
    path = "".join(line.split()[0] for line in table if not line.startswith(" "))
    assert "stage[1]/block[red]/kernel" in path


def test_the_note_gives_way_before_the_path():
    table = TABLE.to_text(100).splitlines()
    assert any(line.startswith("stage[1]/block[red]/kernel ") for line in table)
    assert NOTE not in "\n".join(table)


def test_the_width_of_the_terminal_counts_where_none_is_given(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert TABLE.to_text() == TABLE.to_text(10_000)  # the output goes to no terminal
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert TABLE.to_text() == TABLE.to_text(80)


def test_wide_signs_are_as_wide_as_a_terminal_shows_them():
    table = Table((words("path", ["层/核", "head"]), numbers("std", [1.0, 2.0])))
    assert {cell_len(line) for line in table.to_text().splitlines()} == {len("层/核") + 2 + 2 + 3}


def test_text_has_no_codes_of_colours_whatever_the_program_prints_to(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in TABLE.to_text()


def test_a_table_without_rows_or_columns_can_be_written():
    empty = Table((words("path", []), numbers("std", [])), ("0 kernels",))
    assert empty.to_text() == "path  std\n0 kernels"
    assert Table((), ("nothing",)).to_text() == "nothing"
    assert Table((words("path", [""]),), ("nothing",)).to_text() == "nothing"
    for table in (empty, Table(())):
        assert table.to_html().startswith("<div>")
        assert table.to_markdown()
        assert r"\toprule" in table.to_latex()
        assert table.to_rich()


def test_html_escapes_titles_tooltips_cells_and_lines():
    table = Table((Column("a<b", ("<i>",), about='say "<hi>"'),), ("1 < 2 & 3",))
    page = table.to_html()
    assert 'title="say &quot;&lt;hi&gt;&quot;">a&lt;b</th>' in page
    assert "&lt;i&gt;</td>" in page
    assert "<p>1 &lt; 2 &amp; 3</p>" in page


def test_markdown_and_latex_escape_the_signs_of_their_own():
    table = Table((words("label", ["a|b_1"]), numbers("std", [0.5])))
    assert table.to_markdown().splitlines() == ["| label | std |", "| --- | ---: |", r"| a\|b_1 | 0.5 |"]
    assert r"a\textbar{}b\_1 & 0.5 \\" in table.to_latex().splitlines()
    assert table.to_latex().startswith(r"\begin{tabular}{lr}")


def test_sentences_that_come_first_stand_above_all_else():
    table = Table((words("path", ["dense"]),), ("a total",), ("saw 1 of 2 kernels",))
    assert table.to_text().splitlines() == ["saw 1 of 2 kernels", "path", "dense", "a total"]
    assert table.to_html().startswith("<div><p>saw 1 of 2 kernels</p><p>a total</p><table>")
    console = Console(width=40, file=io.StringIO())
    console.print(table.to_rich())
    assert console.file.getvalue().startswith("saw 1 of 2 kernels")
