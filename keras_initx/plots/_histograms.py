"""Distributions of weights."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from keras_initx._types import Model, Tensor
from keras_initx.plots._figure import COLORS, new_figure, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_histograms"]

_LABELS = 30  # most paths that are written beside the ridges
_BINS = 80


def plot_histograms(weights: "Model | Mapping[str, Tensor]") -> "Figure":
    """Draws the distribution of each kernel, one ridge below the other, the first on top.

    All ridges share one axis, so that their widths can be compared; each ridge has a height of its own. The
    words at the right are the standard deviation, and the share of NaN and Inf, which are left out.

    >>> figure = plot_histograms({"first": np.linspace(-1, 1, 99), "second": np.zeros((3, 3))})
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['first', 'second']

    Args:
        weights: Arrays by label; or a Keras model, with all of its weights that have two axes or more.

    Returns:
        A figure with one axes.

    Raises:
        ImportError: If matplotlib is not installed (the extra `plots`).
        ValueError: If there are no weights.
    """
    pairs = [(label, _flat(values)) for label, values in _weights(weights)]
    if not pairs:
        raise ValueError("`weights` must hold arrays to be drawn, or be a built model. Received: none.")
    figure = new_figure(8, min(max(3.0, 1.2 + 0.3 * len(pairs)), 10))
    axes = figure.subplots()
    step = -(-len(pairs) // _LABELS)
    for number, (_, values) in enumerate(pairs):
        _draw_ridge(axes, values[np.isfinite(values)], number)
    axes.set_ylim(len(pairs) - 0.5, -1.4)
    axes.set_xlabel("weight")
    axes.set_yticks(range(0, len(pairs), step), [shorten(label) for label, _ in pairs[::step]])
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(0, len(pairs), step), [_summary(values) for _, values in pairs[::step]])
    for side in (axes, right):
        side.tick_params("y", length=0)
        side.spines[:].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    return figure


def _weights(weights: "Model | Mapping[str, Tensor]") -> list[tuple[str, Tensor]]:
    if isinstance(weights, Mapping):
        return list(weights.items())
    return [(weight.path, weight) for weight in weights.weights if len(weight.shape) > 1]


def _flat(values: Tensor) -> np.ndarray:
    from keras import ops

    return np.asarray(ops.convert_to_numpy(ops.cast(values, "float32"))).reshape(-1)


def _draw_ridge(axes: "Axes", values: np.ndarray, number: int) -> None:
    color = COLORS[0]
    axes.axhline(number, color=color, linewidth=0.5, alpha=0.5, zorder=number)
    if not values.size:
        return
    if values.min() == values.max():  # equal values have no histogram: a spike
        axes.plot([values[0]] * 2, [number, number - 1.2], color=color, linewidth=2, zorder=number)
        return
    counts, edges = np.histogram(values, min(_BINS, max(4, values.size // 8)))
    heights = number - 1.2 * np.repeat(counts / counts.max(), 2)
    places = np.repeat(edges, 2)[1:-1]
    axes.fill_between(places, number, heights, color="white", zorder=number)
    axes.fill_between(places, number, heights, color=color, alpha=0.45, linewidth=0, zorder=number)
    axes.plot(places, heights, color=color, linewidth=1, zorder=number)


def _summary(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    lost = 1 - finite.size / max(values.size, 1)
    words = [f"std {finite.std():.3g}"] if finite.size else []
    return ", ".join(words + ([f"{lost:.2g} NaN or Inf"] if lost else []))
