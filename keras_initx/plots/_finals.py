"""Where each initializer of a comparison ended."""

import math
from typing import TYPE_CHECKING

from keras_initx.plots._compared import check, direction_of, fit_axis, label_of, lost_of, title
from keras_initx.plots._figure import new_figure, style_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_initx.experiments import Comparison

__all__ = ["plot_finals"]


def plot_finals(comparison: "Comparison") -> "Figure":
    """Draws the final metric by initializer, each at its own learning rate, the best on top.

    A small dot is a seed, the large mark the mean with its 95 % interval; the colours are those of
    `plot_curves`. Seeds that were lost are counted at the right. The scale is a log one where values are
    positive and span more than 100 times. An interval that is wider than the picture leaves it.

    Args:
        comparison: What `compare` returned.

    Returns:
        A figure with one axes.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If it is no comparison.
    """
    check(comparison)
    rows = comparison.rows
    figure = new_figure(8, 1.6 + 0.42 * len(rows))
    axes = figure.subplots()
    bounds = [bound for row in rows for bound in (row.low, row.high) if bound is not None]
    fit_axis(axes, "x", [value for row in rows for value in row.values.values()], bounds)
    for number, row in enumerate(rows):
        color, marker = (style_of(number)[part] for part in ("color", "marker"))
        values = list(row.values.values())
        if len(values) > 1:  # one is its own mean
            axes.plot(values, [number - 0.17] * len(values), "o", color=color, markersize=4, alpha=0.6)
        if row.mean is not None:
            axes.plot(row.mean, number + 0.13, marker, color=color, markersize=8)
        if row.low is not None and row.high is not None and math.isfinite(row.low):  # one seed's is not
            axes.hlines(number + 0.13, row.low, row.high, color=color)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [label_of(row) for row in rows])
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(rows)), [", ".join(lost_of(row)) for row in rows])
    for side in (axes, right):
        side.tick_params("y", length=0)
    axes.set_xlabel(f"{comparison.reported} {comparison.metric} ({direction_of(comparison)})")
    axes.set_title(title(comparison), loc="left")
    axes.grid(axis="x", alpha=0.3)
    return figure
