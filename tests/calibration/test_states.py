"""What a model must find as it was, and what it must be able to take: states, sizes of batches, integers."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx import probe


def test_states_of_recurrent_layers_stay(rng):
    model = keras.Sequential(
        [
            layers.Input(batch_shape=(16, 5, 8)),
            layers.Bidirectional(layers.GRU(4, stateful=True, return_sequences=True)),
            layers.LSTM(4, stateful=True),
            layers.Dense(2, name="head"),
        ]
    )
    x = rng.normal(size=(16, 5, 8)).astype("float32")
    model(x)
    before = [ops.convert_to_numpy(v) for v in model.non_trainable_variables]
    assert any(state.any() for state in before)
    initx.calibrate(model, x, samples=16)
    probe.preactivation_std(model, x)
    initx.calibrate(model, None)
    for old, variable in zip(before, model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(variable))


class Counting(layers.Layer):
    """Counts its calls in a variable, with and without a kernel, and may fail."""

    fails = False

    def build(self, shape):
        self.count = self.add_weight(shape=(), name="count", initializer="zeros", trainable=False)

    def call(self, x):
        self.count.assign(self.count + 1)
        if self.fails:
            raise RuntimeError("as asked")
        return x


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_layer_of_a_user_counts_stays(rng, fails):
    own = Counting(name="own")
    model = keras.Sequential([layers.Input((6,)), layers.Dense(4), own, layers.Dense(3)])
    x = rng.normal(size=(16, 6)).astype("float32")
    model(x)
    before = [ops.convert_to_numpy(v) for v in model.variables]
    own.fails = fails
    for verb in (initx.calibrate, initx.diagnose, probe.preactivation_std):
        if fails:
            with pytest.raises(RuntimeError, match="as asked"):
                verb(model, x)
        else:
            verb(model, x)
        assert float(own.count.value) == 1
        if fails:
            for old, variable in zip(before, model.variables, strict=True):
                np.testing.assert_array_equal(old, ops.convert_to_numpy(variable))


@pytest.mark.parametrize("dtype", ["int32", "float32"])
@pytest.mark.parametrize("unknown", [-1, 50, 10**6])
@pytest.mark.parametrize("law", ["initx>LSUV", "initx>BetweenLayer"])
def test_integers_outside_the_vocabulary_are_refused(unknown, dtype, law):
    model = keras.Sequential(
        [
            layers.Input((3,), dtype=dtype),
            layers.Embedding(50, 4),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    model.layers[0].trainable = False
    ids = np.arange(30).reshape(10, 3)
    assert initx.calibrate(model, ids, law).samples == 10
    ids[4, 1] = unknown
    with pytest.raises(ValueError, match=f"`data` must hold integers from 0 to 49.*Received: {unknown}"):
        initx.calibrate(model, ids, law)


def test_a_layer_with_an_input_dim_of_its_own_is_no_embedding():
    class Linear(layers.Dense):
        input_dim = 3

    model = keras.Sequential([layers.Input((3,)), Linear(2)])
    assert initx.calibrate(model, np.arange(30.0).reshape(10, 3)).calibrated == 1


def test_the_probe_pools_the_calls_that_calibrate_pools(rng):
    shared = layers.Dense(4, "relu", name="shared")
    inputs = layers.Input((6, 4))
    model = keras.Model(inputs, layers.TimeDistributed(shared)(shared(shared(inputs))))
    x = rng.normal(1, 3, size=(32, 6, 4)).astype("float32")
    report = initx.calibrate(model, x, tolerance=1e-4, max_iterations=50)
    assert report.rows[0].std_after == pytest.approx(1, rel=1e-3)
    assert probe.preactivation_std(model, x) == pytest.approx({"shared": 1.0}, rel=1e-3)


@pytest.mark.parametrize("targets", [[np.zeros(30)], [], {"a": np.zeros(30)}])
def test_targets_that_are_not_one_for_each_head_are_refused(targets, rng):
    inputs = layers.Input((4,))
    model = keras.Model(inputs, [layers.Dense(3, name="a")(inputs), layers.Dense(1, name="b")(inputs)])
    with pytest.raises(ValueError, match="`targets` must "):
        initx.calibrate(model, rng.normal(size=(30, 4)), "initx>LabelPrior", targets=targets)
