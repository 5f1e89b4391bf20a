"""The signal at each kernel while a model is trained."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from keras_initx.plots._figure import new_figure, on_log, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_initx.diagnostics import SignalReport

__all__ = ["plot_over_steps", "to_png"]

_NAMED = 30  # most paths that are written beside the map


def plot_over_steps(reports: "Mapping[int, SignalReport]", quantity: str, label: str) -> "Figure":
    """Draws a heat map of one attribute of the rows: kernels downwards by depth, steps to the right.

    Colours are on a log scale. Zero, NaN, Inf and numbers that were not measured are grey.

    >>> import keras, keras_initx
    >>> model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(8), keras.layers.Dense(1)])
    >>> reports = {step: keras_initx.diagnose(model, seed=1) for step in range(3)}
    >>> figure = plot_over_steps(reports, "gradient_std", "std of gradients")
    >>> figure.axes[0].get_xlabel()
    'step'

    Args:
        reports: Reports on one model by step, such as `SignalMonitor.reports`.
        quantity: Name of an attribute of the rows, such as `preactivation_std`.
        label: Title of the colour bar.

    Returns:
        A figure with the map and its colour bar.

    Raises:
        ImportError: If matplotlib is not installed (the extra `plots`).
        ValueError: If there is no report, or the first report has no rows.
    """
    steps = sorted(reports)
    if not steps or not reports[steps[0]].rows:
        raise ValueError(
            f"`reports` must hold reports with rows. Received: {len(steps)} reports without rows."
        )
    from matplotlib.colors import LogNorm

    paths = [row.path for row in reports[steps[0]].rows]
    columns = [on_log([getattr(row, quantity) for row in reports[step].rows]) for step in steps]
    values = np.ma.masked_invalid(np.stack(columns, axis=1))
    low, high = (values.min(), values.max()) if values.count() else (0.1, 10.0)
    norm = LogNorm(low / 1.01, high * 1.01)  # a little wider, so that equal values have a scale, too
    figure = new_figure(8, min(max(3.0, 1.5 + 0.22 * len(paths)), 10))
    axes = figure.subplots()
    axes.set_facecolor("0.8")
    image = axes.imshow(values, aspect="auto", interpolation="nearest", cmap="viridis", norm=norm)
    shown = np.unique(np.linspace(0, len(steps) - 1, 10).round().astype(int))
    axes.set_xticks(shown, [str(steps[place]) for place in shown])
    every = -(-len(paths) // _NAMED)
    axes.set_yticks(range(0, len(paths), every), [shorten(path) for path in paths[::every]])
    axes.set_xlabel("step")
    figure.colorbar(image, label=label)
    return figure


def to_png(figure: "Figure") -> bytes:
    """Returns a figure as the bytes of a PNG file.

    >>> from matplotlib.figure import Figure
    >>> to_png(Figure())[1:4]
    b'PNG'

    Args:
        figure: A figure of matplotlib.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
