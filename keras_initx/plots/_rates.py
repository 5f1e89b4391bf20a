"""Initializers by learning rates of a comparison."""

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_initx.plots._compared import LARGE, check, direction_of, finite, lost_of
from keras_initx.plots._figure import COLORS, new_figure, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_initx.experiments import Comparison, ComparisonRow

__all__ = ["plot_rates"]


def plot_rates(comparison: "Comparison") -> "Figure":
    """Draws a heat map of initializers downwards, the best on top, and learning rates to the right.

    A cell is the mean of the metric on the validation data, by which rates are chosen, also where the
    comparison reports on test data. Bright is better; the chosen rate of each initializer is framed. Seeds
    that were lost are counted, and a cell that lost them all is grey.

    Args:
        comparison: What `compare` returned.

    Returns:
        A figure with the map and its colour bar, which is missing if all seeds were lost.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If it is no comparison.
    """
    check(comparison)
    labels = [row.initializer for row in comparison.rows]
    rates = sorted({row.learning_rate for row in comparison.grid}, key=lambda rate: rate or 0.0)
    cells = {(labels.index(row.initializer), rates.index(row.learning_rate)): row for row in comparison.grid}
    values = np.full((len(labels), len(rates)), np.nan)
    for place, row in cells.items():
        values[place] = np.nan if row.validation is None else row.validation
    lines = max(_words(row).count("\n") + 1 for row in comparison.grid)
    figure = new_figure(4.6 + 1.1 * len(rates), 1.6 + len(labels) * (0.2 + 0.16 * lines))
    axes = figure.subplots()
    axes.set_facecolor("0.8")
    cmap = "viridis_r" if comparison.minimize else "viridis"
    image = axes.imshow(np.ma.masked_invalid(values), aspect="auto", cmap=cmap, norm=_norm(values))
    for (down, right), row in cells.items():
        axes.text(right, down, _words(row), color=_ink(image, values[down, right]), ha="center", va="center")
    for row in comparison.rows if len(rates) > 1 else ():
        _frame(axes, labels.index(row.initializer), rates.index(row.learning_rate))
    axes.set_xticks(range(len(rates)), ["as compiled" if rate is None else f"{rate:g}" for rate in rates])
    axes.set_yticks(range(len(labels)), [shorten(label) for label in labels])
    axes.set_xlabel("learning rate (framed: the chosen one)" if len(rates) > 1 else "learning rate")
    if finite(values.flat).size:
        figure.colorbar(image, label=f"validation {comparison.metric} ({direction_of(comparison)})")
    return figure


def _norm(values: np.ndarray) -> Any:
    """A log scale where values span so much that a linear one would show only the largest."""
    from matplotlib.colors import LogNorm, Normalize

    found = finite(values.flat)
    low, high = (found.min(), found.max()) if found.size else (0.0, 1.0)
    if low > 0 and high > LARGE * low:
        return LogNorm(low, high)
    return Normalize(low, high) if low < high else Normalize(low - 0.5, high + 0.5)


def _words(row: "ComparisonRow") -> str:
    """The number, with its zeros, and what was lost."""
    mean = [] if row.validation is None else [f"{row.validation:#.3g}".rstrip(".")]
    return "\n".join([*mean, *lost_of(row)])


def _ink(image: Any, value: float) -> str:
    """White on dark cells."""
    red, green, blue, _ = image.cmap(image.norm(value)) if np.isfinite(value) else (0.8, 0.8, 0.8, 1)
    return "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "black"


def _frame(axes: Any, down: int, right: int) -> None:
    from matplotlib.patches import Rectangle

    for width, color in ((5, "white"), (2.5, COLORS[1])):  # seen on every colour
        corner = (right - 0.47, down - 0.45)
        axes.add_patch(Rectangle(corner, 0.94, 0.9, fill=False, linewidth=width, edgecolor=color))
