"""Pictures of a comparison: what each mark stands at, what is counted, scales, and what is refused."""

import itertools
import math

import keras
import numpy as np
import pytest

import keras_initx as initx
from keras_initx.experiments import Sequential, Trial, TrialResult
from keras_initx.experiments._statistics import mean_interval
from keras_initx.experiments._summarize import summarize
from keras_initx.plots import plot_curves, plot_finals, plot_rates

pytest.importorskip("matplotlib")

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites
ALL = (plot_curves, plot_finals, plot_rates)


def well(label, seed, values, rate=None, **more):
    """The result of a trial whose metric `error` had these values on the validation data, epoch by epoch."""
    curves = {"loss": [2 * value for value in values], "val_error": list(values)}
    final = values[-1]
    return TrialResult(
        Trial(label, seed, rate, len(values)), curves, final=final, test=final + 0.5, best=final, **more
    )


def diverged(label, seed, values, rate=None):
    curves = {"val_error": [*values, math.nan]}
    return TrialResult(Trial(label, seed, rate, 9), curves, diverged=True)


def failed(label, seed, rate=None):
    return TrialResult(Trial(label, seed, rate, 9), failure="MemoryError: full")


def comparison(results, minimize=True, reported="test"):
    return summarize(results, "error", minimize, reported)


def race(seeds=3, labels="ab"):
    return comparison(
        [
            well(label, seed, [number + 0.4 + seed / 10, number + 0.2 + seed / 10])
            for number, label in enumerate(labels)
            for seed in range(seeds)
        ]
    )


def lines(axes):
    """The lines with a name: means, and what explains lost seeds."""
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}


def unnamed(axes):
    return [line for line in axes.get_lines() if line.get_label().startswith("_")]


def texts(labels):
    return [label.get_text() for label in labels]


def drawn(figure):
    figure.canvas.draw()  # what cannot be laid out fails or warns here
    return figure


def test_curves_of_a_real_comparison_are_the_logs_of_its_trials():
    def build():
        model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.01), "mse")
        return model

    data = (np.eye(4, dtype="float32"), np.ones((4, 1), "float32"))
    found = initx.compare(
        build,
        ["initx>HeScaled"],
        data,
        data,
        seeds=2,
        epochs=3,
        learning_rates=[0.1],
        runner=Sequential(False),
    )
    (curve,) = found.curves("loss").values()
    assert curve.values == {result.trial.seed: tuple(result.curves["loss"]) for result in found.results}
    (line,) = drawn(plot_curves(found, "loss")).axes[0].get_lines()
    assert list(line.get_xdata()) == [1, 2, 3]
    expected = np.mean([result.curves["loss"] for result in found.results], axis=0)
    np.testing.assert_allclose(line.get_ydata(), expected)
    assert line.get_label() == "initx>HeScaled at 0.1"


def test_a_curve_has_the_mean_and_its_interval_by_epoch_the_best_first():
    figure = drawn(plot_curves(race()))
    (axes,) = figure.axes
    assert list(lines(axes)) == texts(figure.legends[0].get_texts()) == ["a", "b"]
    np.testing.assert_allclose(lines(axes)["a"].get_ydata(), [0.5, 0.3])
    for band, first in zip(axes.collections, (0.4, 1.4), strict=True):
        _, low, high = mean_interval([first, first + 0.1, first + 0.2])
        corners = band.get_paths()[0].vertices
        at_first = corners[corners[:, 0] == 1][:, 1]
        assert (at_first.min(), at_first.max()) == pytest.approx((low, high))
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == (
        "epoch",
        "val_error (less is better)",
        "linear",
    )
    assert drawn(plot_curves(race(), "loss")).axes[0].get_ylabel() == "loss"


def test_curves_are_those_of_the_chosen_learning_rate():
    results = [
        well("a", seed, [0.9, value], rate) for seed in range(2) for rate, value in ((0.1, 0.5), (1, 0.7))
    ]
    assert list(comparison(results).curves()["a"].mean) == [0.9, 0.5]


def test_lost_seeds_are_counted_and_end_with_a_cross_and_are_not_averaged():
    results = [well("a", seed, [0.5, 0.4, 0.3]) for seed in range(2)]
    results += [diverged("a", 2, [0.6, 0.7]), diverged("a", 3, []), failed("a", 4)]
    figure = drawn(plot_curves(comparison(results)))
    (axes,) = figure.axes
    label, mark = texts(figure.legends[0].get_texts())
    assert label == "a\n2 of 5 diverged\n1 of 5 failed"
    assert mark.startswith("lost seed")
    np.testing.assert_allclose(lines(axes)[label].get_ydata(), [0.5, 0.4, 0.3])
    lost, cross = unnamed(axes)
    assert (list(lost.get_xdata()), list(lost.get_ydata())) == ([1, 2], [0.6, 0.7])
    assert (list(cross.get_xdata()), list(cross.get_ydata()), cross.get_marker()) == ([2], [0.7], "x")


