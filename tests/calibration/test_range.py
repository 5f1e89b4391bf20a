"""Scales that a weight cannot hold: an error that names the layer and the law, and weights as they were."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx.initializers import LSUV, DataDependent, GradInit, MetaInit, ModelLaw


def small_model(dtype="float32"):
    return keras.Sequential(
        [
            layers.Input((8,)),
            layers.Dense(6, "relu", dtype=dtype, name="a"),
            layers.Dense(3, dtype=dtype, name="head"),
        ]
    )


class NoScale(DataDependent):
    def rescale(self, mean, std):
        return float("nan"), 0.0


class NoShift(DataDependent):
    scope = "unit"

    def rescale(self, mean, std):
        return 1 / std, mean / 0.0


class NoScales(ModelLaw):
    needs = frozenset({"gradients", "inputs"})

    def search(self, task):
        yield np.full(len(task.weights), np.nan), (0.0,)


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize(
    ("dtype", "size", "law", "name"),
    [
        ("float16", 1e-6, "initx>LSUV", "LSUV"),
        ("float16", 1e-6, "initx>WithinLayer", "WithinLayer"),
        ("float32", 1.0, LSUV(target_std=1e39), "LSUV"),
        ("float32", 1e-5, LSUV(target_std=3e37), "LSUV"),
        ("float32", 1.0, NoScale(), "NoScale"),
        ("float32", 1.0, NoShift(), "NoShift"),
        ("float32", 1.0, NoScales(), "NoScales"),
    ],
)
def test_what_a_weight_cannot_hold_is_refused(dtype, size, law, name, rng):
    model = small_model(dtype)
    before = model.get_weights()
    x = size * rng.normal(size=(32, 8)).astype("float32")
    message = f"`initializer` must give weights that {dtype} can hold. Received: {name}, which gives `.*a.*`"
    with pytest.raises(ValueError, match=message):
        initx.calibrate(model, x, law)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("law", [MetaInit(steps=2), GradInit(steps=2)])
def test_laws_over_the_model_take_models_of_half_precision(law, rng):
    x, y = rng.normal(size=(32, 8)).astype("float32"), np.arange(32) % 3
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert initx.calibrate(small_model("bfloat16"), x, law, targets=y, loss=loss).steps == 2
