"""The spectrum of the Jacobian, against finite differences, closed forms and the exact one."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.diagnostics import _jacobian

X = np.random.default_rng(0).normal(size=(4, 12)).astype("float32")


def net():
    return keras.Sequential(
        [layers.Input((12,)), layers.Dense(16, "tanh"), layers.Dense(8, "gelu"), layers.Dense(5, "softmax")]
    )


def by_differences(model, x, step=1e-2):
    head = model.layers[-1]
    inner = keras.Sequential([layers.Input((12,)), *model.layers[:-1]])

    def logits(rows):
        kernel, bias = head.get_weights()
        return np.array(ops.convert_to_numpy(inner(rows))).astype("float64") @ kernel + bias

    eye = step * np.eye(12, dtype="float32")
    return ((logits(x + eye) - logits(x - eye)) / (2 * step)).T


def test_singular_values_are_those_of_finite_differences():
    model = net()
    spectrum = initx.diagnose(model, X, jacobian=True).jacobian
    values = np.linalg.svd(by_differences(model, X[:1]), compute_uv=False)
    # The error of central differences is of the order of the square of the step.
    np.testing.assert_allclose(spectrum.singular_values, values, rtol=2e-3, atol=2e-4)
    assert (spectrum.inputs, spectrum.outputs) == (12, 5)
    assert spectrum.largest == spectrum.singular_values[0]
    assert spectrum.mean_square == pytest.approx(np.mean(np.square(spectrum.singular_values)))


def test_estimates_of_a_large_one_agree_with_the_exact_one(monkeypatch):
    model = net()
    exact = initx.diagnose(model, X, jacobian=True).jacobian
    monkeypatch.setattr(_jacobian, "_EXACT", 0)
    found = initx.diagnose(model, X, jacobian=True, seed=0).jacobian
    assert found.singular_values is None
    assert found.largest == pytest.approx(exact.largest, rel=1e-2)
    # Hutchinson's estimate has the variance 2 sum of s^4, over 32 probes; four standard errors.
    squares = np.square(exact.singular_values)
    error = 4 * np.sqrt(2 * np.sum(squares**2) / 32) / squares.sum()
    assert found.mean_square == pytest.approx(exact.mean_square, rel=error)


def test_several_inputs_and_outputs_and_integers_beside_floats():
    numbers, tokens = layers.Input((3,), name="numbers"), layers.Input((2,), dtype="int32", name="tokens")
    x = layers.Concatenate()([numbers, layers.Flatten()(layers.Embedding(7, 2)(tokens))])
    model = keras.Model([numbers, tokens], [layers.Dense(2)(x), layers.Dense(3)(x)])
    spectrum = initx.diagnose(model, jacobian=True, seed=0).jacobian
    assert (spectrum.inputs, spectrum.outputs) == (3, 5)


def test_integers_alone_are_refused():
    model = keras.Sequential(
        [layers.Input((3,), dtype="int32"), layers.Embedding(7, 2), layers.Flatten(), layers.Dense(1)]
    )
    with pytest.raises(ValueError, match="`jacobian` needs an input of floats"):
        initx.diagnose(model, jacobian=True)
