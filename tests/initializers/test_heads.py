import json

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initx.initializers._heads import LabelPrior, PriorBias

CLASSES = [0.6, 0.3, 0.09, 0.01]


def array(tensor):
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float64")))


@pytest.mark.parametrize("prior", [1e-6, 0.01, 0.5, 0.999, CLASSES])
@pytest.mark.parametrize(
    ("dtype", "epsilon"), [("float32", 2**-23), ("float16", 2**-10), ("bfloat16", 2**-7)]
)
def test_sigmoid_of_the_bias_is_the_prior(prior, dtype, epsilon):
    bias = array(PriorBias(prior)((4,), dtype))
    exact = np.log(prior) - np.log1p(-np.asarray(prior))
    # d sigmoid / sigmoid = (1 - sigmoid) db, and rounding moves b by at most b * epsilon.
    np.testing.assert_allclose(
        1 / (1 + np.exp(-bias)), np.full(4, prior), rtol=2 * epsilon * (1 + abs(exact).max())
    )


@pytest.mark.parametrize("scale", [1, 1.0009, 0.9991])
def test_softmax_of_the_bias_is_the_prior(scale):
    bias = PriorBias([scale * p for p in CLASSES], "softmax")((4,))
    np.testing.assert_allclose(array(ops.softmax(bias)), CLASSES, rtol=1e-5)
    np.testing.assert_allclose(array(bias), np.log(CLASSES), rtol=1e-5)


def test_first_loss_of_a_softmax_head_is_the_entropy_of_the_classes():
    labels = np.repeat(range(4), [60, 30, 9, 1])
    head = layers.Dense(
        4, "softmax", kernel_initializer="zeros", bias_initializer=PriorBias(CLASSES, "softmax")
    )
    predicted = head(np.random.default_rng(0).normal(size=(100, 5)).astype("float32"))
    loss = array(keras.losses.SparseCategoricalCrossentropy()(labels, predicted))
    assert loss == pytest.approx(-np.dot(CLASSES, np.log(CLASSES)), rel=1e-4)


def test_first_loss_of_a_sigmoid_head_is_the_entropy_of_the_rates():
    rates = np.array([0.01, 0.2, 0.5])
    labels = (np.arange(100)[:, None] < 100 * rates).astype("float32")
    head = layers.Dense(3, kernel_initializer="zeros", bias_initializer=PriorBias(rates))
    predicted = head(np.ones((100, 5), "float32"))
    loss = array(keras.losses.BinaryCrossentropy(from_logits=True)(labels, predicted))
    assert loss == pytest.approx(-np.mean(rates * np.log(rates) + (1 - rates) * np.log1p(-rates)), rel=1e-4)


def test_rates_lie_along_the_last_axis():
    np.testing.assert_array_equal(array(PriorBias(CLASSES)((2, 4))), [array(PriorBias(CLASSES)((4,)))] * 2)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (), (2, 3)])
def test_single_rate_fits_any_shape(shape):
    assert PriorBias(0.1)(shape).shape == shape


@pytest.mark.parametrize(
    "bad", [0, 1, -0.1, 1.5, float("nan"), float("inf"), [0.5, 0.0], [0.5, float("nan")], ["a"]]
)
def test_prior_is_a_probability(bad):
    with pytest.raises(ValueError, match=r"`prior` must be in \(0, 1\), ends excluded. Received: prior="):
        PriorBias(bad)


@pytest.mark.parametrize("bad", [None, "half", []])
def test_prior_is_numeric(bad):
    with pytest.raises(
        ValueError, match="`prior` must be a number or a sequence of numbers. Received: prior="
    ):
        PriorBias(bad)


def test_softmax_needs_a_probability_for_each_class():
    with pytest.raises(
        ValueError, match='`prior` must be a sequence .*activation="softmax". Received: prior=0.01'
    ):
        PriorBias(activation="softmax")


