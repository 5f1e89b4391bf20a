"""LabelPrior on real heads: the mean of each unit is the logit of its label, whatever the kernel's law."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.initializers import LSUV, LabelPrior, MetaInit

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
