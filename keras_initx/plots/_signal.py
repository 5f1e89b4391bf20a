"""Pictures of a report of `diagnose`: the signal by kernel, and the spectrum of the Jacobian."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_initx.plots._figure import finish_log, labelled_reports, new_figure, on_log, shorten, style_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from keras_initx.diagnostics import SignalReport

__all__ = ["plot_jacobian", "plot_signal"]

_NAMED = 24  # most kernels whose paths are written at the axis; more kernels are numbered
_ROUNDING = 1e-7  # share of the largest singular value below which float32 has only noise


def plot_signal(reports: "SignalReport | Mapping[str, SignalReport]") -> "Figure":
    """Draws the signal and its gradient by kernel, in the order in which the layers run.

    The upper axes has the standard deviation of the pre-activations, and the lower axes has the length of the
    gradient of the loss with respect to the pre-activations. Both are on log scales. NaN and Inf are a cross
    at the upper edge, and zero is a triangle at the lower edge. A number that was not measured is a gap.

    >>> import keras, keras_initx
    >>> model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(8), keras.layers.Dense(1)])
    >>> figure = plot_signal(keras_initx.diagnose(model, seed=1))
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['pre-activation std', 'gradient length']

    Args:
        reports: A report; or several reports by label, which the legend shows.

    Returns:
        A figure with two axes.

    Raises:
        ImportError: If matplotlib is not installed (the extra `plots`).
        ValueError: If there is no report, or no report has rows.
    """
    labelled = labelled_reports(reports)
    longest = max((report.rows for report in labelled.values()), key=len)
    if not longest:
        raise ValueError("`reports` must have rows to be drawn. Received: reports of no kernel.")
    figure = new_figure(8, 6)
    forward, backward = figure.subplots(2, 1, sharex=True)
    panels = {
        "preactivation_std": (forward, "pre-activation std"),
        "signal_gradient": (backward, "gradient length"),
    }
    for name, (axes, title) in panels.items():
        for number, (label, report) in enumerate(labelled.items()):
            _draw_by_kernel(axes, [getattr(row, name) for row in report.rows], number, label)
        finish_log(axes, title)
    forward.set_title("forward: signal", loc="left")
    backward.set_title("backward: gradient of the loss at the pre-activations", loc="left")
    same = all(_paths(report) == _paths(labelled[next(iter(labelled))]) for report in labelled.values())
    _name_kernels(backward, [row.path for row in longest] if same else len(longest))
    _add_legend(figure, (forward, backward), named=isinstance(reports, Mapping))
    return figure


def plot_jacobian(reports: "SignalReport | Mapping[str, SignalReport]") -> "Figure":
    """Draws the singular values of the Jacobian of outputs by inputs, in descending order.

    For a large Jacobian only the largest value and the root mean square are known: a point and a dashed line.
    Values that float32 cannot tell from zero are below the axis.

    >>> import keras, keras_initx
    >>> model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4)])
    >>> figure = plot_jacobian(keras_initx.diagnose(model, seed=1, jacobian=True))
    >>> len(figure.axes[0].get_lines()[0].get_ydata())
    4

    Args:
        reports: A report of `diagnose(..., jacobian=True)`; or several reports by label.

    Returns:
        A figure with one axes.

    Raises:
        ImportError: If matplotlib is not installed (the extra `plots`).
        ValueError: If a report has no Jacobian.
    """
    labelled = labelled_reports(reports)
    missing = [label for label, report in labelled.items() if report.jacobian is None]
    if missing:
        raise ValueError(
            f"`reports` must have a Jacobian. Received: reports without it: {missing}. "
            "Write `diagnose(model, ..., jacobian=True)`."
        )
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    largest = 0.0
    for number, (label, report) in enumerate(labelled.items()):
        spectrum: Any = report.jacobian
        values = spectrum.singular_values or (spectrum.largest,)
        largest = max([largest, *(value for value in values if math.isfinite(value))])
        ranks = range(1, len(values) + 1)
        axes.plot(ranks, on_log(values), label=label, markersize=5, **style_of(number))
        if spectrum.singular_values is None:
            size = math.sqrt(spectrum.mean_square)
            axes.axhline(
                size, color=style_of(number)["color"], linestyle="--", label=f"{label} root mean square"
            )
    finish_log(axes, "singular value", least=largest * _ROUNDING)
    axes.set_xlabel("rank (1 is the largest)")
    axes.locator_params("x", integer=True)
    if isinstance(reports, Mapping) or len(axes.get_lines()) > 1:
        figure.legend(loc="outside upper center", ncols=4)
    return figure


def _draw_by_kernel(axes: "Axes", values: Sequence[float | None], number: int, label: str) -> None:
    style = style_of(number)
    places = range(1, len(values) + 1)
    axes.plot(places, on_log(values), label=label, markersize=5 if len(values) <= 60 else 3, **style)
    edges = {
        ("x", 0.97, "value is NaN or Inf"): [v is not None and not math.isfinite(v) for v in values],
        ("v", 0.03, "value is 0"): [v == 0 for v in values],
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


def _paths(report: "SignalReport") -> list[str]:
    return [row.path for row in report.rows]


def _name_kernels(axes: "Axes", kernels: list[str] | int) -> None:
    if isinstance(kernels, int) or len(kernels) > _NAMED:
        axes.set_xlabel("kernel, in the order in which the layers run")
        axes.locator_params("x", integer=True)
    else:
        names = [shorten(path) for path in kernels]
        axes.set_xticks(range(1, len(names) + 1), names, rotation=40, ha="right", rotation_mode="anchor")


def _add_legend(figure: "Figure", axes: Iterable["Axes"], named: bool) -> None:
    """Adds a legend with one entry for each report and mark, also if both axes have the mark."""
    entries: dict[str, Any] = {}
    for part in axes:
        handles, labels = part.get_legend_handles_labels()
        entries |= {
            label: handle for label, handle in zip(labels, handles, strict=True) if label not in entries
        }
    if named or len(entries) > 1:
        figure.legend(list(entries.values()), list(entries), loc="outside upper center", ncols=4)
