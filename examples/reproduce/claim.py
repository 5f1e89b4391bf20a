"""Shared code of the reproductions: sizes, intervals, the verdict, and its row in `docs/reproduced.md`.

Each script in this folder measures one claim of a paper. Its `CLAIM` and its criteria are printed in that row
word for word, so a change of their words takes a new run.
"""

import argparse
import datetime
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import scipy.stats
import sklearn.datasets

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "reproduced.md"
TRAIN = 1437  # of 1,797 digits; the rest is held out


class Claim(NamedTuple):
    """A claim of a paper, and its place."""

    paper: str  # authors and year
    link: str
    statement: str
    number: str  # the number in the paper, and its place there
    checked: bool  # whether the number was read in the paper itself, not only in texts about it


class Criterion(NamedTuple):
    """One part of a claim, in words with our numbers, and whether it holds."""

    text: str
    holds: bool


class Interval(NamedTuple):
    """A mean over seeds, with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isinf(self.low):
            return f"{self.mean:.3g} (one seed, no interval)"
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def interval(values: Sequence[float]) -> Interval:
    """Returns Student's 95 % interval of the mean over seeds. One seed gives an infinite interval."""
    found = np.asarray(values, "float64")
    mean = float(found.mean())
    if len(found) < 2:
        return Interval(mean, -math.inf, math.inf)
    half = scipy.stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found))
    return Interval(mean, mean - float(half), mean + float(half))


def difference(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Returns the interval of `first - second`, both measured on the same seeds."""
    return interval([a - b for a, b in zip(first, second, strict=True)])


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns standardized 8x8x1 training images, their labels, and both held out: `initx_digits`' split."""
    data = sklearn.datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x, y = data.images[order][..., None].astype("float32"), data.target[order].astype("int32")
    x = (x - x[:TRAIN].mean()) / x[:TRAIN].std()
    return x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:]


def reproduce(
    claim: Claim,
    measure: Callable[[Any], tuple[str, list[Criterion]]],
    *,
    quick: Any,
    default: Any,
    full: Any,
    draw: Callable[[pathlib.Path], None] | None = None,
) -> None:
    """Measures at the size that the command line names, prints the verdict and writes the row of the page.

    A quick run, or a run of fewer than 3 seeds, writes nothing, and draws nothing.

    Args:
        claim: The claim.
        measure: Takes one of the three sizes. Returns one sentence with the results, and the criteria.
        quick: A size that only shows that the script runs. Sizes are named tuples with a field `seeds`.
        default: The size of the page.
        full: The paper's own size, or the nearest that is possible.
        draw: Draws what was measured to a file, to which the row then links. None for no figure.
    """
    script = pathlib.Path(sys.argv[0]).name
    parser = argparse.ArgumentParser(description=f"{claim.paper}: {claim.statement} {claim.link}")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="only shows that the script runs")
    sizes.add_argument(
        "--full", action="store_true", help="the paper's own size, or the nearest that is possible"
    )
    parser.add_argument("--seeds", type=int, help="the number of seeds")
    parser.add_argument("--page", type=pathlib.Path, default=PAGE, help="the page that gets the row")
    arguments = parser.parse_args()
    if arguments.seeds is not None and arguments.seeds < 1:
        parser.error(f"--seeds must be at least 1. Received: {arguments.seeds}.")
    name = "quick" if arguments.quick else "full" if arguments.full else "default"
    size = {"quick": quick, "default": default, "full": full}[name]
    if arguments.seeds:
        size = size._replace(seeds=arguments.seeds)

    print(f"{claim.paper}: {claim.statement}\n{name} size: {size}\n", flush=True)
    started, spent = time.perf_counter(), time.process_time()
    found, criteria = measure(size)
    minutes, spent = (time.perf_counter() - started) / 60, (time.process_time() - spent) / 60
    word = verdict(criteria)
    print(f"\n{found}")
    for criterion in criteria:
        print(f"  {'holds' if criterion.holds else 'FAILS'}: {criterion.text}")
    took = f"{minutes:.1f} min ({spent:.1f} of CPU)"  # CPU time, too: a busy machine takes longer
    print(f"{word} ({size.seeds} seeds, {took})")
    if name == "quick" or size.seeds < 3:
        print(f"{arguments.page.name} stays as it is: a row needs the default or full size, and 3 seeds.")
        return
    how = (
        f"{name} size, {size.seeds} seeds, {took}, {keras.backend.backend()}, "
        f"keras {keras.__version__}, {datetime.date.today():%d %B %Y}"
    )
    if draw:
        figure = arguments.page.parent / "images" / f"{script.removesuffix('.py')}.png"
        figure.parent.mkdir(exist_ok=True)
        draw(figure)
        found += f" [Figure](images/{figure.name})."
    write(arguments.page, script, row(claim, script, found, criteria, how))


def verdict(criteria: Sequence[Criterion]) -> str:
    held = sum(criterion.holds for criterion in criteria)
    if held == len(criteria):
        return "reproduced"
    return f"in part: {held} of {len(criteria)}" if held else "not reproduced"


def row(claim: Claim, script: str, found: str, criteria: Sequence[Criterion], how: str) -> str:
    number = claim.number if claim.checked else f"{claim.number} (unchecked)"
    failed = " ".join(f"Failed: {criterion.text}." for criterion in criteria if not criterion.holds)
    cells = [
        f"{claim.statement} [{claim.paper}]({claim.link})",
        number,
        f"{found} {failed}".strip(),
        f"**{verdict(criteria)}**",
        f"[{script}](../examples/reproduce/{script}): {how}",
    ]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def write(page: pathlib.Path, script: str, line: str) -> None:
    """Puts the script's row in the table of the page, in place of its old row. Rows are sorted by script."""
    lines = page.read_text().splitlines()
    start = next(number for number, text in enumerate(lines) if text.startswith("| --- |")) + 1
    end = next(
        (number for number in range(start, len(lines)) if not lines[number].startswith("|")), len(lines)
    )
    mark = f"(../examples/reproduce/{script})"
    rows = [text for text in lines[start:end] if mark not in text] + [line]
    rows.sort(key=lambda text: text.rpartition("(../examples/reproduce/")[2])
    beside = page.with_name(f"new-{page.name}")
    beside.write_text("\n".join([*lines[:start], *rows, *lines[end:]]) + "\n")
    beside.replace(page)
