"""The verdicts and figures of `weight_selection2024.py` and `growth.py`, from numbers that are planted."""

import importlib
import pathlib

import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow  # once, from one of the suites
FOLDER = pathlib.Path(__file__).parents[1] / "examples" / "reproduce"
RATES = (0.001, 0.003)


@pytest.fixture
def selection(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("weight_selection2024")


@pytest.fixture
def growth(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("growth")


def planted(selection, means, rate=0.003):
    """Accuracies of four starts: `means` are those on the test images, at the rate that is best held out."""
    found = {}
    for start, mean in zip((*selection.RANDOM, *selection.SELECTED), means, strict=True):
        seeds = [mean + 0.01 * seed for seed in range(3)]
        for one in RATES:
            held_out = [value - (0 if one == rate else 0.1) for value in seeds]
            found[start, 100, one] = held_out, (seeds if one == rate else [0.99] * 3)
    return found


@pytest.mark.parametrize(
    ("means", "held"),
    [
        ((0.7, 0.72, 0.8, 0.75), [True, True, True]),
        ((0.7, 0.82, 0.8, 0.75), [True, False, True]),
        ((0.7, 0.72, 0.8, 0.8), [True, True, False]),
        ((0.9, 0.92, 0.8, 0.85), [False, False, False]),
    ],
)
def test_the_first_layers_must_lead_at_rates_that_the_test_images_did_not_choose(selection, means, held):
    sentence, criteria = selection.judge(planted(selection, means), 0.965)
    assert [criterion.holds for criterion in criteria] == held
    assert "learning rate 0.003" in sentence
    assert "learning rate 0.001" not in sentence
    assert "The donor's accuracy is 0.965" in sentence


def test_the_figure_of_selection_marks_each_rate_that_was_chosen(selection, tmp_path, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figures = []
    monkeypatch.setattr(pyplot, "close", figures.append)
    selection.draw(planted(selection, (0.7, 0.72, 0.8, 0.75)), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    (axes,) = figures[0].axes
    stars = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "*"]
    assert stars == [0.003] * 4


def test_the_few_images_are_of_all_classes_and_none_is_held_out(selection):
    labels = np.random.default_rng(0).integers(0, 5, 5000)
    numbered = np.arange(5000), labels
    few, held_out = selection.few_images(numbered, 100, np.random.default_rng(1))
    assert np.bincount(few[1]).tolist() == [20] * 5
    assert len(set(held_out[0])) == selection.HELD_OUT
    assert not set(few[0]) & set(held_out[0])
    for images, their_labels in (few, held_out):
        np.testing.assert_array_equal(labels[images], their_labels)


def test_the_donor_sees_no_class_of_the_model(selection, monkeypatch):
    pixels = np.arange(10, dtype="uint8").repeat(3)[:, None]  # each image holds its label
    part = pixels, pixels[:, 0].astype("int32")

    class Images:
        train, test = part, part

    monkeypatch.setattr(selection.initx.datasets, "read_fashion_mnist", Images)
    for_donor, learned, tested = selection.read()
    back = [np.unique(images * pixels.std() + pixels.mean()).round() for images, _ in (for_donor, learned)]
    assert [values.tolist() for values in back] == [[5, 6, 7, 8, 9], [0, 1, 2, 3, 4]]
    assert [sorted(set(labels)) for _, labels in (for_donor, learned, tested)] == [[0, 1, 2, 3, 4]] * 3


def grown(growth, losses, small_seconds=0.05):
    """Three seeds of 100 steps of 0.1 s, of which small models take 40 steps; starts take no time."""
    scratch = [5.0, 4.0, 3.0, 2.5, 2.1, 2.0]
    runs = {start: [scratch] * 3 for start in growth.STARTS}
    runs |= {growth.NARROW: [scratch[:3]] * 3, growth.SHALLOW: [scratch[:3]] * 3, **losses}
    return growth.Measured(
        {start: [growth.Run(found, 0.0) for found in of] for start, of in runs.items()},
        dict.fromkeys(growth.STARTS, 2.0**-8),
        {growth.SCRATCH: 0.1, growth.NARROW: small_seconds, growth.SHALLOW: small_seconds},
    )


@pytest.mark.parametrize(
    ("clones", "small_seconds", "held"),
    [
        ([[3.0, 2.2, 2.0, 1.9, 1.8, 1.7]] * 3, 0.05, [True, True]),  # 40 of 100 steps, 6 of 10 s
        ([[3.0, 2.2, 2.0, 1.9, 1.8, 1.7]] * 3, 0.2, [True, False]),  # 12 of 10 s
        ([[3.0, 2.8, 2.6, 2.4, 2.2, 2.1]] * 3, 0.05, [False, False]),  # never there
        ([[3.0, 2.2, 2.0, 1.9, 1.8, 1.7]] * 2 + [[3.0] * 6], 0.05, [False, False]),  # once not there
    ],
)
def test_the_small_models_time_counts_and_every_seed_must_get_there(growth, clones, small_seconds, held):
    measured = grown(growth, {"clones": clones}, small_seconds)
    sentence, criteria = growth.judge(measured)
    # The other growths learn as from scratch: no step is saved, and the small model's time is lost.
    assert [criterion.holds for criterion in criteria] == held + [False] * 6
    assert "From scratch (2^-8): lowest loss 2 [2, 2], after 100 [100, 100] steps of 0.1 s" in sentence
    late = sum(min(found) > 2 for found in clones)
    assert (f"({late} of 3 not there)" in sentence) == bool(late)


def test_a_small_model_that_needs_no_growth_is_told(growth):
    sentence, _ = growth.judge(grown(growth, {growth.SHALLOW: [[5.0, 3.0, 2.0]] * 2 + [[5.0, 3.0, 2.1]]}))
    assert "has 3 [3, 3] after 40 steps of 0.05 s, and is there without growth in 0 of 3 seeds" in sentence
    assert "is there without growth in 2 of 3 seeds; clones" in sentence


def test_costs_are_those_of_the_start_the_steps_and_the_small_model(growth):
    measured = grown(growth, {"clones": [[3.0, 2.2, 2.0, 1.9, 1.8, 1.7]] * 3})
    measured.runs["clones"][:] = [run._replace(start_seconds=1.5) for run in measured.runs["clones"]]
    measured.runs[growth.NARROW][:] = [
        run._replace(start_seconds=0.5) for run in measured.runs[growth.NARROW]
    ]
    assert growth.costs(measured, growth.SCRATCH)[0] == (True, 100, pytest.approx(10))
    assert growth.costs(measured, "clones")[0] == (True, 40, pytest.approx(1.5 + 40 * 0.1 + 0.5 + 40 * 0.05))


def test_a_learning_rate_is_chosen_by_steps_and_then_by_loss(growth):
    runs = {0.1: growth.Run([3.0, 2.0, 2.0], 0), 0.2: growth.Run([3.0, 2.5, 1.0], 0)}
    assert growth.choose(runs, 2.0) == 0.1
    assert growth.choose(runs, -np.inf) == 0.2
    assert growth.choose(runs, 0.5) == 0.2


def test_the_figure_of_growth_begins_after_the_small_models_seconds(growth, tmp_path, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figures = []
    monkeypatch.setattr(pyplot, "close", figures.append)
    growth.draw(grown(growth, {}), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    by_steps, by_seconds = figures[0].axes
    assert [text.get_text() for text in by_steps.get_legend().get_texts()] == [
        growth.SCRATCH,
        *growth.GROWTHS,
    ]
    begun = [line.get_xdata()[0] for line in by_seconds.lines if line.get_linestyle() == "-"]
    assert begun == pytest.approx([0, 2, 2, 2, 2])
