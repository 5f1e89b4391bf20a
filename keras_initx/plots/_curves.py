"""Learning curves of a comparison."""

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_initx.plots._compared import check, direction_of, fit_axis, label_of, lost_of, title
from keras_initx.plots._figure import new_figure, style_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from keras_initx.experiments import Comparison, Curve

__all__ = ["plot_curves"]

_LOST: dict[str, Any] = {"linestyle": (0, (4, 3)), "linewidth": 0.8, "marker": "x"}
_MARKERS = 10  # markers on a line, about
_APART = 0.05  # distance between initializers, in epochs, if there is only one epoch


def plot_curves(comparison: "Comparison", name: str | None = None) -> "Figure":
    """Draws a log of `fit` by epoch: a line for each initializer at its own learning rate, the best first.

    A line is the mean over the seeds that ended well, and the band is its 95 % interval. The legend counts
    the seeds that were lost. A lost seed is a thin broken line with a cross at its last finite epoch; the
    cross is at the edge if the line leaves the picture. The scale is logarithmic if the values of the other
    seeds are positive and the largest is more than 100 times the smallest.

    >>> import keras, keras_initx
    >>> from keras_initx.experiments import Sequential
    >>> def build():
    ...     model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(1)])
    ...     model.compile(keras.optimizers.SGD(0.1), "mse")
    ...     return model
    >>> data = (np.eye(8, dtype="float32"), np.ones(8))
    >>> quiet = Sequential(progress=False)
    >>> found = keras_initx.compare(build, ["ones"], data, data, seeds=2, learning_rates=[0.1], runner=quiet)
    >>> figure = plot_curves(found)
    >>> figure.axes[0].get_ylabel(), [text.get_text() for text in figure.legends[0].get_texts()]
    ('val_loss (less is better)', ['ones at 0.1'])

    Args:
        comparison: The comparison, from `compare`.
        name: A name of the logs, such as `loss`; None for the metric on the validation data.

    Returns:
        A figure with one axes.

    Raises:
        ImportError: If matplotlib is not installed (the extra `plots`).
        ValueError: If `comparison` is not a comparison, or no log has that name.
    """
    check(comparison)
    curves = comparison.curves(name)
    labels = ["\n".join([label_of(row), *lost_of(row)]) for row in comparison.rows]
    figure = new_figure(9, max(4.5, 1 + 0.19 * sum(label.count("\n") + 1 for label in labels)))
    axes = figure.subplots()
    epochs, limits = _fit(axes, curves)
    for number, (label, curve) in enumerate(zip(labels, curves.values(), strict=True)):
        shift = _APART * (number - (len(curves) - 1) / 2) if epochs == 1 else 0.0
        _draw_mean(axes, curve, style_of(number), label, shift)
        _draw_lost(axes, curve, style_of(number)["color"], limits, shift)
    if any(any(curve.lost.values()) for curve in curves.values()):
        axes.plot([], [], color="0.4", label="lost seed, and its end", **_LOST)
    axes.set_title(title(comparison), loc="left")
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"val_{comparison.metric} ({direction_of(comparison)})" if name is None else name)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    return figure


def _fit(axes: "Axes", curves: "dict[str, Curve]") -> tuple[int, tuple[float, float]]:
    """Sets the limits by the seeds that ended well; returns the number of epochs and the limits of values."""
    well = [values for curve in curves.values() for values in curve.values.values()]
    lost = [values for curve in curves.values() for values in curve.lost.values()]
    bounds = [bounds for curve in curves.values() for bounds in (curve.low, curve.high)]
    epochs = max(map(len, [*well, *lost]), default=1)
    beside = 0.03 * (epochs - 1) or _APART * (len(curves) + 1) / 2
    axes.set_xlim(1 - beside, epochs + beside)
    axes.locator_params("x", integer=True, min_n_ticks=1)
    core = (value for values in well for value in values)
    return epochs, fit_axis(axes, "y", core, (value for values in [*lost, *bounds] for value in values))


def _draw_mean(axes: "Axes", curve: "Curve", style: dict[str, Any], label: str, shift: float) -> None:
    epochs = np.arange(1, len(curve.mean) + 1) + shift
    low, high = (np.where(np.isfinite(bound), bound, np.nan) for bound in (curve.low, curve.high))
    if len(epochs) == 1:  # a band over one epoch would have no width
        axes.vlines(epochs, low, high, color=style["color"])
    else:
        axes.fill_between(epochs, low, high, color=style["color"], alpha=0.15, linewidth=0)
    every = -(-len(epochs) // _MARKERS) or 1
    axes.plot(epochs, curve.mean, label=label, markersize=5, markevery=every, **style)


def _draw_lost(axes: "Axes", curve: "Curve", color: str, limits: tuple[float, float], shift: float) -> None:
    for values in filter(None, curve.lost.values()):
        epochs = np.arange(1, len(values) + 1) + shift
        axes.plot(epochs, values, color=color, **_LOST, markevery=[])
        axes.plot(epochs[-1], np.clip(values[-1], *limits), "x", color=color, clip_on=False)
