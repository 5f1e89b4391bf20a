"""`coordinates`: what it measures, the planted mistakes that it finds, and what it leaves as it was."""

import dataclasses
import math

import keras
import numpy as np
import pytest
from keras import layers
from scipy.stats import norm, t

import keras_initx as initx
from keras_initx.scaling import CoordinateError
from keras_initx.scaling._findings import find
from keras_initx.scaling._rows import Growth, Slope
from keras_initx.strategies import ByRole, MuP
from support.widths import LABELS, NEXT, TOKENS, X, decoder, loss, net

once = pytest.mark.tensorflow  # what is tested has no backend: once, from one of the suites
WIDTHS = [64, 128, 256, 512]
FEW = {"loss": loss(), "steps": 2, "seeds": 1}


def check(initializer, widths=(64, 128, 256), build=net, **options):
    return initx.coordinates(build, widths, initializer, (X, LABELS), **FEW | options)


def slope(report, path, step, name="change"):
    return next(getattr(s, name) for s in report.slopes if (s.path, s.step) == (path, step))


def found(report):
    return {one.path: one for one in report.findings}


def drawn(change):
    """An initializer that draws by muP, and then has `change` plant a mistake."""

    def initializer(model, seed):
        report = initx.initialize(model, MuP(base=net(64)), seed=seed)
        return change(model, report, seed)

    return initializer


@pytest.mark.parametrize(
    ("build", "data"),
    [
        pytest.param(net, (X, LABELS), id="net"),
        pytest.param(decoder, (TOKENS, NEXT), id="decoder", marks=once),  # a minute of compilation on JAX
    ],
)
def test_under_mup_no_value_and_no_change_grows(build, data):
    report = initx.coordinates(build, WIDTHS, "MuP", data, loss=loss())
    assert report.findings == ()
    report.check()
    hidden = [s for s in report.slopes if s.path not in ("out", "head")]
    assert max(abs(s.value) for s in hidden) < 0.1
    # Adam's steps align with the signal a little less at great width: the changes fall, by less than 0.2.
    assert all(-0.2 < s.change < 0.1 for s in hidden if s.step)
    [output] = {row.path for row in report.rows} & {"out", "head"}
    assert slope(report, output, 0, "value") == pytest.approx(-0.5, abs=0.15)
    assert -0.25 < slope(report, output, 1) < 0.1


@once
def test_a_plain_start_with_adam_fails_the_check():
    report = check(ByRole())
    assert set(found(report)) == {"first", "second", "out"}
    assert {one.kind for one in report.findings} == {"grows"}
    assert slope(report, "first", 1) > 0.5
    for path in ("first", "second", "out"):
        assert "learning rate is not scaled" in found(report)[path].message
        assert "MuP(base=build(64)" in found(report)[path].cure
        assert "model.compile(report.optimizer(optimizer), loss)" in found(report)[path].cure
    assert "initial weights" in found(report)["out"].message
    assert "initial weights" not in found(report)["first"].message
    with pytest.raises(CoordinateError, match="first.*its change since the start grows as width") as error:
        report.check()
    assert {one.path for one in error.value.findings} == {"first", "second", "out"}
    report.check(max_slope=2)
    report.check(allow="grows")


@once
def test_rates_that_are_not_applied_are_named():
    report = check(drawn(lambda *_: None))
    assert set(found(report)) == {"first", "second", "out"}
    for one in report.findings:
        assert "learning rate is not scaled" in one.message
        assert "initial weights" not in one.message
        assert "report.optimizer(optimizer)" in one.cure


@once
def test_an_output_layer_that_is_not_scaled_is_named():
    def larger(model, report, seed):
        kernel = model.get_layer("out").kernel
        kernel.assign(kernel * (kernel.shape[0] / 64) ** 0.5)
        return report

    report = check(drawn(larger), seeds=2)
    assert set(found(report)) == {"out"}
    one = found(report)["out"]
    assert "initial weights" in one.message
    assert "learning rate" not in one.message
    assert "initx.strategies.MuP(base=build(64)" in one.cure


