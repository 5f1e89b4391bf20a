"""Helpers of the pictures of a comparison: a check, labels, and axes that lost seeds do not stretch."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np

from keras_initx.plots._figure import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from keras_initx.experiments import Comparison, ComparisonRow

__all__ = ["LARGE", "check", "direction_of", "finite", "fit_axis", "label_of", "lost_of", "title"]

LARGE = 100  # ratio of the largest to the smallest value, above which positive values are on a log scale
_DECADES = 2.0  # most decades that the others get at each side of the core on a log scale


def check(comparison: object) -> None:
    """Raises ValueError unless an object is a comparison."""
    if not all(hasattr(comparison, name) for name in ("rows", "grid", "curves")):
        raise ValueError(
            "`comparison` must be a `Comparison`, which `compare` returns. Received: "
            f"{type(comparison).__name__}."
        )


def label_of(row: "ComparisonRow") -> str:
    """Returns the label of the initializer, with the learning rate if the comparison has set one."""
    rate = "" if row.learning_rate is None else f" at {row.learning_rate:g}"
    return shorten(row.initializer) + rate


def direction_of(comparison: "Comparison") -> str:
    """Returns in words which values of the metric are better."""
    return f"{'less' if comparison.minimize else 'more'} is better"


def lost_of(row: "ComparisonRow") -> list[str]:
    """Returns how many seeds were lost, a few words for each way to be lost."""
    counts = {"diverged": row.diverged, "stopped": row.stopped, "failed": row.failed}
    return [f"{count} of {row.seeds} {way}" for way, count in counts.items() if count]


def title(comparison: "Comparison") -> str:
    """Returns the title: the number of seeds, and the meaning of lines and bands."""
    seeds = comparison.rows[0].seeds
    return "one seed" if seeds == 1 else f"{seeds} seeds: mean of those that ended well, its 95 % interval"


def finite(values: Iterable[float]) -> np.ndarray:
    """Returns the finite numbers among values."""
    numbers = np.fromiter(values, "float64")
    return numbers[np.isfinite(numbers)]


def fit_axis(
    axes: "Axes", axis: Literal["x", "y"], core: Iterable[float], others: Iterable[float]
) -> tuple[float, float]:
    """Sets the scale and the limits of an axis, and returns the limits.

    The core is shown whole. The others, such as wide intervals and runs that explode, get at most the span of
    the core again at each side, and two decades on a log scale. So they cannot press the core flat:

        |<- span at most ->|<----- core ----->|<- span at most ->|

    Args:
        axes: The axes.
        axis: The axis of the values.
        core: The values that decide about the scale.
        others: Values that are shown where there is room.
    """
    others = finite(others)
    core = finite(core)
    core = core if core.size else others
    if not core.size:
        axes.set(**{f"{axis}ticks": []})
        return 0.0, 1.0
    log = bool(core.min() > 0 and core.max() > LARGE * core.min())
    places = np.log10(core) if log else core
    low, high = float(places.min()), float(places.max())
    span = min(high - low, _DECADES) if log else high - low or abs(high) / 10 or 1.0
    if log:
        others = np.log10(others[others > 0])
    shown = np.clip([*others, low, high], low - span, high + span)
    low, high = float(shown.min()), float(shown.max())
    margin = (high - low) / 20 or span / 2
    low, high = low - margin, high + margin
    limits = (10**low, 10**high) if log else (low, high)
    axes.set(**{f"{axis}scale": "log" if log else "linear", f"{axis}lim": limits})
    return limits
