"""The verdicts and figures of `mup2022.py` and `completep2025.py`, from losses that are planted."""

import importlib
import pathlib

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow  # once, from one of the suites
FOLDER = pathlib.Path(__file__).parents[1] / "examples" / "reproduce"
WIDTHS = (64, 256, 1024)
POWERS = range(-13, -6)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("mup2022")


def planted(plain, mup, lowest=(0.46, 0.44, 0.42)):
    """Losses that are parabolas in the power of the rate, with their minima at the given powers."""
    return {
        (start, width, 2.0**power): [low + 0.02 * (power - best) ** 2 + 0.001 * seed for seed in range(3)]
        for start, bests in (("plain", plain), ("muP", mup))
        for width, best, low in zip(WIDTHS, bests, lowest, strict=True)
        for power in POWERS
    }


@pytest.mark.parametrize(
    ("plain", "mup", "lowest", "held"),
    [
        ((-10, -11, -12), (-10, -10, -9), (0.46, 0.44, 0.4), [True, True, True]),
        ((-10, -11, -11), (-10, -10, -10), (0.46, 0.44, 0.42), [True, False, True]),  # moves by 2
        ((-10, -11, -13), (-10, -12, -10), (0.46, 0.44, 0.42), [False, True, True]),  # one moves by 4
        ((-10, -11, -13), (-10, -10, -8), (0.46, 0.44, 0.42), [False, True, False]),
        ((-10, -11, -12), (-10, -10, -10), (0.46, 0.42, 0.43), [True, True, False]),  # wider is worse
        ((-12, -11, -10), (-10, -10, -10), (0.46, 0.44, 0.42), [True, False, True]),  # moves up
    ],
)
def test_the_verdict_follows_from_the_optima_and_the_narrow_nets_rate(script, plain, mup, lowest, held):
    sentence, criteria = script.judge(planted(plain, mup, lowest), WIDTHS)
    assert [criterion.holds for criterion in criteria] == held
    said = [f"2^{power} at width {width}" for power, width in zip(plain, WIDTHS, strict=True)]
    assert f"plain: {', '.join(said)}; muP: 2^-10 at width 64" in sentence
    assert "At 2^-10, the narrow net's" in sentence


def test_the_figure_marks_each_optimum(script, tmp_path, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figures = []
    monkeypatch.setattr(pyplot, "close", figures.append)
    script.draw(planted((-10, -11, -12), (-10, -10, -9)), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    for axes, bests in zip(figures[0].axes, [(-10, -11, -12), (-10, -10, -9)], strict=True):
        stars = [line.get_xdata() for line in axes.lines if line.get_marker() == "*"]
        assert [float(np.log2(star[0])) for star in stars] == list(bests)
        assert axes.get_title() in ("plain", "muP")


def test_the_base_is_trained_once(script, monkeypatch):
    trained = []

    def train(model, start, rate, seed, steps, data):
        trained.append((model, rate, seed))
        return 1.0

    monkeypatch.setattr(script, "read", lambda: ())
    monkeypatch.setattr(script, "prepared", lambda model, start: model)
    monkeypatch.setattr(script, "train", train)
    losses = {}
    script.measure_losses(script.Size(2, (8, 16), (0.1, 0.2)), losses)
    assert len(trained) == 3 * 2 * 2
    assert losses == {(s, w, r): [1.0, 1.0] for s in ("plain", "muP") for w in (8, 16) for r in (0.1, 0.2)}


def test_a_run_that_diverges_counts_as_chance(script):
    data = np.zeros((64 * 8, 784), "float32"), np.zeros(64 * 8, "int32")
    model = script.prepared(script.net(4), "by_role")
    model.compile("adam", lambda labels, logits: keras.ops.mean(logits, axis=-1) * float("nan"))
    assert script.train(model, "by_role", 1e-3, 0, 8, data) == pytest.approx(np.log(10))


def grown(plain, mup, low=2.2):
    """Losses of a small and a large model, the small one best at 2^-6."""
    return {
        (start, size, 2.0**power): [lowest + 0.02 * (power - best) ** 2 + 0.001 * seed for seed in range(3)]
        for start, of_large in (("plain", plain), ("muP", mup))
        for size, best, lowest in ((2, -6, 2.4), (8, of_large, low))
        for power in range(-9, -4)
    }


def test_width_and_depth_have_three_criteria_each(script, tmp_path):
    completep = importlib.import_module("completep2025")
    measured = {"width": grown(-8, -6), "depth": grown(-7, -8, low=2.3)}
    sentence, criteria = completep.judge(measured)
    # By depth muP's optimum moves by 4 and the plain one by 2; at 2^-6 the deep model is still better.
    assert [criterion.holds for criterion in criteria] == [True, True, True, False, False, True]
    assert "at width 8: plain 2^-8, muP 2^-6" in sentence
    assert "at depth 8: plain 2^-7, muP 2^-8" in sentence
    pytest.importorskip("matplotlib")
    completep.draw(measured, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