@once
@once
def test_a_rate_that_other_layers_hide_is_named():
    """The hidden layers of a deep net change the logits most, so that these do not show the head's rate."""

    def build(width):
        hidden = [layers.Dense(width, "relu", name=f"h{n}") for n in range(4)]
        return keras.Sequential([layers.Input((8,)), *hidden, layers.Dense(5, name="out")], name="net")

    def draw(model, seed):
        report = initx.initialize(model, MuP(base=build(64)), seed=seed)
        rows = report.multipliers.rows
        plain = tuple(
            dataclasses.replace(r, learning_rate=1.0) if "out/kernel" in r.path else r for r in rows
        )
        return dataclasses.replace(report, multipliers=dataclasses.replace(report.multipliers, rows=plain))

    rng = np.random.default_rng(2)
    data = rng.normal(size=(16, 8)).astype("float32"), rng.integers(0, 5, 16)
    planted = initx.coordinates(build, WIDTHS, draw, data, loss=loss(), steps=2)
    [only] = planted.findings
    assert only.path == "out"
    assert "its learning rate is not scaled" in only.message
    assert "report.optimizer(optimizer)" in only.cure
    healthy = initx.coordinates(build, WIDTHS, "MuP", data, loss=loss(), steps=2)
    healthy.check()
    rates = {growth.path: growth.rate for growth in healthy.growths}
    assert rates == pytest.approx({"h0": 0, "h1": -1, "h2": -1, "h3": -1, "out": -1})


def test_a_power_beyond_the_law_is_told_without_a_slope_but_not_at_a_rate_that_is_scaled():
    def growth(updates, rate, kind="output", law=-0.5):
        return Growth("out", "dense", kind, law, law, updates, rate)

    def kinds(*growths, seeds=2):
        return [one.kind for one in find((), growths, (), (64, 128), "Adam", seeds, 0.1, 0.4)]

    scaled = Growth("hidden", "dense", "hidden", 0.0, 0.0, 0.0, -1.0)
    assert kinds(scaled, growth(0.0, 0.0)) == ["unscaled"]
    fine = [growth(-0.2, 0.0), growth(0.0, -1.0), growth(0.0, None), growth(1.0, 0.0, "input", 0.5)]
    assert [kinds(scaled, one) for one in fine] == [[]] * 4
    # Where no rate goes with the width, the limits of the slopes decide alone.
    assert kinds(growth(0.0, 0.0)) == []


def test_few_seeds_know_less_than_their_standard_error_says():
    """One standard error of two seeds is exceeded by chance in a quarter of all cases, not in a sixth."""

    def kinds(power, seeds):
        slope = Slope("h", "dense", 1, power, 0.05, 1.0, None, None, None)
        return [one.kind for one in find((slope,), (), (), (64, 128), "Adam", seeds, 0.1, 0.4)]

    factor = t.ppf(norm.cdf(1), 1)
    assert factor == pytest.approx(1.84, abs=0.01)
    assert kinds(0.1 + 0.05 * factor + 0.001, 2) == ["grows"]
    assert kinds(0.1 + 0.05 * factor - 0.001, 2) == []
    assert kinds(0.1 + 0.06, 1000) == ["grows"]


def test_a_layer_left_out_is_named_and_those_behind_it_point_to_it():
    def constant(model, report, seed):
        kernel = model.get_layer("first").kernel
        kernel.assign(keras.random.normal(kernel.shape, stddev=0.1, seed=seed))
        return report

    report = check(drawn(constant))
    first, *others = report.findings
    assert first.path == "first"
    assert "initial weights" in first.message
    assert slope(report, "first", 0, "value") == pytest.approx(0.5, abs=0.1)
    assert {one.path for one in others} == {"second", "out"}
    assert {one.cure for one in others} == {"mend `first` first"}


@once
def test_attention_by_the_root_of_growing_heads_is_named():
    def build(width):
        return decoder(width, heads=4)

    report = initx.coordinates(build, [64, 128, 256], "MuP", (TOKENS, NEXT), **FEW)
    first, *others = report.findings
    assert (first.path, first.kind) == ("attention/logits", "grows")
    assert "num_heads=width // 16, key_dim=16" in first.cure
    assert all(one.cure == "mend `attention/logits` first" for one in others)


