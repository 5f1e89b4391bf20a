"""MuP and weights that are no kernels: vectors of several axes, and adapters."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx.strategies import MuP, Spectral


class Token(layers.Layer):
    """Adds a table to each position, and scales by a row of the width and by one number."""

    def build(self, shape):
        self.table = self.add_weight(shape=(1, 3, shape[-1]), name="table")
        self.row = self.add_weight(shape=(1, shape[-1]), initializer="ones", name="row")
        self.number = self.add_weight(shape=(1, 1), initializer="ones", name="number")

    def call(self, x):
        return (x + self.table) * self.row * self.number


def with_vectors(width):
    stack = [layers.Conv1D(width, 3, padding="same", name="in"), layers.PReLU(shared_axes=[1], name="act")]
    stack += [Token(name="own"), layers.GlobalAveragePooling1D(), layers.Dense(2, name="out")]
    return keras.Sequential([layers.Input((3, 5)), *stack], name="net")


@pytest.mark.parametrize("strategy", [MuP, Spectral])
def test_a_vector_of_several_axes_has_the_factor_of_its_width(strategy):
    report = initx.initialize(with_vectors(32), strategy(base=with_vectors(8), optimizer="sgd"), seed=0)
    own = {path.split("/", 1)[1]: rate for path, rate in report.learning_rates.items()}
    vectors = {"act/alpha": 4, "own/table": 4, "own/row": 4}
    assert own == pytest.approx({"in/kernel": 4, "in/bias": 4, "out/kernel": 1 / 4} | vectors)


def test_epsilon_follows_the_gradients_of_a_vector():
    report = initx.initialize(with_vectors(32), MuP(base=with_vectors(8)), seed=0)
    found = {row.path.split("/", 1)[1]: row.epsilon for row in report.multipliers.rows}
    assert (found["act/alpha"], found["own/table"], found["own/number"]) == (1 / 4, 1 / 4, 1)


def adapted(width, rank=2):
    inputs = keras.Input((6, width))
    x = layers.MultiHeadAttention(width // 8, 8, name="attention")(inputs, inputs)
    x = layers.Dense(width, name="hidden")(x)
    model = keras.Model(inputs, layers.Dense(3, name="out")(x), name="net")
    for layer in [model.get_layer("attention").query_dense, model.get_layer("hidden")]:
        layer.enable_lora(rank)
    return model


# Of the query's kernel (width, heads, 8): A is (width, heads, rank), B (rank, 8).
@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ("adam", {"hidden/lora_kernel_a": 1 / 4, "hidden/lora_kernel_b": 1, "query/lora_kernel_a": 1 / 4}),
        ("sgd", {"hidden/lora_kernel_a": 1 / 4, "hidden/lora_kernel_b": 4, "query/lora_kernel_a": 1}),
    ],
)
def test_adapters_have_the_factors_of_their_own_fans(optimizer, expected):
    model = adapted(64)
    report = initx.initialize(model, MuP(base=adapted(16), optimizer=optimizer), seed=0)
    rows = {row.path: row for row in report.multipliers.rows}
    found = {name: next(rows[p].learning_rate for p in rows if p.endswith(name)) for name in expected}
    assert found == pytest.approx(expected)
    assert next(r.learning_rate for p, r in rows.items() if p.endswith("query/lora_kernel_b")) == 1
    bias = next(row for path, row in rows.items() if path.endswith("hidden/bias"))
    assert (bias.learning_rate, bias.epsilon) == ((4, 1) if optimizer == "sgd" else (1, 1 / 4))


def test_adapters_that_come_later_are_refused_with_a_cure_that_keeps_the_weights():
    def build(width):
        return keras.Sequential(
            [layers.Input((4,)), layers.Dense(width, name="in"), layers.Dense(width, name="h")]
        )

    model, base = build(16), build(8)
    report = initx.initialize(model, MuP(base=base), seed=0)
    model.get_layer("h").enable_lora(2)
    optimizer = report.optimizer(keras.optimizers.Adam(0.01))
    with pytest.raises(
        ValueError, match=r"after `initialize`, with `.*h/lora_kernel_a`.*include=\"\*/lora_\*\""
    ):
        optimizer.build(model.trainable_variables)
    before = [np.array(weight) for weight in model.weights]
    base.get_layer("h").enable_lora(2)
    report = initx.initialize(model, MuP(base=base), include="*/lora_*", seed=0)
    report.optimizer(keras.optimizers.Adam(0.01)).build(model.trainable_variables)
    for weight, value in zip(model.weights, before, strict=True):
        if not weight.name.startswith("lora_"):  # which start anew
            np.testing.assert_array_equal(weight, value)


@pytest.mark.parametrize("option", [{"alpha": 0.5}, {"branches": "block"}])
def test_depth_options_without_a_depth_are_refused(option):
    [name] = option
    with pytest.raises(ValueError, match=f"`{name}` is for models that are deeper.*base_depth=2"):
        MuP(base=with_vectors(8), **option)
