"""Loss and step of a report are those of `fit`, with losses that layers add and with sample weights."""

import random

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 8)).astype("float32")
Y = RNG.integers(0, 4, 64)
WEIGHTS = np.where(Y == 0, 50.0, 0.5).astype("float32")


class Penalty(layers.Layer):
    """Adds a loss of what passes, as a variational layer or a router of experts does."""

    def call(self, inputs):
        self.add_loss(10 * ops.mean(inputs**2))
        return inputs


def net(between=(), **options):
    hidden = layers.Dense(16, "relu", name="hidden", **options)
    model = keras.Sequential([layers.Input((8,)), hidden, *between, layers.Dense(4, "softmax")])
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    return model


MODELS = {
    "a penalty of the weights": lambda: net(kernel_regularizer="l2"),
    "a penalty of the activity": lambda: net(activity_regularizer=keras.regularizers.L2(0.1)),
    "add_loss": lambda: net([Penalty()]),
    "add_loss in a model within": lambda: net([keras.Sequential([layers.Input((16,)), Penalty()])]),
    "plain": net,
}


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("name", MODELS)
def test_loss_and_step_are_those_of_keras(name, weights):
    model = MODELS[name]()
    data = (X, Y) if weights is None else (X, Y, weights)
    report = initx.diagnose(model, data, samples=64)
    options = {"sample_weight": weights, "batch_size": 64, "verbose": 0}
    assert report.loss == pytest.approx(model.evaluate(X, Y, **options), rel=1e-4)
    kernel = model.get_layer("hidden").kernel
    before = ops.convert_to_numpy(kernel)
    model.train_on_batch(X, Y, sample_weight=weights)
    moved = np.sqrt(np.mean((ops.convert_to_numpy(kernel) - before) ** 2) / np.mean(before**2))
    assert report.rows[0].update_ratio == pytest.approx(moved, rel=1e-3)


@pytest.mark.parametrize("name", ["add_loss", "a penalty of the weights"])
def test_a_loss_that_is_given_has_them_on_top_as_compile_would(name):
    model = MODELS[name]()
    found = initx.diagnose(model, X, Y, loss="sparse_categorical_crossentropy", samples=64)
    assert found.loss == pytest.approx(initx.diagnose(model, X, Y, samples=64).loss, rel=1e-5)


def test_a_search_has_the_weights_and_the_added_losses():
    """GradInit's step of no length leaves the loss, on two thirds of the rows."""
    model = net([Penalty()])
    expected = model.evaluate(X[21:], Y[21:], sample_weight=WEIGHTS[21:], batch_size=64, verbose=0)
    law = initx.initializers.GradInit(steps=1, learning_rate=1e-9)
    report = initx.calibrate(model, (X, Y, WEIGHTS), law)
    assert report.objective[0] == pytest.approx(expected, rel=1e-3)


def test_the_prior_of_labels_counts_each_label_by_its_weight():
    model = keras.Sequential([layers.Input((8,)), layers.Dense(4, "softmax", kernel_initializer="zeros")])
    initx.calibrate(model, (X, Y, WEIGHTS), initx.initializers.LabelPrior(smoothing=0.0))
    shares = np.bincount(Y, WEIGHTS) / WEIGHTS.sum()
    np.testing.assert_allclose(ops.convert_to_numpy(model(X))[0], shares, rtol=1e-4)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (WEIGHTS[:, None], r"`sample_weight` must hold a number for each row.*shape \(64, 1\), .*\(64,\)"),
        (-WEIGHTS, "`sample_weight` must be at least 0 .* from -50 to -0.5"),
        (0 * WEIGHTS, "positive somewhere. Received: numbers from 0 to 0"),
    ],
)
def test_sample_weights_that_are_none_are_refused(weights, message):
    model = keras.Sequential([layers.Input((8,)), layers.Dense(4, "softmax")])
    with pytest.raises(ValueError, match=message):
        initx.calibrate(model, (X, Y, weights), "LabelPrior")


@pytest.mark.parametrize("verb", ["initialize", "calibrate", "diagnose"])
def test_pythons_generator_is_left_as_it_was(verb):
    model = net()
    model.get_layer("hidden").kernel.assign(np.zeros((8, 16)))  # so that cures are tried
    keras.random.normal((1,))  # Keras' own generator starts from Python's
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    before, numpy_before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    {
        "initialize": lambda: initx.initialize(model, "by_role", seed=1),
        "calibrate": lambda: initx.calibrate(model, X, redraw=True, seed=1),
        "diagnose": lambda: initx.diagnose(model, X, Y),
    }[verb]()
    assert random.getstate() == before
    assert np.random.get_state()[1].tolist() == numpy_before  # noqa: NPY002
