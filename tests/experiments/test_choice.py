"""Initializers as a hyperparameter, with KerasTuner itself."""

import keras
import keras_tuner
import numpy as np
import pytest

import keras_initx as initx
from keras_initx.experiments import choice

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites


def test_each_layer_gets_an_initializer_of_its_own():
    """One instance of Keras' fixes its seed when it is made: two kernels would be equal."""
    initializers = [keras.initializers.HeNormal(), initx.initializers.HeScaled(gain=0.5)]
    shared = keras.initializers.HeNormal()
    np.testing.assert_array_equal(shared((3, 4)), shared((3, 4)))  # what is guarded against
    for label in ("HeNormal()", "HeScaled(gain=0.5)"):
        hp = keras_tuner.HyperParameters()
        hp.values["k"] = label
        keras.utils.set_random_seed(0)
        first, second = (np.asarray(choice(hp, "k", initializers)((3, 4))) for _ in range(2))
        assert not np.array_equal(first, second)
        keras.utils.set_random_seed(0)
        np.testing.assert_array_equal(choice(hp, "k", initializers)((3, 4)), first)


def test_objects_and_configs_are_chosen_by_label_with_their_arguments():
    hp = keras_tuner.HyperParameters()
    config = {"class_name": "initx>HeScaled", "config": {"gain": 3.0}}
    initializers = {
        "name": "initx>LSUV",
        "config": config,
        "law": keras.initializers.RandomNormal(stddev=0.5),
    }
    assert choice(hp, "k", initializers, default="config").gain == 3.0
    assert hp.space[0].values == ["name", "config", "law"]
    hp.values["k"] = "law"
    assert choice(hp, "k", initializers).stddev == 0.5
    hp.values["k"] = "name"
    assert isinstance(choice(hp, "k", initializers), initx.initializers.LSUV)


@pytest.mark.parametrize(
    ("initializers", "message"),
    [
        (
            ["initx>HeScaled", "by_role"],
            r"'by_role', which needs the whole model.*`initx.initialize\(model, hp",
        ),
        ([initx.strategies.Fixup()], "'Fixup', which needs the whole model"),
        ([None], "Received: None. Name the initializer of the layer itself"),
        (["initx>HeScald"], "Nearest: 'initx>HeScaled'"),
        ([], "at least one"),
    ],
)
def test_what_no_layer_can_have_is_refused_before_anything_is_chosen(initializers, message):
    hp = keras_tuner.HyperParameters()
    with pytest.raises(ValueError, match=message):
        choice(hp, "k", initializers)
    assert not hp.space


def test_a_search_finds_it_and_its_best_builds_the_same_kernels_again(tmp_path):
    initializers = {
        "wild": keras.initializers.RandomNormal(stddev=100.0),
        "He": keras.initializers.HeNormal(),
    }
    built = {}

    def build(hp):
        keras.utils.set_random_seed(0)
        layers = [
            keras.layers.Dense(8, kernel_initializer=choice(hp, "both", initializers)) for _ in range(2)
        ]
        model = keras.Sequential([keras.layers.Input((8,)), *layers])
        model.compile(keras.optimizers.SGD(1e-9), "mse")
        kernels = [np.array(keras.ops.convert_to_numpy(layer.kernel)) for layer in layers]
        assert not np.array_equal(*kernels)
        np.testing.assert_array_equal(built.setdefault(hp.get("both"), kernels), kernels)
        return model

    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    tuner = keras_tuner.GridSearch(build, "val_loss", directory=tmp_path)
    tuner.search(x, x, validation_data=(x, x), epochs=1, verbose=0)
    assert set(built) == {"wild", "He"}
    best = tuner.get_best_hyperparameters()[0]
    assert best.values == {"both": "He"}
    build(best)