@once
def test_layers_that_do_not_learn_in_the_limit_vanish():
    def build(width):  # as for Adam, whose steps do not shrink with the gradient
        model = net(width)
        model.compile(keras.optimizers.SGD(0.1 * 64 / width), loss())
        return model

    def draw(model, seed):
        initx.initialize(model, MuP(base=net(64)), seed=seed)

    report = check(draw, build=build, loss=None)
    assert {one.kind for one in report.findings} == {"vanishes"}
    assert {"in", "first", "second"} <= set(found(report))
    assert "it does not learn" in found(report)["first"].message
    with pytest.raises(CoordinateError, match="first.*does not learn"):
        report.check()
    report.check(max_fall=None)


@once
def test_gradients_that_an_unscaled_head_makes_larger_under_sgd_are_no_wrong_rates():
    def larger(model, seed):
        report = initx.initialize(model, MuP(base=net(64), optimizer="sgd"), seed=seed)
        kernel = model.get_layer("out").kernel
        kernel.assign(kernel * (kernel.shape[0] / 64) ** 0.5)
        return report

    report = check(larger, optimizer=keras.optimizers.SGD(0.1), steps=1)
    first, *others = report.findings
    assert first.path == "out"
    assert "initial weights" in first.message
    assert {one.cure for one in others} == {"mend `out` first"}


def test_the_numbers_are_those_of_a_model_trained_by_hand():
    def build(width):
        model = keras.Sequential(
            [
                layers.Input((16,)),
                layers.Dense(width, name="in"),
                layers.ReLU(),
                layers.Dense(width, name="first"),
                layers.ReLU(),
                layers.Dense(10, name="out"),
            ]
        )
        model.compile(keras.optimizers.Adam(0.01), loss())
        return model

    report = initx.coordinates(build, [8, 16], ByRole(), (X, LABELS), steps=3, seeds=[5], samples=32)
    for width in (8, 16):
        model = build(width)
        initx.initialize(model, ByRole(), seed=5)
        inner = keras.Model(model.inputs, [model.get_layer(name).output for name in ("in", "first", "out")])
        start = [np.array(array) for array in inner.predict(X, verbose=0)]
        for step in range(4):
            if step:
                model.train_on_batch(X, LABELS)
            for path, before, now in zip(
                ("in", "first", "out"), start, inner.predict(X, verbose=0), strict=True
            ):
                [row] = [r for r in report.rows if (r.width, r.path, r.step) == (width, path, step)]
                assert row.value == pytest.approx(np.abs(now).mean(), rel=1e-5)
                assert row.change == pytest.approx(np.abs(now - before).mean(), rel=1e-4, abs=1e-7)


