"""The verdict and figure of `adapters.py` from runs that are planted, and tiny runs of all starts."""

import importlib
import pathlib

import numpy as np
import pytest
from keras import ops

pytestmark = pytest.mark.tensorflow  # once, from one of the suites
EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
RATES = (2.0**-8, 2.0**-6, 2.0**-4)
LOW, MIDDLE, HIGH = RATES


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES / "reproduce")
    return importlib.import_module("adapters")


def planted(script, tested, apart=0.5, early=0.1, best=None):
    """Rank 4 of both tasks: `tested` are text losses at the tuned rates, by start in the script's order.

    At the middle rate for all, the starts whose own rate is another lose `apart`; so do errors on images.
    """
    best = best or {}
    tuning, runs = {}, {}
    for task in (script.TEXT, script.IMAGES):
        for start, loss in zip(script.STARTS, tested, strict=True):
            own = best.get(start, MIDDLE)
            for rate in RATES:
                # The rows for validation favour the tuned rate; the tested ones would favour others.
                tuning[task, 4, start, rate] = script.Run(
                    9.0, 1 if rate == own else 2, 0.8 - 0.1 * (rate != own)
                )
                at = loss if rate == own else loss + apart
                first = at - early * (start == script.LORA)
                runs[task, 4, start, rate] = [
                    script.Run(
                        first + 0.01 * (seed - 1), at + 0.01 * (seed - 1), 1 - (at + 0.01 * (seed - 1)) / 100
                    )
                    for seed in range(3)
                ]
    return script.Measured(dict.fromkeys((script.TEXT, script.IMAGES), script.Run(3, 3, 0.7)), tuning, runs)


@pytest.mark.parametrize(
    ("worst", "apart", "early", "held"),
    [
        (2.02, 0.5, 0.1, [True, True, True, True, True]),  # text 1 %, images 0.02 points
        (2.06, 0.5, 0.1, [False, True, True, True, True]),  # text 3 %
        (5.00, 0.5, 0.1, [False, True, True, False, True]),  # text 150 %, images 3 points
        (2.02, 0.0, 0.1, [True, False, True, True, False]),  # one rate serves all
        (2.02, 0.5, 0.0, [True, True, False, True, True]),  # true fans change nothing at first
        (2.02, 0.5, -0.1, [True, True, False, True, True]),  # true fans are slower
    ],
)
def test_the_verdict_follows_from_spreads_and_the_lead_at_first(script, worst, apart, early, held):
    tested = [2.0] * 7 + [worst]
    measured = planted(script, tested, apart, early, {"LoRAGA": LOW})
    sentence, criteria = script.judge(measured)
    assert [criterion.holds for criterion in criteria] == held
    assert f"LoRAGA {worst:.4g} (2^-8); spread" in sentence
    assert "at 2^-6 for all" in sentence
    assert "text, rank 4: 3 before; " in sentence
    assert "images, rank 4: 30 before; " in sentence
    assert "LoRAGA worst" in sentence or not apart


def test_a_spread_is_taken_by_seed_between_the_best_and_the_worst_mean(script):
    measured = planted(script, [2.0, 1.9, 2.0, 2.0, 2.1, 2.0, 2.0, 2.0])
    found = script.spread(measured, script.TEXT, 4, dict.fromkeys(script.STARTS, MIDDLE))
    assert (found.starts[0], found.starts[-1]) == (script.LORA, "PiSSA")
    expected = [100 * (0.2 / (1.9 + 0.01 * (seed - 1))) for seed in range(3)]
    assert found.by_seed == pytest.approx(expected)
    found = script.spread(measured, script.IMAGES, 4, dict.fromkeys(script.STARTS, MIDDLE))
    assert found.by_seed == pytest.approx([0.2] * 3)


def test_rates_are_chosen_by_the_rows_for_validation_and_the_common_one_by_all_starts(script):
    best = dict.fromkeys([*script.STARTS][:3], LOW) | dict.fromkeys([*script.STARTS][3:], HIGH)
    for task in (script.TEXT, script.IMAGES):
        tuned, common = script.choose_rates(planted(script, [2.0] * 8, best=best), task, 4)
        assert tuned == best
        assert common == HIGH


def test_the_figure_marks_the_tuned_rates_and_the_common_one(script, tmp_path, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figures = []
    monkeypatch.setattr(pyplot, "close", figures.append)
    script.draw(planted(script, [2.0] * 8, best={"PiSSA": LOW}), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    by_rate = figures[0].axes[:2]
    for axes in by_rate:
        stars = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "*"]
        assert stars == [LOW if start == "PiSSA" else MIDDLE for start in script.STARTS]
        (common,) = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"]
        assert common == MIDDLE


@pytest.fixture
def models(script):
    """A decoder that is not trained, with adapters of rank 2, on rows of random characters."""
    adapted, decoder = script.adapted, script.decoder

    def build():
        return decoder.build(48, 1, head_width=12, length=8)

    generator = np.random.default_rng(0)
    x, y = generator.integers(1, 98, (2, 320, 8), "int32")
    task = adapted.Task(build, build().get_weights(), ("*query", "*value"), 4, (x, y), (x, y), (x[:9], y[:9]))
    return [script.Adapted(task, 14, 2, start) for start in (script.LORA, script.STABLE)]


def test_all_starts_begin_at_the_trained_model_and_train_adapters_alone(script, models):
    x, _ = rows = models[0].task.tested
    original = models[0].task.build()
    original.set_weights(models[0].task.weights)
    expected = ops.convert_to_numpy(original(x))
    assert models[0].before(rows) == models[1].before(rows)
    found = {}
    for start in script.STARTS:
        one = models[start == script.STABLE]
        found[start] = one.run(start, 2.0**-6, 1, rows)
        assert np.isfinite(found[start]).all()
        before, after = one.starts[start, 1], one.model.get_weights()
        for weight, *values in zip(one.model.weights, before, after, strict=True):
            assert np.array_equal(*values) != ("lora_" in weight.path), (start, weight.path)
        one.model.set_weights(before)
        np.testing.assert_allclose(ops.convert_to_numpy(one.model(x)), expected, atol=1e-4)
    for start in (script.KERAS, script.STABLE):  # the runs of other starts left no trace
        again = models[start == script.STABLE].run(start, 2.0**-6, 1, rows)
        assert again == pytest.approx(found[start], rel=1e-5), start
    alphas = [one.model.get_layer("block1_attention").query_dense.lora_alpha for one in models]
    assert alphas == pytest.approx([2, 2 * 2**0.5])


def test_keras_own_start_is_that_of_enable_lora(script, models):
    one = models[0].model
    script.adapted.draw_as_keras(one, 3)
    fresh = script.adapted.with_adapters(models[0].task, 2)  # as `enable_lora` leaves them
    drawn, kept = (
        [ops.convert_to_numpy(weight) for weight in model.trainable_variables] for model in (one, fresh)
    )
    for found, of_keras in zip(drawn, kept, strict=True):
        assert found.shape == of_keras.shape
        if found.ndim == 2:
            assert not found.any()
            assert not of_keras.any()
        else:
            bound = (6 / (48 * 4)) ** 0.5  # Keras multiplies the fan of a query by the heads
            for values in (found, of_keras):
                assert 0.9 * bound < np.abs(values).max() <= bound
    assert not np.array_equal(drawn[0], drawn[2])  # queries and values are drawn apart
