"""All seeds in one program: the results of the sequential runner, in float64 to rounding."""

import keras
import numpy as np
import pytest

from keras_initx.experiments import Sequential, Vectorized, compare
from keras_initx.experiments._batches import Shuffled

on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="needs JAX")
QUIET = Sequential(progress=False)


@pytest.fixture
def _double():
    """Rounding differs between the two programs, and training amplifies it: float64 leaves room for that."""
    import jax

    before = keras.config.floatx(), keras.config.dtype_policy()
    with jax.enable_x64(True):
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")
        yield
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


def build():
    layers = [keras.layers.Dense(12, "relu"), keras.layers.BatchNormalization(), keras.layers.Dropout(0.2)]
    model = keras.Sequential([keras.layers.Input((6,)), *layers, keras.layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def rows(count, seed):
    x = np.random.default_rng(seed).normal(size=(count, 6))
    return x, x[:, :3].argmax(axis=1).astype("int32"), np.linspace(0.5, 1.5, count)


DATA = {"train": rows(90, 0), "validation": rows(50, 1), "test": rows(50, 2)}  # neither is whole batches


@on_jax
@pytest.mark.usefixtures("_double")
def test_the_results_are_the_sequential_runners_also_of_what_diverges():
    arguments = {**DATA, "seeds": 3, "epochs": 2, "metric": "accuracy", "target": 0.5}
    arguments |= {"learning_rates": [0.01, 1e300]}
    one = compare(build, ["initx>LSUV"], **arguments, runner=QUIET)
    all_ = compare(build, ["initx>LSUV"], **arguments, runner=Vectorized(size=2, progress=False))
    assert [result.trial for result in all_.results] == [result.trial for result in one.results]
    assert {result.diverged for result in one.results} == {True, False}
    for a, b in zip(all_.results, one.results, strict=True):
        assert not b.failure
        assert (a.diverged, a.signal, a.epochs_to_target) == (b.diverged, b.signal, b.epochs_to_target)
        assert a.test == pytest.approx(b.test)
        assert a.curves.keys() == b.curves.keys()
        for name, curve in b.curves.items():
            np.testing.assert_allclose(a.curves[name], curve, rtol=1e-6, err_msg=f"{b.trial}: {name}")


@on_jax
def test_what_cannot_be_vectorised_is_refused():
    train, validation = DATA["train"], DATA["validation"]
    with pytest.raises(ValueError, match="`callbacks` must be None"):
        compare(build, ["zeros"], train, validation, runner="vectorized", callbacks=lambda trial: [])
    with pytest.raises(ValueError, match="`train` must be a tuple of arrays"):
        compare(build, ["zeros"], Shuffled(train, 30, seed=0), validation, runner="vectorized")
    with pytest.raises(ValueError, match="`size` must be an int of at least 1"):
        Vectorized(size=0)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has it")
def test_other_backends_are_refused():
    with pytest.raises(ValueError, match="`Vectorized` needs KERAS_BACKEND=jax"):
        compare(build, ["zeros"], DATA["train"], DATA["validation"], runner="vectorized")
