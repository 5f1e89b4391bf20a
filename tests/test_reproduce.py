"""What the scripts of `examples/reproduce` share, that each of them runs, and the page that they write."""

import importlib
import math
import pathlib
import re
import runpy
import sys
from typing import NamedTuple

import pytest
import scipy.stats

pytestmark = pytest.mark.tensorflow  # once, from one of the suites
ROOT = pathlib.Path(__file__).parents[1]
FOLDER, PAGE = ROOT / "examples" / "reproduce", ROOT / "docs" / "reproduced.md"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if path.name != "claim.py")
TABLE = """# Title

Text with a | b.

| claim | number | here | verdict | measured |
| --- | --- | --- | --- | --- |
| a | 1 | x | **reproduced** | [a.py](../examples/reproduce/a.py): one |
| c | 3 | z | **reproduced** | [c.py](../examples/reproduce/c.py): three |

Text | after.
"""


class Size(NamedTuple):
    seeds: int


@pytest.fixture
def claim(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("claim")


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(TABLE)
    return path


@pytest.fixture
def reproduce(claim, page, monkeypatch):
    """Runs the fake script b.py, which finds one criterion of two to hold, and returns the sizes measured."""

    def run(*arguments):
        measured = []

        def measure(size):
            measured.append(size)
            return "Found a|b.", [claim.Criterion("one", True), claim.Criterion("two", False)]

        monkeypatch.setattr(sys, "argv", ["somewhere/b.py", "--page", str(page), *arguments])
        told = claim.Claim("Author 2000", "https://example.org", "It is so.", "7 %", checked=False)
        claim.reproduce(told, measure, quick=Size(1), default=Size(3), full=Size(5))
        return measured

    return run


@pytest.mark.parametrize("values", [(0.2, 0.9), (0.81, 0.93, 0.9), tuple(range(12))])
def test_intervals_are_students(claim, values):
    others = [value**2 + 0.1 for value in values]
    for found, expected in (
        (claim.interval(values), scipy.stats.ttest_1samp(values, 0)),
        (claim.difference(values, others), scipy.stats.ttest_rel(values, others)),
    ):
        assert found[1:] == pytest.approx(tuple(expected.confidence_interval(0.95)))
        assert found.mean == pytest.approx((found.low + found.high) / 2)


def test_one_seed_bounds_nothing(claim):
    assert claim.interval([0.9]) == (0.9, -math.inf, math.inf)


@pytest.mark.parametrize(
    ("held", "word"),
    [
        ([True, True], "reproduced"),
        ([True, False, True], "in part: 2 of 3"),
        ([False, False], "not reproduced"),
    ],
)
def test_verdict_counts_criteria(claim, held, word):
    assert claim.verdict([claim.Criterion("text", holds) for holds in held]) == word


@pytest.mark.parametrize("script", ["a.py", "b.py", "d.py"])
def test_write_replaces_or_adds_one_row_in_order(claim, page, script):
    row = f"| new | 2 | y | **not reproduced** | [{script}](../examples/reproduce/{script}): two |"
    claim.write(page, script, row)
    lines = TABLE.splitlines()
    rows = {"a.py": lines[6], "c.py": lines[7], script: row}
    assert page.read_text().splitlines() == lines[:6] + [rows[name] for name in sorted(rows)] + lines[8:]
    assert [path.name for path in page.parent.iterdir()] == [page.name]


def test_a_run_writes_its_row_with_failures_and_escaped_pipes(reproduce, page, capsys):
    assert reproduce() == [Size(3)]
    printed = capsys.readouterr().out
    assert "holds: one" in printed
    assert "FAILS: two" in printed
    assert "in part: 1 of 2 (3 seeds" in printed
    a, b, c = cells_of(page)
    assert b[:4] == [
        "It is so. [Author 2000](https://example.org)",
        "7 % (unchecked)",
        r"Found a\|b. Failed: two.",
        "**in part: 1 of 2**",
    ]
    assert b[4].startswith("[b.py](../examples/reproduce/b.py): default size, 3 seeds, ")
    assert (a[0], c[0]) == ("a", "c")


@pytest.mark.parametrize(
    ("arguments", "size", "writes"),
    [
        (["--quick"], 1, False),
        (["--quick", "--seeds", "9"], 9, False),
        (["--seeds", "2"], 2, False),
        (["--seeds", "4"], 4, True),
        (["--full"], 5, True),
    ],
)
def test_the_page_takes_no_quick_run_and_no_fewer_than_three_seeds(reproduce, page, arguments, size, writes):
    assert reproduce(*arguments) == [Size(size)]
    assert (page.read_text() != TABLE) == writes


@pytest.mark.parametrize(
    ("arguments", "draws"), [([], True), (["--quick"], False), (["--seeds", "2"], False)]
)
def test_a_figure_is_drawn_with_the_row_that_links_to_it(claim, page, monkeypatch, arguments, draws):
    monkeypatch.setattr(sys, "argv", ["somewhere/b.py", "--page", str(page), *arguments])
    told = claim.Claim("Author 2000", "https://example.org", "It is so.", "7 %", checked=True)
    sizes = {"quick": Size(1), "default": Size(3), "full": Size(5)}
    claim.reproduce(told, lambda size: ("Found.", []), **sizes, draw=lambda path: path.write_text("drawn"))
    assert ("Found. [Figure](images/b.png)." in page.read_text()) == draws
    assert (page.parent / "images" / "b.png").exists() == draws


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--seeds", "-1"], ["--quick", "--full"]])
def test_what_cannot_be_measured_is_refused(reproduce, page, arguments):
    with pytest.raises(SystemExit) as refusal:
        reproduce(*arguments)
    assert refusal.value.code == 2
    assert page.read_text() == TABLE


@pytest.mark.parametrize(
    "script",  # two of them, and the others with `make test-slow`: each takes 10 seconds or so
    [
        name if name in ("he2015.py", "lsuv2016.py") else pytest.param(name, marks=pytest.mark.slow)
        for name in SCRIPTS
    ],
)
def test_each_script_runs_and_leaves_the_page(script, monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(sys, "argv", [str(FOLDER / script), "--quick"])
    monkeypatch.chdir(tmp_path)
    before = PAGE.read_bytes()
    runpy.run_path(str(FOLDER / script), run_name="__main__")
    printed = capsys.readouterr().out
    assert re.search(r"^(reproduced|in part: \d+ of \d+|not reproduced) \(1 seeds", printed, re.MULTILINE)
    assert PAGE.read_bytes() == before
    assert not list(tmp_path.iterdir())


def test_each_script_has_a_row_and_each_row_a_script():
    rows = cells_of(PAGE)
    assert all(len(cells) == 5 for cells in rows)
    named = [re.match(r"\[(.+?)\]\(../examples/reproduce/\1\): ", cells[4]) for cells in rows]
    assert [match and match[1] for match in named] == SCRIPTS


def cells_of(page):
    """The table's rows, each cut at the pipes that are not escaped."""
    lines = page.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| --- |")) + 1
    rows = [line for line in lines[start:] if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
