"""The validation metric of a comparison by initializer and learning rate."""

from typing import TYPE_CHECKING

import numpy as np

from keras_initx.plots._compared import LARGE, check, direction_of, finite, lost_of
from keras_initx.plots._figure import COLORS, new_figure, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from keras_initx.experiments import Comparison, ComparisonRow

__all__ = ["plot_rates"]


def plot_rates(comparison: "Comparison") -> "Figure":
    """Draws a heat map: initializers downwards, the best on top, and learning rates to the right.

    A cell is the mean of the metric on the validation data, even if the comparison reports on test data,
    because learning rates are chosen by this number. Bright is better. The chosen rate of each initializer
    has a frame. A cell counts the seeds that were lost, and a cell without any other seed is grey.

    >>> import keras, keras_initx
    >>> from keras_initx.experiments import Sequential
    >>> def build():
    ...     model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(1)])
    ...     model.compile(keras.optimizers.SGD(0.1), "mse")
    ...     return model
    >>> data = (np.eye(8, dtype="float32"), np.ones(8))
    >>> options = {"seeds": 1, "learning_rates": [0.1, 0.01], "runner": Sequential(progress=False)}
    >>> found = keras_initx.compare(build, ["ones"], data, data, **options)
    >>> [label.get_text() for label in plot_rates(found).axes[0].get_xticklabels()]
    ['0.01', '0.1']

    Args:
        comparison: The comparison, from `compare`.

    Returns:
        A figure with the map and its colour bar. The colour bar is missing if all seeds were lost.

    Raises:
        ImportError: If matplotlib is not installed (the extra `plots`).
        ValueError: If `comparison` is not a comparison.
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


def _norm(values: np.ndarray) -> "Normalize":
    """Returns a log scale if a linear scale would show only the largest values."""
    from matplotlib.colors import LogNorm, Normalize

    found = finite(values.flat)
    low, high = (found.min(), found.max()) if found.size else (0.0, 1.0)
    if low > 0 and high > LARGE * low:
        return LogNorm(low, high)
    return Normalize(low, high) if low < high else Normalize(low - 0.5, high + 0.5)


def _words(row: "ComparisonRow") -> str:
    """Returns the words in a cell: the mean with its final zeros, and how many seeds were lost."""
    mean = [] if row.validation is None else [f"{row.validation:#.3g}".rstrip(".")]
    return "\n".join([*mean, *lost_of(row)])


def _ink(image: "AxesImage", value: float) -> str:
    """Returns the colour of words in a cell: white on dark, black on bright, by the luminance of the cell."""
    grey = (0.8, 0.8, 0.8, 1)  # the ground of the axes, on which a cell without a number has no colour
    red, green, blue, _ = image.to_rgba(np.array([value]))[0] if np.isfinite(value) else grey
    return "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "black"


def _frame(axes: "Axes", down: int, right: int) -> None:
    from matplotlib.patches import Rectangle

    for width, color in ((5, "white"), (2.5, COLORS[1])):  # white around it shows on every colour
        corner = (right - 0.47, down - 0.45)
        axes.add_patch(Rectangle(corner, 0.94, 0.9, fill=False, linewidth=width, edgecolor=color))
