"""Losses and targets of laws over the whole model: what `compile` and `fit` take, and what they do not."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.initializers import BetweenLayer, GradInit, MetaInit
from keras_initx.losses import choose_loss

SPARSE = "sparse_categorical_crossentropy"


def one_head(units, activation=None):
    return keras.Sequential([layers.Input((8,)), layers.Dense(6, "relu"), layers.Dense(units, activation)])


def two_heads(as_dict=False):
    inputs = layers.Input((8,))
    hidden = layers.Dense(6, "relu")(inputs)
    heads = {
        "p": layers.Dense(3, "softmax", name="p")(hidden),
        "q": layers.Dense(1, "sigmoid", name="q")(hidden),
    }
    return keras.Model(inputs, heads if as_dict else list(heads.values()))


def squared(targets, outputs):
    return ops.mean(ops.square(targets - ops.squeeze(outputs, -1)))


@pytest.fixture
def x(rng):
    return rng.normal(size=(30, 8)).astype("float32")


@pytest.mark.parametrize(
    "loss",
    [
        *("mse", "BinaryCrossentropy", "binary_crossentropy", "ce", ["mse"], squared),
        *(keras.losses.Huber(), {"class_name": "MeanSquaredError", "config": {}}),
    ],
)
@pytest.mark.parametrize("dtype", ["float64", "int64", "bool"])
def test_flat_targets_of_any_type_are_what_fit_takes_them_for(loss, dtype, x):
    model, y = one_head(1, "sigmoid"), (np.arange(30) % 2).astype(dtype)
    value = choose_loss(model, y, loss, "test")(x, y, model(x))
    model.compile(loss=keras.losses.get(loss) if isinstance(loss, dict) else loss)
    assert float(value) == pytest.approx(model.evaluate(x, y, batch_size=30, verbose=0), rel=1e-4)


@pytest.mark.parametrize("law", [BetweenLayer(steps=2), MetaInit(steps=2), GradInit(steps=2)])
@pytest.mark.parametrize(
    ("as_dict", "keyed"), [(False, False), (False, True), (True, True)], ids=["list", "mixed", "dict"]
)
def test_several_outputs_have_losses_of_their_own(law, as_dict, keyed, x):
    y = [np.arange(30) % 3, np.arange(30) % 2]
    losses = [SPARSE, "binary_crossentropy"]
    if keyed:
        y, losses = dict(zip("pq", y, strict=True)), dict(zip("pq", losses, strict=True))
    report = initx.calibrate(two_heads(as_dict), x, law, targets=y, loss=losses)
    assert np.isfinite(report.objective).all()


@pytest.mark.parametrize("law", ["initx>GradInit", "initx>LSUV"])
@pytest.mark.parametrize("loss", ["nope", 3, "", ["mse", "nope"], {"a": 3}])
def test_unknown_losses_are_refused_by_every_law(law, loss, x):
    with pytest.raises(ValueError, match="`loss` must be the name of a Keras loss.* Received: "):
        initx.calibrate(one_head(1), x, law, targets=np.ones(30), loss=loss)


@pytest.mark.parametrize(
    ("targets", "loss", "match"),
    [
        (np.ones((30, 5)), "mse", r"Received: \['float.*\(30, 5\)'\], outputs .*\(30, 3\)"),
        (np.full(30, 3), SPARSE, "labels from 3 to 3 for 3 classes"),
        (np.full(30, -1), keras.losses.SparseCategoricalCrossentropy(), "labels from -1 to -1"),
        (np.full((30, 1), -1), "SparseCategoricalCrossentropy", "labels from -1 to -1"),
        (np.full(30, "a"), "mse", "numbers for a loss"),
        ([np.ones(30), np.ones(30)], ["mse", "mse"], "it raised"),
    ],
)
def test_targets_that_the_loss_cannot_compare_are_refused(targets, loss, match, x):
    model = one_head(3)
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"`targets` must (be|fit) .*{match}"):
        initx.calibrate(model, x, "initx>MetaInit", targets=targets, loss=loss)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_class_that_the_loss_ignores_is_no_fault(x):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    report = initx.calibrate(one_head(3), x, "initx>BetweenLayer", targets=np.arange(30) % 4 - 1, loss=loss)
    assert report.calibrated == 2
