"""Pictures: what is drawn, with which labels and scales, and that nothing else of matplotlib changes."""

import dataclasses
import itertools
import math
import sys

import keras
import numpy as np
import pytest

from keras_initx.diagnostics import SignalReport, SignalRow, Spectrum, diagnose
from keras_initx.plots import plot_histograms, plot_jacobian, plot_over_steps, plot_signal, to_png
from support import forked

matplotlib = pytest.importorskip("matplotlib")


def report_of(stds, gradients=None, jacobian=None, prefix="block/dense"):
    gradients = stds if gradients is None else gradients
    rows = tuple(
        SignalRow(f"{prefix}{number}", "dense", preactivation_std=std, signal_gradient=gradient)
        for number, (std, gradient) in enumerate(zip(stds, gradients, strict=True))
    )
    return SignalReport(rows, (), 1.0, "given", 8, 1.0, 1.0, 1.0, (), jacobian, 0.1)


def texts(labels):
    return [label.get_text() for label in labels]


def legend(figure):
    return texts(figure.legends[0].get_texts()) if figure.legends else []


def drawn(figure):
    figure.canvas.draw()  # what cannot be laid out fails or warns here
    return figure


@pytest.mark.tensorflow
def test_signal_draws_a_point_per_row_forward_and_backward():
    layers = [keras.layers.Input((8,)), *(keras.layers.Dense(8, "relu", name=f"d{i}") for i in range(3))]
    report = diagnose(keras.Sequential(layers), seed=1)
    figure = drawn(plot_signal(report))
    forward, backward = figure.axes
    for axes, name in ((forward, "preactivation_std"), (backward, "signal_gradient")):
        (line,) = axes.get_lines()
        assert list(line.get_xdata()) == [1, 2, 3]
        np.testing.assert_allclose(line.get_ydata(), [getattr(row, name) for row in report.rows])
        assert axes.get_yscale() == "log"
        assert axes.get_title(loc="left")
    assert (forward.get_ylabel(), backward.get_ylabel()) == ("pre-activation std", "gradient length")
    assert texts(backward.get_xticklabels()) == ["d0", "d1", "d2"]
    assert legend(figure) == []


def test_the_gradient_by_row_has_the_length_that_backward_gains_multiply():
    """Linear kernels: each length is that of the one after it times its backward gain."""
    layers = [keras.layers.Input((8,)), *(keras.layers.Dense(8, name=f"d{i}") for i in range(3))]
    rows = diagnose(keras.Sequential(layers), seed=1).rows
    for row, after in itertools.pairwise(rows):
        assert row.signal_gradient == pytest.approx(after.signal_gradient * after.backward_gain, rel=1e-4)


@pytest.mark.tensorflow
def test_signal_of_several_reports_has_a_legend_and_a_line_for_each():
    reports = {"Glorot": report_of([1.0, 0.5, 0.1]), "He": report_of([1.0, 1.1]), "zero": report_of([1.0])}
    figure = drawn(plot_signal(reports))
    assert legend(figure) == ["Glorot", "He", "zero"]
    for axes in figure.axes:
        assert [len(line.get_xdata()) for line in axes.get_lines()] == [3, 2, 1]
        assert len({line.get_color() for line in axes.get_lines()}) == 3
        assert len({line.get_marker() for line in axes.get_lines()}) == 3
    assert figure.axes[1].get_xlabel() == "kernel, in the order in which the layers run"


@pytest.mark.tensorflow
def test_signal_marks_nan_inf_and_zero_at_the_edge_and_leaves_a_gap_for_the_unseen():
    figure = drawn(plot_signal(report_of([1.0, math.nan, 0.0, None, math.inf, 2.0])))
    (line,) = figure.axes[0].get_lines()
    assert np.isnan(line.get_ydata()).tolist() == [False, True, True, True, True, False]
    bad, zero = figure.axes[0].collections
    assert bad.get_offsets()[:, 0].tolist() == [2, 5]
    assert zero.get_offsets()[:, 0].tolist() == [3]
    assert legend(figure)[1:] == ["value is NaN or Inf", "value is 0"]