def test_what_explodes_leaves_the_picture_and_has_its_cross_at_the_edge():
    results = [well("a", seed, [0.5, 0.4]) for seed in range(2)] + [diverged("a", 2, [0.5, 1e30])]
    (axes,) = drawn(plot_curves(comparison(results))).axes
    assert axes.get_yscale() == "linear"
    assert axes.get_ylim()[1] < 1
    assert unnamed(axes)[-1].get_ydata() == [axes.get_ylim()[1]]


@pytest.mark.parametrize(
    ("values", "scale"),
    [([1.0, 1e-3], "log"), ([1.0, 0.1], "linear"), ([1.0, 0.0], "linear"), ([100.0, -1.0], "linear")],
)
def test_positive_values_that_span_much_are_on_a_log_scale(values, scale):
    found = comparison([well("a", seed, values) for seed in range(2)])
    assert drawn(plot_curves(found)).axes[0].get_yscale() == scale
    results = [well(str(n), seed, [value - 0.5]) for n, value in enumerate(values) for seed in range(2)]
    assert drawn(plot_finals(comparison(results))).axes[0].get_xscale() == scale


def test_a_wide_interval_does_not_press_the_values_flat():
    results = [well("a", seed, [0.5, 0.4 + seed / 10]) for seed in range(2)]  # Student's, of two: +- 0.64
    (axes,) = drawn(plot_curves(comparison(results))).axes
    low, high = axes.get_ylim()
    assert low < 0.4
    assert high - low < 0.4
    results = [
        well("a", seed, [1.0, 10.0 ** -(2 + 3 * seed)]) for seed in range(2)
    ]  # its bound is below zero
    (axes,) = drawn(plot_curves(comparison(results))).axes
    assert 1e-6 < axes.get_ylim()[0] < 1e-5


def test_a_seed_that_a_callback_ended_early_counts_with_its_last_value():
    found = comparison([well("a", 0, [0.5, 0.4, 0.3]), well("a", 1, [0.5, 0.2])])
    curve = found.curves()["a"]
    np.testing.assert_allclose(curve.mean, [0.5, 0.3, 0.25])
    assert curve.mean[-1] == pytest.approx(found.rows[0].validation)


def test_of_one_epoch_the_means_stand_beside_each_other_with_their_intervals():
    found = comparison([well(n, seed, [0.5 + seed]) for n in "abc" for seed in range(3)])
    (axes,) = drawn(plot_curves(found)).axes
    places = [float(line.get_xdata()[0]) for line in lines(axes).values()]
    assert len(set(places)) == 3
    assert np.mean(places) == pytest.approx(1)
    assert [tick for tick in axes.get_xticks() if axes.get_xlim()[0] < tick < axes.get_xlim()[1]] == [1]
    _, low, high = mean_interval([0.5, 1.5, 2.5])
    assert axes.collections[0].get_segments()[0][:, 1].tolist() == pytest.approx([low, high])


