"""Pictures of what `diagnose` found, and of weights: matplotlib figures, which any backend can save.

Figures are made without pyplot, so that nothing of its state changes: `figure.savefig("signal.png")`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from keras_initx.diagnostics import SignalReport

__all__ = ["plot_histograms", "plot_jacobian", "plot_signal"]

# Okabe and Ito's colours, which colour-blind readers can tell apart; markers tell them apart in print.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"
_NAMED = 24  # kernels whose paths are written at the axis; more are numbered
_LABELS = 30  # paths at most beside a ridgeline
_CHARACTERS = 30  # of a path that is written
_BINS = 80
_ROUNDING = 1e-7  # of the largest singular value, below which float32 leaves only noise


def plot_signal(reports: "SignalReport | Mapping[str, SignalReport]") -> "Figure":
    """Draws the signal and its gradient by kernel, in the order in which the layers run.

    Above, the standard deviation of the pre-activations; below, the length of the gradient of the loss with
    respect to them; both on log scales. What has no place there stands at the edge: a cross above for NaN and
    Inf, a triangle below for zero. What was not seen is a gap.

    >>> import keras, keras_initx
    >>> model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(8), keras.layers.Dense(1)])
    >>> figure = plot_signal(keras_initx.diagnose(model, seed=1))
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['pre-activation std', 'gradient length']

    Args:
        reports: A report, or several by the label that the legend gives them.

    Returns:
        A figure with two axes.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there is no report, or none has rows.
    """
    labelled = _labelled(reports)
    longest = max((report.rows for report in labelled.values()), key=len)
    if not longest:
        raise ValueError("`reports` must have rows to be drawn. Received: reports of no kernel.")
    figure = _figure(8, 6)
    forward, backward = figure.subplots(2, 1, sharex=True)
    panels = {
        "preactivation_std": (forward, "pre-activation std"),
        "signal_gradient": (backward, "gradient length"),
    }
    for name, (axes, title) in panels.items():
        for number, (label, report) in enumerate(labelled.items()):
            _draw_by_kernel(axes, [getattr(row, name) for row in report.rows], number, label)
        _finish_log(axes, title)
    forward.set_title("forward: signal", loc="left")
    backward.set_title("backward: gradient of the loss at the pre-activations", loc="left")
    same = all(_paths(report) == _paths(labelled[next(iter(labelled))]) for report in labelled.values())
    _name_kernels(backward, [row.path for row in longest] if same else len(longest))
    _add_legend(figure, (forward, backward), named=isinstance(reports, Mapping))
    return figure


def plot_histograms(weights: Any) -> "Figure":
    """Draws the distribution of each kernel, one ridge above the other, the first on top.

    All ridges share one axis and each has its own height, so that widths can be compared; the standard
    deviation stands at the right. NaN and Inf are left out and counted there.

    >>> figure = plot_histograms({"first": np.linspace(-1, 1, 99), "second": np.zeros((3, 3))})
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['first', 'second']

    Args:
        weights: Arrays by label, or a Keras model, of which all weights with two axes or more are drawn.

    Returns:
        A figure with one axes.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there are no weights.
    """
    pairs = [(label, _flat(values)) for label, values in _weights(weights)]
    if not pairs:
        raise ValueError("`weights` must hold arrays to be drawn, or be a built model. Received: none.")
    figure = _figure(8, min(max(3.0, 1.2 + 0.3 * len(pairs)), 10))
    axes = figure.subplots()
    step = -(-len(pairs) // _LABELS)
    for number, (_, values) in enumerate(pairs):
        _draw_ridge(axes, values[np.isfinite(values)], number)
    axes.set_ylim(len(pairs) - 0.5, -1.4)
    axes.set_xlabel("weight")
    axes.set_yticks(range(0, len(pairs), step), [_short(label) for label, _ in pairs[::step]])
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(0, len(pairs), step), [_summary(values) for _, values in pairs[::step]])
    for side in (axes, right):
        side.tick_params("y", length=0)
        side.spines[:].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    return figure


def plot_jacobian(reports: "SignalReport | Mapping[str, SignalReport]") -> "Figure":
    """Draws the singular values of the Jacobian of outputs by inputs, in descending order.

    Where only the largest and the root mean square are known, these are a point and a dashed line. Values
    that float32 cannot tell from zero are below the axis.

    Args:
        reports: A report of `diagnose(..., jacobian=True)`, or several by label.

    Returns:
        A figure with one axes.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If a report has no Jacobian.
    """
    labelled = _labelled(reports)
    missing = [label for label, report in labelled.items() if report.jacobian is None]
    if missing:
        raise ValueError(
            f"`reports` must have a Jacobian. Received: none in {missing}. "
            "Write `diagnose(model, ..., jacobian=True)`."
        )
    figure = _figure(7, 4.5)
    axes = figure.subplots()
    largest = 0.0
    for number, (label, report) in enumerate(labelled.items()):
        spectrum: Any = report.jacobian
        values = spectrum.singular_values or (spectrum.largest,)
        largest = max([largest, *(value for value in values if math.isfinite(value))])
        ranks = range(1, len(values) + 1)
        axes.plot(ranks, _on_log(values), label=label, markersize=5, **_style(number))
        if spectrum.singular_values is None:
            size = math.sqrt(spectrum.mean_square)
            axes.axhline(
                size, color=_style(number)["color"], linestyle="--", label=f"{label} root mean square"
            )
    _finish_log(axes, "singular value", least=largest * _ROUNDING)
    axes.set_xlabel("rank (1 is the largest)")
    axes.locator_params("x", integer=True)
    if isinstance(reports, Mapping) or len(axes.get_lines()) > 1:
        figure.legend(loc="outside upper center", ncols=4)
    return figure


def _figure(width: float, height: float) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Pictures need matplotlib: pip install 'keras_initx[plots]'") from error
    return Figure((width, height), dpi=100, layout="constrained")


def _labelled(reports: Any) -> "dict[str, SignalReport]":
    labelled = dict(reports) if isinstance(reports, Mapping) else {"model": reports}
    if not labelled or not all(hasattr(report, "rows") for report in labelled.values()):
        raise ValueError(
            "`reports` must be a report of `diagnose`, or a dict of label and report. "
            f"Received: {type(reports).__name__}."
        )
    return labelled


def _style(number: int) -> dict[str, Any]:
    """Colour, marker and, once the colours are used up, another kind of line."""
    return {
        "color": _COLORS[number % len(_COLORS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": ("-", "--", ":")[number // len(_COLORS) % 3],
    }


def _on_log(values: Iterable[float | None]) -> np.ndarray:
    """NaN for what has no place on a log scale."""
    numbers = np.array([math.nan if value is None else value for value in values], "float64")
    return np.where(np.isfinite(numbers) & (numbers > 0), numbers, math.nan)


def _draw_by_kernel(axes: "Axes", values: Sequence[float | None], number: int, label: str) -> None:
    style = _style(number)
    places = range(1, len(values) + 1)
    axes.plot(places, _on_log(values), label=label, markersize=5 if len(values) <= 60 else 3, **style)
    edges = {
        ("x", 0.97, "NaN or Inf"): [v is not None and not math.isfinite(v) for v in values],
        ("v", 0.03, "zero"): [v == 0 for v in values],
    }
    for (marker, height, meaning), chosen in edges.items():
        found = [place for place, here in zip(places, chosen, strict=True) if here]
        if found:
            axes.scatter(
                found,
                [height] * len(found),
                marker=marker,
                color=style["color"],
                transform=axes.get_xaxis_transform(),
                label=meaning,
            )


def _finish_log(axes: "Axes", title: str, least: float = 0.0) -> None:
    """A log scale of two decades at least, so that what is level looks level."""
    drawn = np.concatenate([np.asarray(line.get_ydata(), "float64") for line in axes.get_lines()])
    drawn = drawn[np.isfinite(drawn) & (drawn > least)]
    low, high = (drawn.min(), drawn.max()) if drawn.size else (0.1, 10.0)
    spread = max(1.2, 10 / math.sqrt(high / low))
    axes.set_yscale("log")
    axes.set_ylim(low / spread, high * spread)
    axes.set_ylabel(title)
    axes.grid(alpha=0.3)


def _paths(report: "SignalReport") -> list[str]:
    return [row.path for row in report.rows]


def _name_kernels(axes: "Axes", kernels: list[str] | int) -> None:
    if isinstance(kernels, int) or len(kernels) > _NAMED:
        axes.set_xlabel("kernel, in the order in which the layers run")
        axes.locator_params("x", integer=True)
    else:
        names = [_short(path) for path in kernels]
        axes.set_xticks(range(1, len(names) + 1), names, rotation=40, ha="right", rotation_mode="anchor")


def _add_legend(figure: "Figure", axes: Iterable["Axes"], named: bool) -> None:
    """One entry per report and mark, whichever axes it is in."""
    entries: dict[str, Any] = {}
    for part in axes:
        handles, labels = part.get_legend_handles_labels()
        entries |= {
            label: handle for label, handle in zip(labels, handles, strict=True) if label not in entries
        }
    if named or len(entries) > 1:
        figure.legend(list(entries.values()), list(entries), loc="outside upper center", ncols=4)


def _short(path: str) -> str:
    return path if len(path) <= _CHARACTERS else f"{path[:8]}…{path[9 - _CHARACTERS :]}"


def _weights(weights: Any) -> list[tuple[str, Any]]:
    if isinstance(weights, Mapping):
        return list(weights.items())
    return [(weight.path, weight) for weight in weights.weights if len(weight.shape) > 1]


def _flat(values: Any) -> np.ndarray:
    from keras import ops

    return np.asarray(ops.convert_to_numpy(ops.cast(values, "float32"))).reshape(-1)


def _draw_ridge(axes: "Axes", values: np.ndarray, number: int) -> None:
    color = _COLORS[0]
    axes.axhline(number, color=color, linewidth=0.5, alpha=0.5, zorder=number)
    if not values.size:
        return
    if values.min() == values.max():  # a spike
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
