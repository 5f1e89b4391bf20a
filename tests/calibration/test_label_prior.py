"""LabelPrior on real heads: the mean of each unit is the logit of its label, whatever the kernel's law."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.initializers import LSUV, BetweenLayer, GradInit, LabelPrior, MetaInit, PriorBias

LABELS = np.repeat([0, 1, 2], [70, 20, 10])
PRIOR = np.log(np.array([71, 21, 11]) / 103)


def mlp(units=3, activation="softmax", kernel="he_normal", bias="initx>LabelPrior"):
    return keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(8, "relu", kernel_initializer=kernel, name="hidden"),
            layers.Dense(units, activation, kernel_initializer=kernel, bias_initializer=bias, name="head"),
        ]
    )


@pytest.fixture
def images(rng):
    return rng.normal(1, 2, size=(100, 6)).astype("float32")


def logits(model, x):
    hidden = ops.convert_to_numpy(ops.stop_gradient(model.layers[0](x)))
    kernel, bias = model.layers[1].get_weights()
    return hidden @ kernel + bias


@pytest.mark.parametrize("kernel", ["he_normal", "zeros", "initx>LSUV", "initx>WithinLayer"])
@pytest.mark.parametrize("redraw", [False, True])
def test_the_mean_of_each_unit_is_the_logit_of_its_class(kernel, redraw, images):
    model = mlp(kernel=kernel)
    report = initx.calibrate(model, (images, LABELS), redraw=redraw, seed=1)
    found = logits(model, images)
    np.testing.assert_allclose(found.mean(0), PRIOR, atol=1e-4)
    row = report.rows[-1]
    assert row.std_after == pytest.approx(found.std(), rel=1e-3, abs=1e-5)
    if kernel == "initx>LSUV":
        # One scale over everything: the std without the means that the labels give.
        old = (found - found.mean(0)) / row.scale
        assert row.std_before**2 >= old.var() * 0.999
    if kernel == "initx>WithinLayer":
        np.testing.assert_allclose(found.std(0), 1, rtol=1e-3)
    if kernel in ("he_normal", "zeros"):
        assert [r.path for r in report.rows] == ["head"]
        assert row.scale == 1


def test_as_the_law_of_calibrate_it_is_for_the_heads_alone(images):
    model = mlp(bias="zeros")
    before = model.get_weights()
    report = initx.calibrate(model, images, "initx>LabelPrior", targets=LABELS)
    assert [row.path for row in report.rows] == ["head"]
    assert [np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)] == [
        True,
        True,
        True,
        False,
    ]


def test_all_labels_count_though_few_rows_are_measured(images):
    model = mlp(kernel="zeros")
    initx.calibrate(model, (images, LABELS), samples=10)
    np.testing.assert_allclose(model.layers[1].get_weights()[1], PRIOR, atol=1e-5)


def test_a_standalone_activation_tells_the_form(images):
    inputs = layers.Input((6,))
    outputs = layers.Softmax()(layers.Dense(3, bias_initializer="initx>LabelPrior", name="head")(inputs))
    model = keras.Model(inputs, outputs)
    initx.calibrate(model, (images, LABELS))
    kernel, bias = model.get_layer("head").get_weights()
    np.testing.assert_allclose((images @ kernel + bias).mean(0), PRIOR, atol=1e-4)


@pytest.mark.parametrize("shape", [(100,), (100, 1)])
def test_class_numbers_may_be_floats_and_lists(shape, images):
    model = mlp(activation=None, kernel="zeros")
    for targets in (LABELS.reshape(shape).astype("float32"), LABELS.reshape(shape).tolist()):
        model.layers[1].bias.assign(np.zeros(3))
        initx.calibrate(model, images, targets=targets)
        np.testing.assert_allclose(model.layers[1].bias, PRIOR, atol=1e-5)


def test_heads_take_their_own_targets(images):
    inputs = layers.Input((6,))
    options = {"kernel_initializer": "zeros", "bias_initializer": "initx>LabelPrior"}
    one = layers.Dense(3, "softmax", name="one", **options)(inputs)
    two = layers.Dense(1, name="two", **options)(inputs)
    model = keras.Model(inputs, [one, two])
    numbers = np.arange(100.0)
    for targets in ([LABELS, numbers], {"one": LABELS, "two": numbers}):
        initx.calibrate(model, images, targets=targets)
        np.testing.assert_allclose(model.get_layer("one").bias, PRIOR, atol=1e-5)
        np.testing.assert_allclose(model.get_layer("two").bias, 49.5, rtol=1e-5)
    with pytest.raises(ValueError, match="`targets` must be a dict with a key for each head"):
        initx.calibrate(model, images, targets=LABELS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "`targets` must be given: `head` takes its mean"),
        ({"targets": LABELS + 1}, "`targets` must be whole numbers from 0 to 2"),
        ({"targets": LABELS[:50]}, "`targets` must hold a row for each of the 100 rows"),
        ({"targets": np.full(100, np.nan)}, "`targets` must be finite"),
    ],
)
def test_targets_that_do_not_fit_are_refused(options, message, images):
    model = mlp()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        initx.calibrate(model, images, **options)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_model_without_a_head_that_has_a_bias_is_refused(images):
    model = keras.Sequential([layers.Input((6,)), layers.Dense(3, use_bias=False)])
    with pytest.raises(ValueError, match="LabelPrior needs a head"):
        initx.calibrate(model, images, LabelPrior(), targets=LABELS)


def test_beside_a_law_over_the_model_two_calls_are_asked_for(images):
    model = mlp(kernel=MetaInit())
    model.compile(loss="sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="cannot be applied in one call"):
        initx.calibrate(model, (images, LABELS))
    initx.calibrate(model, (images, LABELS), LSUV())
    initx.calibrate(model, (images, LABELS), LabelPrior())
    np.testing.assert_allclose(logits(model, images).mean(0), PRIOR, atol=1e-4)


def detector(units=2, bias=None, kernel=0.01):
    """Two convolutions before a head of rare classes, all drawn far too small."""

    def small(seed):
        return keras.initializers.RandomNormal(stddev=kernel, seed=seed)

    convs = (layers.Conv2D(8, 3, activation="relu", kernel_initializer=small(n)) for n in range(2))
    bias = PriorBias(0.01) if bias is None else bias
    head = layers.Conv2D(
        units, 1, activation="sigmoid", kernel_initializer=small(2), bias_initializer=bias, name="head"
    )
    return keras.Sequential([layers.Input((8, 8, 3)), *convs, head])


def head_logits(model, x):
    p = model.predict(x, verbose=0).astype("float64")
    return np.log(p / (1 - p)).reshape(-1, p.shape[-1])


@pytest.mark.parametrize("units", [1, 2])
@pytest.mark.parametrize("bias", [None, keras.initializers.Constant(-4.59512)])
def test_a_prior_stays_what_the_head_predicts(units, bias, rng):
    """About the prior each unit varies as the law says, however often the model is calibrated."""
    model, x = detector(units, bias), rng.normal(2, 1, size=(16, 8, 8, 3)).astype("float32")
    for _ in range(2):
        row = initx.calibrate(model, x, "initx>LSUV").rows[-1]
        found = head_logits(model, x)
        np.testing.assert_allclose(found.mean(0), -4.59512, atol=5e-3)
        assert np.sqrt(found.var(0).mean()) == pytest.approx(1, rel=5e-3)
        assert row.std_after == pytest.approx(found.std(), rel=5e-3)
        assert row.note == ""
        assert row.bias.startswith("`head/bias` holds a prior")
    assert model.predict(x, verbose=0).mean() == pytest.approx(0.01, rel=1)


def test_a_bias_that_was_given_to_a_head_keeps_the_mean_of_its_units(rng):
    model, x = detector(bias="zeros"), rng.normal(2, 1, size=(16, 8, 8, 3)).astype("float32")
    model.get_layer("head").bias.assign([-3.0, -5.0])
    row = initx.calibrate(model, x, "initx>LSUV").rows[-1]
    np.testing.assert_allclose(head_logits(model, x).mean(0), [-3, -5], atol=0.05)  # the kernel is small
    assert "values that were given to it" in row.bias
    assert row.bias in str(initx.calibrate(model, x, "initx>LSUV"))


def test_random_biases_and_those_of_hidden_layers_are_scaled_with_the_kernel(images):
    model = mlp(bias="random_normal", activation=None)
    model.layers[0].bias.assign(np.full(8, -1.0))
    before = [layer.get_weights()[1] for layer in model.layers]
    report = initx.calibrate(model, images)
    for layer, old, row in zip(model.layers, before, report.rows, strict=True):
        np.testing.assert_allclose(layer.get_weights()[1], row.scale * old, rtol=1e-4)
        assert row.bias == ""


@pytest.mark.parametrize("law", [BetweenLayer(), GradInit(steps=20)])
@pytest.mark.parametrize("bias", [PriorBias([0.7, 0.2, 0.1], "softmax"), "zeros"])
def test_a_law_over_the_model_leaves_the_bias_that_holds_a_prior(law, bias, images):
    model = mlp(bias=bias)
    head = model.get_layer("head")
    head.bias.assign(np.log([0.7, 0.2, 0.1]))
    before = model.get_weights()
    row = initx.calibrate(model, (images, LABELS), law, loss="sparse_categorical_crossentropy", seed=1).rows[
        -1
    ]
    np.testing.assert_array_equal(model.get_weights()[3], before[3])
    assert np.abs(model.get_weights()[2] - before[2]).max() > 0
    held = "PriorBias" if bias != "zeros" else "values that were given to it"
    assert row.bias == f"`head/bias` holds a prior ({held}): it is kept, the kernel alone is scaled"


def test_the_labels_prior_outlasts_another_law(images):
    model = mlp()
    initx.calibrate(model, images, LabelPrior(), targets=LABELS)
    initx.calibrate(model, (images, LABELS), LSUV())
    np.testing.assert_allclose(logits(model, images).mean(0), PRIOR, atol=1e-4)


@pytest.mark.parametrize(
    ("units", "activation", "targets", "meaning"),
    [
        (3, "softmax", LABELS, "log of its class' frequency among the targets, from -2.237 to -0.372"),
        (1, "sigmoid", LABELS == 1, "logit of how often its target is 1, -1.35"),
        (1, None, np.arange(100.0), "is the mean of its targets, 49.5"),
    ],
)
def test_the_row_says_which_bias_was_set_and_to_what(units, activation, targets, meaning, images):
    model = mlp(units, activation, kernel="zeros")
    (row,) = initx.calibrate(model, images, targets=targets.astype("float64")).rows
    assert row.note == ""
    assert row.bias.startswith("LabelPrior set `head/bias`: the mean of each unit")
    assert meaning in row.bias
