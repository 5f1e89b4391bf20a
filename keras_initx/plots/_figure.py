"""Helpers of all pictures: figures without pyplot, colours, log scales."""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_initx.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from keras_initx.diagnostics import SignalReport

__all__ = ["COLORS", "finish_log", "labelled_reports", "new_figure", "on_log", "shorten", "style_of"]

# The colours of Okabe and Ito, which colour-blind readers can tell apart. Markers tell lines apart in print.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"
_CHARACTERS = 30  # longest path that is written whole


def new_figure(width: float, height: float) -> "Figure":
    """Returns an empty figure of a size in inches; raises ImportError if matplotlib is not installed."""
    require("matplotlib", extra="plots", purpose="A picture")
    from matplotlib.figure import Figure

    return Figure((width, height), dpi=100, layout="constrained")


def labelled_reports(reports: "SignalReport | Mapping[str, SignalReport]") -> "dict[str, SignalReport]":
    """Returns reports by label, with the label `model` for a single report; raises ValueError for others."""
    labelled = dict(reports) if isinstance(reports, Mapping) else {"model": reports}
    if not labelled or not all(hasattr(report, "rows") for report in labelled.values()):
        raise ValueError(
            "`reports` must be a report of `diagnose`, or a dict of label and report. "
            f"Received: {type(reports).__name__}."
        )
    return labelled


def style_of(number: int) -> dict[str, Any]:
    """Returns colour and marker of a line. Once the colours are used up, the kind of line changes, too."""
    return {
        "color": COLORS[number % len(COLORS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": ("-", "--", ":")[number // len(COLORS) % 3],
    }


def on_log(values: Iterable[float | None]) -> np.ndarray:
    """Returns values for a log scale, with NaN in place of None, zero, negative and infinite numbers."""
    numbers = np.array([math.nan if value is None else value for value in values], "float64")
    return np.where(np.isfinite(numbers) & (numbers > 0), numbers, math.nan)


def finish_log(axes: "Axes", title: str, least: float = 0.0) -> None:
    """Sets a log scale of two decades or more, so that a level line looks level.

    Args:
        axes: The axes, with all lines drawn.
        title: Title of the scale.
        least: Values up to this one do not count for the limits.
    """
    drawn = np.concatenate([np.asarray(line.get_ydata(), "float64") for line in axes.get_lines()])
    drawn = drawn[np.isfinite(drawn) & (drawn > least)]
    low, high = (drawn.min(), drawn.max()) if drawn.size else (0.1, 10.0)
    spread = max(1.2, 10 / math.sqrt(high / low))
    axes.set_yscale("log")
    axes.set_ylim(low / spread, high * spread)
    axes.set_ylabel(title)
    axes.grid(alpha=0.3)


def shorten(path: str) -> str:
    """Returns a long path as its beginning and its end, with an ellipsis between."""
    return path if len(path) <= _CHARACTERS else f"{path[:8]}…{path[9 - _CHARACTERS :]}"
