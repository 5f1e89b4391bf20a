"""Every draw of `initialize(..., seed=7)` is the seed's, or its row says that it is not."""

import random

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.state import seeded

FREE, FIXED = "does not follow the seed: its draws differ from call to call", "draws the same for every seed"


def by_keras(shape, dtype=None):
    return keras.random.normal(shape, dtype=dtype)


def by_numpy(shape, dtype=None):
    return ops.convert_to_tensor(np.random.normal(size=shape), dtype)  # noqa: NPY002


def by_python(shape, dtype=None):
    return ops.full(shape, random.random(), dtype)


class OfKeras(keras.initializers.Initializer):
    """Holds an initializer without a seed, as a class around one would."""

    def __call__(self, shape, dtype=None):
        return 2 * keras.initializers.HeNormal()(shape, dtype)


class Seeded(keras.initializers.Initializer):
    def __init__(self, seed=None):
        self.seed = seed

    def __call__(self, shape, dtype=None):
        return ops.convert_to_tensor(np.random.default_rng(self.seed).normal(size=shape), dtype)

    def get_config(self):
        return {"seed": self.seed}


class OwnGenerator(keras.initializers.Initializer):
    def __init__(self):
        self.rng = np.random.default_rng()

    def __call__(self, shape, dtype=None):
        return ops.convert_to_tensor(self.rng.normal(size=shape), dtype)


def constant(shape, dtype=None):
    return ops.full(shape, 0.5, dtype)


def drawn(initializer, seed):
    model = keras.Sequential([layers.Input((4,)), layers.Dense(6, name="a"), layers.Dense(6, name="b")])
    random.seed()  # what came before must not matter
    np.random.seed()  # noqa: NPY002
    report = initx.initialize(model, initializer, seed=seed, include="dense")
    notes = {row.note for row in report.rows if row.fans}
    return [np.array(ops.convert_to_numpy(layer.kernel)) for layer in model.layers], notes


@pytest.mark.parametrize("initializer", [by_keras, by_numpy, by_python, OfKeras, Seeded, "glorot_uniform"])
def test_what_can_follow_the_seed_does(initializer):
    one, notes = drawn(initializer, 7)
    again, _ = drawn(initializer, 7)
    other, _ = drawn(initializer, 8)
    for first, second, third in zip(one, again, other, strict=True):
        np.testing.assert_array_equal(first, second)
        assert not np.array_equal(first, third)
    assert not np.array_equal(one[0].ravel()[:12], one[1].ravel()[:12])  # a stream for each variable
    assert notes == {""}


@pytest.mark.parametrize(("initializer", "note"), [(OwnGenerator, FREE), (constant, FIXED)])
def test_what_cannot_follow_the_seed_is_said(initializer, note):
    (first, _), notes = drawn(initializer, 7)
    (second, _), _ = drawn(initializer, 7)
    assert notes == {note}
    assert np.array_equal(first, second) == (note == FIXED)


def test_the_table_of_the_report_shows_it():
    model = keras.Sequential([layers.Input((4,)), layers.Dense(6, name="a")])
    assert FREE in str(initx.initialize(model, "by_role", seed=7, overrides={"a/bias": OwnGenerator()}))


def test_a_layers_own_functions_follow_the_seed_too():
    def build():
        cell = layers.LSTM(4, bias_initializer="random_normal", name="r")
        return keras.Sequential(
            [layers.Input((3, 4)), cell, layers.Dense(4, bias_initializer=by_numpy, name="d")]
        )

    one, other = build(), build()
    initx.initialize(one, None, seed=7)
    initx.initialize(other, None, seed=7)
    for first, second in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(first), ops.convert_to_numpy(second), err_msg=first.path
        )


def test_global_generators_go_on_as_if_nothing_was_drawn():
    def numbers():
        return random.random(), np.random.random(), float(keras.random.uniform(()))  # noqa: NPY002

    keras.utils.set_random_seed(3)
    expected = numbers()
    keras.utils.set_random_seed(3)
    drawn_model = keras.Sequential([layers.Input((4,)), layers.Dense(6, kernel_initializer="zeros")])
    for initializer in (by_keras, by_numpy, by_python):
        initx.initialize(drawn_model, initializer, seed=7, include="dense")
    assert numbers() == expected
    with pytest.raises(ZeroDivisionError), seeded(7):
        1 / 0  # noqa: B018
    keras.utils.set_random_seed(3)
    assert numbers() == expected


# Of `initialize(..., "by_role", seed=7)`: whoever wrote down a seed finds the same weights in each release.
GOLDEN = {
    "tensorflow": (
        [[1.4515126, -0.5708779], [-0.1864762, -0.3885358], [-0.9331139, -0.4730061]],
        [[0.1314863, 0.4975486], [0.4739230, -0.6724203]],
    ),
    "jax": (
        [[0.4176776, 0.6855861], [0.2921919, -0.9160592], [0.3632475, 0.2552359]],
        [[0.7479152, -0.2779215], [0.5614673, -1.3910459]],
    ),
    "torch": (
        [[0.3916101, -1.0105683], [2.1869533, 0.2568381], [1.6742510, 0.2168676]],
        [[-0.7550002, 0.2258890], [-0.6673601, -0.2902924]],
    ),
}


def test_the_numbers_of_a_seed_stay_from_release_to_release():
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2, name="a"), layers.Dense(2, name="b")])
    initx.initialize(model, "by_role", seed=7)
    for layer, expected in zip(model.layers, GOLDEN[keras.backend.backend()], strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(layer.kernel), expected, rtol=0, atol=1e-6)
