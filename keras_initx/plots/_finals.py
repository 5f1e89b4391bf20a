"""Final metrics of a comparison."""

import math
from typing import TYPE_CHECKING

from keras_initx.plots._compared import check, direction_of, fit_axis, label_of, lost_of, title
from keras_initx.plots._figure import new_figure, style_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_initx.experiments import Comparison

__all__ = ["plot_finals"]


def plot_finals(comparison: "Comparison") -> "Figure":
    """Draws the final metric of each initializer at its own learning rate, the best initializer on top.

    A small dot is a seed. A large mark is the mean, with its 95 % interval. An initializer has the same
    colour as in `plot_curves`. The words at the right count the seeds that were lost. The scale is
    logarithmic if the values are positive and the largest is more than 100 times the smallest. A very wide
    interval is cut at the edge of the picture.

    >>> import keras, keras_initx, numpy as np
    >>> from keras_initx.experiments import Sequential
    >>> def build():
    ...     model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(1)])
    ...     model.compile(keras.optimizers.SGD(0.1), "mse")
    ...     return model
    >>> data = (np.eye(8, dtype="float32"), np.ones(8))
    >>> quiet = Sequential(progress=False)
    >>> found = keras_initx.compare(build, ["ones"], data, data, seeds=2, runner=quiet)
    >>> plot_finals(found).axes[0].get_xlabel()
    'validation loss (less is better)'

    Args:
        comparison: The comparison, from `compare`.

    Returns:
        A figure with one axes.

    Raises:
        ImportError: If matplotlib is not installed (the extra `plots`).
        ValueError: If `comparison` is not a comparison.
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
        if len(values) > 1:  # a single seed is its own mean
            axes.plot(values, [number - 0.17] * len(values), "o", color=color, markersize=4, alpha=0.6)
        if row.mean is not None:
            axes.plot(row.mean, number + 0.13, marker, color=color, markersize=8)
        if (
            row.low is not None and row.high is not None and math.isfinite(row.low)
        ):  # the interval of one seed is infinite
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