def test_the_logits_of_attention_are_those_of_the_layer():
    def build(width):
        x = layers.Input((5, 6))
        y = layers.MultiHeadAttention(width // 4, 4, name="attention")(x, x)
        return keras.Model(x, layers.Dense(1, name="out")(y))

    x = np.random.default_rng(0).normal(size=(3, 5, 6)).astype("float32")
    expected = []

    def draw(model, seed):
        initx.initialize(model, ByRole(), seed=seed)
        attention = model.get_layer("attention")
        query, key = (
            keras.ops.convert_to_numpy(dense(x)) for dense in (attention.query_dense, attention.key_dense)
        )
        logits = np.einsum("bthd,bshd->bhts", query, key) / 2
        scores = keras.ops.convert_to_numpy(attention(x, x, return_attention_scores=True)[1])
        softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        np.testing.assert_allclose(softmax, scores, rtol=1e-3, atol=1e-5)
        expected.append(np.abs(logits).mean())

    data = x, np.zeros((3, 5, 1), "float32")
    report = initx.coordinates(build, [8, 16], draw, data, loss="mse", steps=1, seeds=1)
    rows = [row.value for row in report.rows if row.path == "attention/logits" and row.step == 0]
    assert rows == pytest.approx(expected, rel=1e-4)


def test_equal_seeds_give_equal_reports_and_leave_random_generators_alone():
    def build(width):
        return keras.Sequential(
            [layers.Input((16,)), layers.Dense(width), layers.Dropout(0.5), layers.Dense(10)]
        )

    def rows():
        report = initx.coordinates(build, [8, 16], "MuP", (X, LABELS), loss=loss(), steps=2)
        assert [row.path for row in report.rows[:2]] == ["dense", "dense_1"]
        return report.rows

    keras.utils.set_random_seed(3)
    expected = float(keras.random.uniform(()))
    keras.utils.set_random_seed(3)
    first = rows()
    assert float(keras.random.uniform(())) == expected
    layers.Dense(1)  # moves the counts of names
    assert first == rows()
    of_seeds = {row.seed: row.value for row in first if row.width == 8 and row.step == 0}
    assert of_seeds[0] != of_seeds[1]


@once
def test_a_second_seed_starts_from_nothing_that_the_first_has_left():
    both = check(ByRole(), [8, 16], seeds=[4, 7])
    alone = check(ByRole(), [8, 16], seeds=[7])
    assert [row for row in both.rows if row.seed == 7] == list(alone.rows)


def test_the_users_models_and_optimizer_stay_as_they_are():
    mine = net(16)
    before = [keras.ops.convert_to_numpy(v).copy() for v in mine.weights]
    optimizer = keras.optimizers.Adam(0.01)
    check(MuP(base=mine), [16, 32], optimizer=optimizer)
    assert not optimizer.built
    assert not mine.compiled
    for old, variable in zip(before, mine.weights, strict=True):
        np.testing.assert_array_equal(old, keras.ops.convert_to_numpy(variable))
    mine.predict(X, verbose=0)


@once
def test_compiled_models_keep_their_loss_and_a_copy_of_their_optimizer():
    shared = keras.optimizers.SGD(0.5)

    def build(width):
        model = net(width)
        model.compile(shared, loss(), metrics=["accuracy"])
        return model

    report = initx.coordinates(build, [8, 16], "MuP", (X, LABELS), steps=1, seeds=1)
    assert report.optimizer == "SGD with the learning rate 0.5"
    assert not shared.built
    assert check("MuP", [8, 16]).optimizer == "Adam with the learning rate 0.001"


def test_a_subclassed_model_without_weights_is_called_on_the_data():
    class Own(keras.Model):
        def __init__(self, width):
            super().__init__()
            self.hidden, self.out = layers.Dense(width, "relu", name="hidden"), layers.Dense(10, name="out")

        def call(self, x):
            return self.out(self.hidden(x))

    report = initx.coordinates(Own, [8, 16], ByRole(), (X, LABELS), **FEW)
    assert {row.path for row in report.rows} == {"hidden", "out"}


@once
def test_tied_logits_are_read_at_the_outputs():
    class Tied(keras.Model):
        def __init__(self, width):
            super().__init__()
            self.embedding = layers.Embedding(32, width, name="tokens")
            self.hidden = layers.Dense(width, "relu", name="hidden")

        def call(self, x):
            x = self.hidden(self.embedding(x))
            return keras.ops.matmul(x, keras.ops.transpose(self.embedding.embeddings))

    report = initx.coordinates(Tied, [64, 128, 256], "MuP", (TOKENS, NEXT), **FEW)
    assert "outputs" in {row.path for row in report.rows}
    one = found(report)["outputs"]
    assert one.kind == "grows"
    assert "logits * (64 / width)" in one.cure


@once
def test_a_loss_that_is_not_finite_is_told_with_its_place():
    report = check(ByRole(), [8, 16], optimizer=keras.optimizers.SGD(1e30), steps=3)
    assert [(d.width, d.seed) for d in report.diverged] == [(8, 0), (16, 0)]
    first = report.findings[0]
    assert (first.path, first.kind) == ("", "diverges")
    assert f"width=8, seed=0, step={report.diverged[0].step}" in first.message
    assert all(s.value is None for s in report.slopes if s.step == 3)
    assert "NaN" not in report.to_json()
    with pytest.raises(CoordinateError, match="not finite"):
        report.check()


@once
def test_the_standard_error_is_that_of_the_slopes_over_the_seeds():
    report = check(ByRole(), [8, 16, 32], seeds=4)
    slopes = []
    for seed in range(4):
        sizes = [r.change for r in report.rows if (r.path, r.step, r.seed) == ("first", 1, seed)]
        slopes.append(np.polyfit(np.log([8, 16, 32]), np.log(sizes), 1)[0])
    assert slope(report, "first", 1) == pytest.approx(np.mean(slopes))
    error = slope(report, "first", 1, "change_error")
    assert error == pytest.approx(np.std(slopes, ddof=1) / math.sqrt(4))
    assert slope(check(ByRole(), [8, 16]), "first", 1, "change_error") is None