@pytest.mark.tensorflow
@pytest.mark.parametrize("value", [None, math.nan, 0.0, 1.0, 1e-38, 1e38])
def test_signal_of_one_value_throughout_can_be_drawn(value):
    low, high = drawn(plot_signal(report_of([value] * 5))).axes[0].get_ylim()
    assert high / low >= 99


@pytest.mark.tensorflow
def test_many_kernels_are_numbered_and_long_paths_are_shortened():
    figure = drawn(plot_signal(report_of([1.0] * 60)))
    assert figure.axes[1].get_xlabel().startswith("kernel")
    figure = drawn(plot_signal(report_of([1.0] * 3, prefix="a_model/stage/block/attention/query")))
    assert texts(figure.axes[1].get_xticklabels())[0] == "a_model/…block/attention/query0"[:8] + (
        "…" + "a_model/stage/block/attention/query0"[-21:]
    )


@pytest.mark.tensorflow
def test_more_reports_than_colours_differ_by_the_kind_of_line():
    lines = plot_signal({f"run {n}": report_of([1.0, 2.0]) for n in range(9)}).axes[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 9


@pytest.mark.tensorflow
def test_histograms_have_a_ridge_per_weight_in_order_with_its_std():
    rng = np.random.default_rng(0)
    weights = {"wide": rng.normal(0, 2, (50, 50)), "narrow": rng.normal(0, 0.1, (50, 50))}
    figure = drawn(plot_histograms(weights))
    (axes,) = figure.axes
    ridges = [line for line in axes.get_lines() if len(line.get_xdata()) > 2]
    assert [round(float(np.ptp(line.get_xdata()))) for line in ridges] == [
        round(float(np.ptp(values.astype("float32")))) for values in weights.values()
    ]
    assert texts(axes.get_yticklabels()) == ["wide", "narrow"]
    (right,) = axes.child_axes
    assert texts(right.get_yticklabels()) == [f"std {values.std():.3g}" for values in weights.values()]
    assert axes.get_xlabel() == "weight"
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first on top


def test_histograms_of_a_model_are_those_of_its_kernels():
    model = keras.Sequential(
        [keras.layers.Input((4,)), keras.layers.Dense(3, name="a"), keras.layers.Dense(2)]
    )
    labels = texts(plot_histograms(model).axes[0].get_yticklabels())
    assert len(labels) == 2
    assert labels[0].endswith("a/kernel")


@pytest.mark.tensorflow
def test_histograms_leave_out_and_count_what_is_not_finite():
    weights = {
        "half": np.array([1.0, math.nan, 2.0, -math.inf]),
        "all": np.full(3, math.nan),
        "zero": np.zeros(9),
    }
    (right,) = drawn(plot_histograms(weights)).axes[0].child_axes
    assert texts(right.get_yticklabels()) == ["std 0.5, 0.5 NaN or Inf", "1 NaN or Inf", "std 0"]


@pytest.mark.tensorflow
def test_histograms_of_many_weights_label_some_of_them():
    figure = drawn(plot_histograms({f"w{n}": np.arange(9.0) for n in range(100)}))
    assert len(figure.axes[0].get_yticklabels()) <= 30
    assert figure.get_figheight() <= 12


@pytest.mark.tensorflow
def test_jacobian_draws_all_singular_values_or_what_is_known_of_them():
    exact = report_of([1.0], jacobian=Spectrum(4, 3, 2.0, 1.75, (2.0, 1.0, 0.5)))
    estimated = report_of([1.0], jacobian=Spectrum(9999, 9999, 3.0, 0.25))
    figure = drawn(plot_jacobian({"exact": exact, "large": estimated}))
    (axes,) = figure.axes
    line, point, dashed = axes.get_lines()
    assert list(line.get_ydata()) == [2.0, 1.0, 0.5]
    assert list(point.get_ydata()) == [3.0]
    assert set(dashed.get_ydata()) == {0.5}
    assert legend(figure) == ["exact", "large", "large root mean square"]
    assert axes.get_yscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("rank (1 is the largest)", "singular value")


@pytest.mark.tensorflow
def test_jacobian_keeps_rounding_below_the_axis():
    spectrum = Spectrum(3, 3, 1.0, 0.4, (1.0, 0.5, 1e-12))
    assert drawn(plot_jacobian(report_of([1.0], jacobian=spectrum))).axes[0].get_ylim()[0] > 1e-8
    zero = Spectrum(3, 3, 0.0, 0.0, (0.0, 0.0, 0.0))
    drawn(plot_jacobian(report_of([1.0], jacobian=zero)))


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("plot", "argument", "match"),
    [
        (plot_signal, {}, "`reports` must be a report of `diagnose`, or a dict"),
        (plot_signal, [1, 2], "Received: list"),
        (plot_signal, report_of([]), "`reports` must have rows"),
        (plot_jacobian, {"a": report_of([1.0])}, "Received: reports without it: \\['a'\\]. Write `diagnose"),
        (plot_histograms, {}, "`weights` must hold arrays"),
    ],
)
def test_what_cannot_be_drawn_is_refused(plot, argument, match):
    with pytest.raises(ValueError, match=match):
        plot(argument)


