"""Laws over a whole model: what they measure, that they reach it, and what a failed search leaves behind."""

import importlib.util
import json
import math

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.initializers import BetweenLayer, GradInit, MetaInit, ModelLaw
from support import forked
from support import over_model_gradients as fixed

LAWS = [BetweenLayer(), MetaInit(steps=3), GradInit(steps=3), GradInit("adam", steps=3)]
every_law = pytest.mark.parametrize("law", LAWS, ids=["between", "meta", "sgd", "adam"])


def mlp(activation="relu", depth=4, width=16, bias="random_normal"):
    hidden = [
        layers.Dense(width, activation, bias_initializer=bias, name=f"hidden_{n}") for n in range(depth - 1)
    ]
    model = keras.Sequential(
        [layers.Input((8,)), *hidden, layers.Dense(3, bias_initializer=bias, name="head")]
    )
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.fixture
def pair(rng):
    return rng.normal(size=(60, 8)).astype("float32"), rng.integers(0, 3, 60)


def run(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = forked.run([fixed.__file__], env=forked.backend(backend), check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.tensorflow
@pytest.mark.integration
def test_gradients_agree_on_all_backends():
    """In single precision. MetaInit divides by gradients that may be near to zero: at its own epsilon
    the rounding of the last place moves it by a few parts in 10^4, and with a larger one it agrees, too."""
    found = [fixed.measure(), run("jax"), run("torch")]
    for name in fixed.MEASURES:
        ours, *others = (np.array(measured[name]) for measured in found)
        for theirs in others:
            tolerance = 2e-3 if name == "quotient" else 1e-4
            assert np.abs(ours - theirs).max() <= tolerance * np.abs(ours).max(), name


@pytest.mark.parametrize(("name", "rate"), [("after sgd", 0.1), ("after adam", 1e-3)])
def test_slopes_are_those_of_finite_differences(name, rate):
    """The step is taken as given: only what a scale makes of the loss after it is compared."""
    task = fixed.task_of(fixed.build(), *fixed.data())
    ones = np.ones(len(task.weights))
    slope = np.ravel(task.compile(fixed.MEASURES[name])(ones)[-1])[2]
    shift = 1e-2 * (np.arange(len(ones)) == 2)
    low, high = (
        loss_after(task, ones, moved, rate, "adam" in name) for moved in (ones - shift, ones + shift)
    )
    assert slope * rate == pytest.approx((high - low) / 2e-2, rel=2e-2)


def loss_after(task, scales, moved, rate, adam):
    """The loss on the second part of the data after a step that the first takes at `scales`."""
    tensors = [ops.convert_to_tensor(values, "float32") for values in (scales, moved)]
    slopes, size = fixed._grad_init._slopes(task, task.scaled(tensors[0]), adam)
    steps = [rate * (ops.sign(g) if adam else g / size) for g in slopes]
    values = [value - step for value, step in zip(task.scaled(tensors[1]), steps, strict=True)]
    loss = task.loss(values, rows=slice(task.rows // 3, None))
    return float(ops.convert_to_numpy(loss.detach() if hasattr(loss, "detach") else loss))


def test_the_quotient_of_a_quadratic_is_its_curvature():
    """With g = 2 c^2 w and H g = 2 c^2 g, |(g - H g) / g - 1| is 2 c^2 wherever w is."""
    model = keras.Sequential([layers.Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    x = np.full((6, 1), 0.6, "float32")
    report = initx.calibrate(model, x, MetaInit(steps=1), targets=np.zeros((6, 1)), loss="mse")
    assert report.objective[0] == pytest.approx(2 * 0.36, rel=1e-3)


def test_the_quotient_of_a_cubic_has_its_slope():
    """Of (c w)^3 g is 3 c^3 w^2 and H is 6 c^3 w: the quotient is 6 c^3 w, its slope by w 6 c^3."""
    model = keras.Sequential([layers.Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    x = np.full((6, 1), 0.6, "float32")
    task = fixed.task_of(model, x, x, loss=lambda _, outputs: outputs**3)
    value, slope = task.compile(fixed.MEASURES["quotient"])(np.array([0.7]))
    assert [float(value), slope.item()] == pytest.approx([6 * 0.6**3 * 0.7, 6 * 0.6**3], rel=1e-3)


def test_the_first_step_of_gradinit_is_that_of_sgd(rng):
    """Linear regression by hand: two thirds of the rows give the step, the last two thirds the loss."""
    model = keras.Sequential([layers.Input((4,)), layers.Dense(1, use_bias=False)])
    x, y = rng.normal(size=(9, 4)).astype("float32"), rng.normal(size=(9, 1)).astype("float32")
    w = model.get_weights()[0]
    g = 2 * x[:6].T @ (x[:6] @ w - y[:6]) / 6
    for law, step in (
        (GradInit(learning_rate=0.05, max_norm=100.0, steps=1), 0.05 * g / np.linalg.norm(g)),
        (GradInit("adam", learning_rate=0.05, steps=1), 0.05 * np.sign(g)),
    ):
        report = initx.calibrate(model, x, law, targets=y, loss="mse")
        assert report.objective[0] == pytest.approx(np.mean((x[3:] @ (w - step) - y[3:]) ** 2), rel=1e-4)


@pytest.mark.parametrize("bias", ["zeros", "random_normal"])
def test_between_layers_rates_are_equal_and_outputs_stay(bias, pair):
    model = mlp(bias=bias)
    for number, layer in enumerate(model.layers):
        layer.kernel.assign(layer.kernel * 3.0 ** (number - 1))
    x, y = pair
    before = model.predict(x, verbose=0)
    report = initx.calibrate(model, x, BetweenLayer(steps=20, tolerance=1e-3), targets=y)
    assert report.objective[0] > 1
    assert report.objective[1] < 1e-3
    np.testing.assert_allclose(
        model.predict(x, verbose=0), before, rtol=1e-3, atol=1e-3 * np.abs(before).max()
    )
    task = fixed.task_of(model, x, y)
    rates = task.compile(fixed.MEASURES["rates"])(np.ones(len(task.weights)))[task.is_kernel]
    np.testing.assert_allclose(rates, rates.mean(), rtol=2e-3)


def test_between_layers_needs_no_targets(pair):
    model = mlp()
    report = initx.calibrate(model, pair[0], "initx>BetweenLayer", seed=1)
    assert report.objective[1] < 0.01 < report.objective[0]


def test_metainit_scales_kernels_alone_and_lessens_the_quotient(pair):
    model = mlp("tanh")
    before = model.get_weights()
    report = initx.calibrate(model, pair, MetaInit(steps=40))
    assert report.objective[1] < 0.9 * report.objective[0]
    for old, new in zip(before, model.get_weights(), strict=True):
        ratio = new / np.where(old == 0, 1, old)
        assert np.ptp(ratio[old != 0]) < 1e-5 if old.ndim == 2 else np.array_equal(old, new)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_gradinit_mends_a_model_of_wrong_scales(optimizer, pair):
    """Training after it starts where training from the wrong scales does not come to."""
    model = mlp("tanh", depth=5)
    for number, layer in enumerate(model.layers):
        layer.kernel.assign(layer.kernel * (2.0 if number % 2 else 0.5))
    report = initx.calibrate(model, pair, GradInit(optimizer, learning_rate=0.01, steps=60, scale_rate=0.03))
    assert report.objective[1] < report.objective[0]
    assert report.steps == 60


def test_gradinit_brings_the_gradient_within_its_bound(pair):
    model = mlp()
    for layer in model.layers:
        layer.kernel.assign(layer.kernel * 4)
    x, y = pair
    task = fixed.task_of(model, x, y)
    size = task.compile(fixed.MEASURES["after sgd"])(np.ones(len(task.weights)))[1]
    assert size > 5
    initx.calibrate(model, pair, GradInit(max_norm=float(size) / 3, steps=100, scale_rate=0.03))
    task = fixed.task_of(model, x, y)
    after = task.compile(fixed.MEASURES["after sgd"])(np.ones(len(task.weights)))[1]
    assert after <= size / 3 * 1.0001


def families():
    sequence = layers.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8)(sequence)
    x = layers.MultiHeadAttention(2, 4)(x, x)
    x = layers.LayerNormalization()(x)
    text = keras.Model(sequence, layers.Dense(3)(layers.LSTM(5)(x)))
    image = keras.Sequential(
        [
            layers.Input((8, 8, 2)),
            layers.SeparableConv2D(4, 3, activation="tanh"),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )
    rng = np.random.default_rng(0)
    return {
        "text": (text, rng.integers(0, 20, (12, 6)).astype("int32")),
        "image": (image, rng.normal(size=(12, 8, 8, 2)).astype("float32")),
    }


@every_law
@pytest.mark.parametrize("family", ["text", "image"])
def test_every_kind_of_layer_has_gradients(law, family):
    model, x = families()[family]
    report = initx.calibrate(
        model,
        x,
        law,
        targets=np.arange(12) % 3,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    assert np.isfinite(report.objective).all()
    assert report.steps <= law.steps
    assert all(row.scale > 0 for row in report.rows)
    assert np.isfinite([w.sum() for w in model.get_weights()]).all()


@every_law
def test_layers_may_name_the_law_and_the_model_its_loss(law, pair):
    model = mlp()
    for layer in model.layers:
        layer.kernel_initializer = law
    report = initx.calibrate(model, pair)
    assert report.objective is not None
    assert "objective" in str(report)
    assert report.to_dict()["calibrated"] == 4


def test_redraw_draws_the_base_and_a_seed_fixes_it(pair):
    results = []
    for _ in range(2):
        model = mlp(bias="zeros")
        initx.calibrate(model, pair, GradInit(steps=2), redraw=True, seed=5)
        results.append(model.get_weights())
    assert all(np.allclose(a, b, rtol=1e-5) for a, b in zip(*results, strict=True))


def test_exclude_and_frozen_leave_weights(pair):
    model = mlp()
    model.layers[0].trainable = False
    before = model.get_weights()
    report = initx.calibrate(model, pair, GradInit(steps=5), exclude="head")
    after = model.get_weights()
    same = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert same == [True, True, False, False, False, False, True, True]
    assert [row.note for row in report.rows][:2] == ["frozen: left as it is", ""]


class Recorded(ModelLaw):
    """Candidates of a test's own: halves, then thirds, and so on; an exception after some of them."""

    def __init__(self, error=None, after=3, values=(3.0, 1.0, 2.0), **options):
        super().__init__(**options)
        self.error, self.after, self.values = error, after, values

    def search(self, task):
        for number, value in enumerate(self.values):
            if number == self.after:
                break
            yield np.full(len(task.weights), 1 / (number + 1)), (value,)
        if self.error:
            raise self.error


def test_ctrl_c_gives_the_best_so_far(pair):
    model = mlp()
    before = model.get_weights()
    report = initx.calibrate(model, pair, Recorded(KeyboardInterrupt()))
    assert report.interrupted
    assert report.steps == 3
    assert "interrupted" in str(report)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_allclose(new, old / 2, rtol=1e-6)


@pytest.mark.parametrize(
    "law",
    [Recorded(KeyboardInterrupt(), after=0), Recorded(RuntimeError("no")), Recorded(values=(math.nan,))],
)
@pytest.mark.parametrize("redraw", [False, True])
def test_a_search_that_finds_nothing_leaves_every_weight(law, redraw, pair):
    model = mlp()
    before = model.get_weights()
    with pytest.raises((KeyboardInterrupt, RuntimeError, ValueError)):
        initx.calibrate(model, pair, law, redraw=redraw, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_steps_bound_a_search_without_end(pair):
    class Endless(Recorded):
        def search(self, task):
            while True:
                yield np.ones(len(task.weights)), (1.0,)

    assert initx.calibrate(mlp(), pair, Endless(steps=7)).steps == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "`targets` must be given: `MetaInit` takes gradients of a loss"),
        ({"targets": np.zeros(60)}, "`loss` must be given, or the model must be compiled with one"),
        ({"targets": np.zeros(5), "loss": "mse"}, "`targets` must hold a row for each of the 60 rows"),
    ],
)
def test_what_a_law_lacks_is_named(options, message, pair):
    model = keras.Sequential([layers.Input((8,)), layers.Dense(1)])
    with pytest.raises(ValueError, match=message):
        initx.calibrate(model, pair[0], "initx>MetaInit", **options)


def test_laws_of_several_kinds_are_refused(pair):
    model = mlp()
    model.layers[0].kernel_initializer = MetaInit()
    model.layers[1].kernel_initializer = initx.initializers.LSUV()
    with pytest.raises(ValueError, match="of several kinds"):
        initx.calibrate(model, pair)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MetaInit(momentum=1.0), "`momentum` must be in"),
        (lambda: MetaInit(steps=0), "`steps` must be an int"),
        (lambda: GradInit("rmsprop"), "`optimizer` must be one of"),
        (lambda: GradInit(max_norm=-1.0), "`max_norm` must be a positive"),
        (lambda: BetweenLayer(tolerance=0.0), "`tolerance` must be a positive"),
    ],
)
def test_arguments_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_the_loss_is_that_of_the_compiled_model(pair):
    """With its regularization: what `evaluate` says is what the law is given."""
    inputs = layers.Input((8,))
    hidden = layers.Dense(6, "tanh", kernel_regularizer=keras.regularizers.L2(0.1))(inputs)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(hidden))
    model.compile(loss="sparse_categorical_crossentropy")
    x, y = pair
    task = fixed.task_of(model, x, y)
    value = task.compile(lambda task, scales: task.loss(task.scaled(scales)))(np.ones(len(task.weights)))
    assert float(value) == pytest.approx(model.evaluate(x, y, batch_size=60, verbose=0), rel=1e-5)
