"""What the pictures of a comparison share: its check, labels, and axes that the lost do not stretch."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_initx.plots._figure import shorten

if TYPE_CHECKING:
    from keras_initx.experiments import Comparison, ComparisonRow

__all__ = ["LARGE", "check", "direction_of", "finite", "fit_axis", "label_of", "lost_of", "title"]

LARGE = 100  # the largest by the smallest, from which positive values are on a log scale
_DECADES = 2.0  # of a log scale at most at each side for what does not decide it


def check(comparison: Any) -> None:
    """Refuses what is no comparison."""
    if not all(hasattr(comparison, name) for name in ("rows", "grid", "curves")):
        raise ValueError(
            f"`comparison` must be what `compare` returns. Received: {type(comparison).__name__}."
        )


def label_of(row: "ComparisonRow") -> str:
    """The initializer, and its learning rate where it was given one."""
    rate = "" if row.learning_rate is None else f" at {row.learning_rate:g}"
    return shorten(row.initializer) + rate


def direction_of(comparison: "Comparison") -> str:
    """Which values of the metric are better, in words."""
    return f"{'less' if comparison.minimize else 'more'} is better"


def lost_of(row: "ComparisonRow") -> list[str]:
    """How many seeds were lost, in words for each way."""
    counts = {"diverged": row.diverged, "stopped": row.stopped, "failed": row.failed}
    return [f"{count} of {row.seeds} {way}" for way, count in counts.items() if count]


def title(comparison: "Comparison") -> str:
    """What means and intervals are of."""
    seeds = comparison.rows[0].seeds
    return "one seed" if seeds == 1 else f"{seeds} seeds: mean of those that ended well, its 95 % interval"


def finite(values: Iterable[float]) -> np.ndarray:
    """The numbers among values."""
    numbers = np.fromiter(values, "float64")
    return numbers[np.isfinite(numbers)]


def fit_axis(axes: Any, axis: str, core: Iterable[float], others: Iterable[float]) -> tuple[float, float]:
    """Gives the axis `x` or `y` the scale and limits of what it is there for, and returns the limits.

    The core is shown whole. The others, such as wide intervals and runs that explode, have at most as much
    again at each side, so that they do not press it flat.
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