@pytest.mark.tensorflow  # not for its backend, but to start this process in one suite of the three
def test_figures_need_no_pyplot_and_change_no_settings(tmp_path):
    code = (
        "import sys, matplotlib, numpy as np\n"
        "from keras_initx.plots import plot_histograms\n"
        # Keras itself may load pyplot.
        "before, pyplot = dict(matplotlib.rcParams), 'matplotlib.pyplot' in sys.modules\n"
        f"plot_histograms({{'w': np.arange(9.0)}}).savefig({str(tmp_path / 'w.png')!r})\n"
        "assert ('matplotlib.pyplot' in sys.modules) == pyplot\n"
        "assert dict(matplotlib.rcParams) == before\n"
    )
    forked.run(["-c", code], check=True)


@pytest.mark.tensorflow
def test_a_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"needs matplotlib\..*pip install 'keras-initx\[plots\]'"):
        plot_signal(report_of([1.0]))


@pytest.mark.tensorflow
def test_tables_drop_empty_columns_and_put_numbers_to_the_right():
    report = report_of([1.0, math.nan, 123.456])
    lines = str(report).splitlines()
    assert lines[0].split() == ["path", "role", "std"]
    assert {len(line) for line in lines[:4]} == {len(lines[0])}
    assert "grad" not in report._repr_html_()
    assert report._repr_html_().count("<tr>") == 4


@pytest.mark.tensorflow
def test_rich_prints_paths_whole_and_as_they_are():
    console = pytest.importorskip("rich.console").Console(width=80, record=True, quiet=False, file=None)
    report = report_of([1.0], prefix="stage[1]/block[red]/x")
    wide = dataclasses.replace(report, rows=(dataclasses.replace(report.rows[0], note="n" * 90),))
    with console.capture() as capture:
        console.print(wide)
    assert "stage[1]/block[red]/x0" in capture.get()


@pytest.mark.tensorflow
def test_a_map_over_steps_has_a_row_per_kernel_and_a_column_per_step():
    reports = {step: report_of([1.0 + step, 0.0, math.nan]) for step in (0, 5, 10)}
    axes, bar = plot_over_steps(reports, "preactivation_std", "std").axes
    [image] = axes.get_images()
    values = image.get_array()
    assert values.shape == (3, 3)
    assert values[0].tolist() == [1.0, 6.0, 11.0]
    assert values.mask[1:].all()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "5", "10"]
    assert (axes.get_xlabel(), bar.get_ylabel()) == ("step", "std")
    with pytest.raises(ValueError, match="`reports` must hold reports with rows"):
        plot_over_steps({}, "preactivation_std", "std")


@pytest.mark.tensorflow
def test_a_png_is_one():
    assert to_png(plot_signal(report_of([1.0]))).startswith(b"\x89PNG")