def test_finals_have_a_dot_per_seed_and_the_mean_with_its_interval_the_best_on_top():
    results = [well("a", seed, [0.1 * seed]) for seed in range(3)]
    results += [well("b", 0, [0.5]), well("b", 1, [0.6]), diverged("b", 2, [0.1])]
    results += [failed("c", seed) for seed in range(3)]
    (axes,) = drawn(plot_finals(comparison(results))).axes
    assert texts(axes.get_yticklabels()) == ["a", "b", "c"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    (right,) = axes.child_axes
    assert texts(right.get_yticklabels()) == ["", "1 of 3 diverged", "3 of 3 failed"]
    dots, mean, others, other = axes.get_lines()  # none of c
    np.testing.assert_allclose(dots.get_xdata(), [0.5, 0.6, 0.7])  # on test data
    assert mean.get_xdata() == pytest.approx([0.6])
    np.testing.assert_allclose(others.get_xdata(), [1.0, 1.1])
    assert other.get_color() != mean.get_color()
    np.testing.assert_allclose(
        axes.collections[0].get_segments()[0][:, 0], mean_interval([0.5, 0.6, 0.7])[1:]
    )
    assert axes.get_xlabel() == "test error (less is better)"
    found = comparison(results, minimize=False, reported="validation")
    assert plot_finals(found).axes[0].get_xlabel() == "validation error (more is better)"


def cells(axes):
    return {text.get_position(): text.get_text() for text in axes.texts}


def frames(axes):
    """Cells with a frame; each is two rectangles."""
    return sorted({(round(r.get_x() + 0.47), round(r.get_y() + 0.45)) for r in axes.patches})


def test_rates_have_a_number_per_cell_the_chosen_ones_framed_and_lost_ones_grey():
    results = [well("a", seed, [value], rate) for seed in (0, 1) for rate, value in ((0.1, 0.2), (0.01, 0.3))]
    results += [well("b", 0, [0.1], 0.1), diverged("b", 1, [], 0.1)]
    results += [well("b", seed, [0.4], 0.01) for seed in (0, 1)]
    results += [diverged(label, 0, [0.5], 1.0) for label in "ab"] + [failed(label, 1, 1.0) for label in "ab"]
    axes, bar = drawn(plot_rates(comparison(results))).axes
    assert texts(axes.get_xticklabels()) == ["0.01", "0.1", "1"]
    assert texts(axes.get_yticklabels()) == ["a", "b"]
    lost = "1 of 2 diverged\n1 of 2 failed"
    assert cells(axes) == {
        **{(0, 0): "0.300", (1, 0): "0.200", (2, 0): lost},
        **{(0, 1): "0.400", (1, 1): "0.100\n1 of 2 diverged", (2, 1): lost},
    }
    assert frames(axes) == [(0, 1), (1, 0)]
    values = axes.get_images()[0].get_array()
    assert values.mask.tolist() == [[False, False, True]] * 2
    assert axes.get_facecolor()[:3] == (0.8, 0.8, 0.8)
    assert bar.get_ylabel() == "validation error (less is better)"


@pytest.mark.parametrize("minimize", [True, False])
def test_the_better_cell_is_the_brighter(minimize):
    results = [well("a", 0, [value], rate) for rate, value in ((0.1, 0.2), (0.01, 0.3))]
    image = plot_rates(comparison(results, minimize)).axes[0].get_images()[0]
    low, high = (sum(image.cmap(image.norm(value))[:3]) for value in (0.2, 0.3))
    assert (low > high) == minimize


def test_rates_of_one_learning_rate_are_one_column_and_far_numbers_are_on_a_log_scale():
    axes, bar = drawn(plot_rates(race())).axes
    assert texts(axes.get_xticklabels()) == ["as compiled"]
    assert list(cells(axes).values()) == ["0.300", "1.30"]
    assert frames(axes) == []  # nothing was chosen
    assert bar.get_yscale() == "linear"
    results = [well("a", 0, [value], rate) for rate, value in ((0.1, 0.2), (0.01, 3e9))]
    axes, bar = drawn(plot_rates(comparison(results))).axes
    assert bar.get_yscale() == "log"
    assert list(cells(axes).values()) == ["0.200", "3.00e+09"]


LOST = [
    diverged(label, seed, []) if label == "a" else failed(label, seed) for label in "ab" for seed in range(2)
]
LABELS = [f"a rather long label of an initializer, number {number}" for number in range(12)]
AWKWARD = {
    "one of all": race(1, "a"),
    "one seed": race(1),
    "twelve long labels": race(2, LABELS),
    "all lost": comparison(LOST),
    "all failed": comparison([result for result in LOST if result.failure]),
    "all equal": comparison([well("a", seed, [0.0, 0.0]) for seed in range(3)]),
    "very large": comparison([well("a", seed, [1e38, -1e38]) for seed in range(3)]),
    "a log that is not finite": comparison([well("a", seed, [math.inf, 0.5]) for seed in range(3)]),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("plot", "case"), list(itertools.product(ALL, AWKWARD)))
def test_awkward_comparisons_can_be_drawn(plot, case):
    drawn(plot(AWKWARD[case]))


def test_what_was_lost_throughout_is_still_counted():
    found = AWKWARD["all lost"]
    figure = drawn(plot_curves(found))
    assert texts(figure.legends[0].get_texts()) == ["b\n2 of 2 failed", "a\n2 of 2 diverged"]
    (axes,) = drawn(plot_finals(found)).axes
    assert texts(axes.child_axes[0].get_yticklabels()) == ["2 of 2 failed", "2 of 2 diverged"]
    (axes,) = drawn(plot_rates(found)).axes  # and no colour bar
    assert sorted(cells(axes).values()) == ["2 of 2 diverged", "2 of 2 failed"]


@pytest.mark.parametrize("plot", ALL)
def test_what_is_no_comparison_is_refused(plot):
    with pytest.raises(
        ValueError, match="`comparison` must be a `Comparison`, which `compare` returns. Received: list."
    ):
        plot([])


def test_an_unknown_log_is_refused_with_those_that_there_are():
    with pytest.raises(
        ValueError, match=r"`name` must be one of \['loss', 'val_error'\]. Received: name='acc'"
    ):
        plot_curves(race(), "acc")