@pytest.mark.parametrize("bad", [[0.5, 0.3], [0.5, 0.502], [0.9, 0.9]])
def test_softmax_probabilities_sum_to_one(bad):
    with pytest.raises(ValueError, match="`prior` must sum to 1 .*with sum"):
        PriorBias(bad, "softmax")


def test_activation_is_known():
    with pytest.raises(ValueError, match=r"`activation` must be one of \['sigmoid', 'softmax'\]"):
        PriorBias(activation="relu")


@pytest.mark.parametrize("shape", [(3,), (4, 3), (0,), ()])
def test_number_of_rates_is_that_of_the_units(shape):
    with pytest.raises(ValueError, match="`prior` must have one probability for each unit. Received: 4 prob"):
        PriorBias(CLASSES)(shape)


@pytest.mark.parametrize(
    ("prior", "activation"),
    [(0.01, "sigmoid"), (np.array([0.25, 0.75], "float32"), "softmax"), ((0.1, 0.5), "sigmoid")],
)
def test_config_round_trip_is_json(prior, activation):
    bias = PriorBias(prior, activation)
    config = json.loads(json.dumps(keras.initializers.serialize(bias)))
    restored = keras.initializers.deserialize(config)
    assert (
        restored.get_config()
        == bias.get_config()
        == {"prior": np.asarray(prior).tolist(), "activation": activation}
    )


@pytest.mark.parametrize(
    ("targets", "units", "activation", "expected"),
    [
        ([0, 0, 1, 2], 3, None, np.log([3 / 7, 2 / 7, 2 / 7])),
        (np.eye(3)[[0, 0, 1, 2]], 3, None, np.log([3 / 7, 2 / 7, 2 / 7])),
        ([[0.5, 0.5], [0.5, 0.5]], 2, "softmax", np.log([0.5, 0.5])),
        ([[[0], [1]], [[1], [1]]], 2, "softmax", np.log([2 / 6, 4 / 6])),
        ([0, 0, 1], 1, "sigmoid", [np.log(2 / 3)]),
        ([True, False, False], 1, None, [np.log(2 / 3)]),
        ([[1, 0], [1, 1]], 2, "sigmoid", [np.log(3), 0.0]),
        ([[1, 0], [1, 1]], 2, None, [np.log(3), 0.0]),
        ([2.5, 3.5], 1, None, [3.0]),
        ([[1.0, 5.0], [3.0, 6.0]], 2, None, [2.0, 5.5]),
    ],
)
def test_the_form_of_labels_is_told(targets, units, activation, expected):
    means = LabelPrior().means(np.array(targets), units, activation)
    np.testing.assert_allclose(means, expected, rtol=1e-6, atol=1e-12)


def test_without_smoothing_frequencies_are_exact_and_an_absent_class_is_refused():
    means = LabelPrior(smoothing=0.0).means(np.array([0, 0, 0, 1]), 2, "softmax")
    np.testing.assert_allclose(np.exp(means), [0.75, 0.25])
    with pytest.raises(ValueError, match=r"classes \[2\] without an example"):
        LabelPrior(smoothing=0.0).means(np.array([0, 1]), 3, "softmax")


@pytest.mark.parametrize(
    ("form", "targets", "units"),
    [
        ("binary", [0, 2], 1),
        ("binary", [0, 1, 1], 2),
        ("categorical", [0.5, 1.0], 2),
        ("numeric", [[1.0] * 3], 2),
    ],
)
def test_labels_of_another_form_are_refused(form, targets, units):
    with pytest.raises(ValueError, match=f"for form='{form}'"):
        LabelPrior(form).means(np.array(targets), units)


def test_arguments_of_label_prior_are_checked():
    with pytest.raises(ValueError, match="`form` must be one of"):
        LabelPrior("ordinal")
    with pytest.raises(ValueError, match="`smoothing` must be at least 0"):
        LabelPrior(smoothing=-1.0)
