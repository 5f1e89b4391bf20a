"""The coordinates of a model by width: a picture of the coordinate check."""

from typing import TYPE_CHECKING

import numpy as np

from keras_initx.plots._figure import finish_log, new_figure, on_log, shorten, style_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from keras_initx.scaling import CoordinateReport

__all__ = ["plot_coordinates"]


def plot_coordinates(report: "CoordinateReport") -> "Figure":
    """Draws the sizes of all layers over the width: values on the left, changes on the right, a line each.

    A row of the picture belongs to one step: the start, the first step and the last. A point is the mean
    over the seeds. Level lines are the sign of muP; a line that rises grows without limit, and a change that
    falls vanishes. At the start the outputs of muP fall.

    >>> import keras, keras_initx as initx
    >>> def build(width):
    ...     layers = [keras.layers.Input((8,)), keras.layers.Dense(width), keras.layers.Dense(1)]
    ...     return keras.Sequential(layers)
    >>> data = (np.eye(8, dtype="float32"), np.ones((8, 1), "float32"))
    >>> report = initx.coordinates(build, [16, 32], "MuP", data, loss="mse", steps=1, seeds=1)
    >>> [axes.get_title() for axes in plot_coordinates(report).axes]
    ['values, start', 'changes, start', 'values, step 1', 'changes, step 1']

    Args:
        report: The report of `coordinates`.

    Returns:
        A figure with two axes for each step that is drawn.

    Raises:
        ImportError: If matplotlib is not installed (the extra `plots`).
        ValueError: If `report` is not a report of `coordinates`.
    """
    if not hasattr(report, "growths"):
        raise ValueError(
            f"`report` must be a report of `coordinates`. Received: {type(report).__name__}. "
            "Pass initx.coordinates(build, widths, initializer, data)."
        )
    steps = list(dict.fromkeys((0, 1, report.steps)))
    figure = new_figure(9, 0.6 + 2.6 * len(steps))
    for row, step in zip(figure.subplots(len(steps), 2, squeeze=False), steps, strict=True):
        for axes, name in zip(row, ("value", "change"), strict=True):
            _draw(axes, report, step, name)
            axes.set_title(f"{name}s, {f'step {step}' if step else 'start'}")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    return figure


def _draw(axes: "Axes", report: "CoordinateReport", step: int, name: str) -> None:
    paths = list(dict.fromkeys(row.path for row in report.rows))
    for number, path in enumerate(paths):
        sizes = [
            np.mean(
                [getattr(r, name) for r in report.rows if (r.path, r.step, r.width) == (path, step, width)]
            )
            for width in report.widths
        ]
        axes.plot(report.widths, on_log(map(float, sizes)), label=shorten(path), **style_of(number))
    axes.set_xscale("log", base=2)
    axes.set_xticks(report.widths, [str(width) for width in report.widths])
    axes.set_xlabel("width")
    finish_log(axes, "mean absolute size")
