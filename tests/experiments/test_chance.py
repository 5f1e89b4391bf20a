"""The best prediction that is the same for all rows, against what is known of it in closed form."""

import keras
import numpy as np
import pytest

import keras_initx as initx
from keras_initx.experiments import Sequential
from keras_initx.experiments._chance import best_constant
from keras_initx.experiments._metrics import logged_by

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 3)).astype("float32")
CLASSES = np.repeat([0, 1, 2], [20, 25, 45])
SHARES = np.array([20, 25, 45]) / 90
ENTROPY = -float(np.sum(SHARES * np.log(SHARES)))
HOT = np.eye(3, dtype="float32")[CLASSES]
REAL = RNG.normal(3, 2, (90, 2)).astype("float32")
BITS = (CLASSES == 2).astype("float32")


def found(y, units, loss, metric="loss", minimize=True, activation=None, layers=(), data=None, **more):
    model = keras.Sequential([keras.layers.Input((3,)), *layers, keras.layers.Dense(units, activation)])
    model.compile("sgd", loss, **more)
    model.test_on_batch(X[:4], y[:4])
    return best_constant(model, logged_by(model)[metric], data or (X, y), 32, minimize)


SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
ACCURACY = {"metric": "accuracy", "metrics": ["accuracy"], "minimize": False}
KNOWN = {
    "logits": lambda: (found(CLASSES, 3, SPARSE), ENTROPY),
    "probabilities": lambda: (found(HOT, 3, "categorical_crossentropy", activation="softmax"), ENTROPY),
    "accuracy of classes": lambda: (found(CLASSES, 3, SPARSE, **ACCURACY), 0.5),
    "accuracy of a column": lambda: (found(CLASSES[:, None], 3, SPARSE, **ACCURACY), 0.5),
    "accuracy of one-hot rows": lambda: (found(HOT, 3, "categorical_crossentropy", **ACCURACY), 0.5),
    "accuracy of bits": lambda: (
        found(1 - BITS[:80], 1, "mse", data=(X[:80], 1 - BITS[:80]), **ACCURACY),
        45 / 80,
    ),
    "squared error": lambda: (found(REAL, 2, "mse"), float(REAL.var(axis=0).mean())),
    "absolute error": lambda: (found(REAL, 2, "mae"), float(np.abs(REAL - np.median(REAL, axis=0)).mean())),
    "R2": lambda: (found(REAL, 2, "mse", "r2", False, metrics=[keras.metrics.R2Score(name="r2")]), 0.0),
}


@pytest.mark.parametrize("case", KNOWN)
def test_it_is_the_optimum_where_that_is_known(case):
    value, expected = KNOWN[case]()
    assert value == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_no_value_where_constants_are_no_measure_or_cannot_be_measured():
    one_class = np.zeros(90, "int64")
    recall = [keras.metrics.Recall(name="recall")]
    weighted = (X, CLASSES, np.ones(90, "float32"))
    assert found(one_class, 3, SPARSE, data=(X, one_class), **ACCURACY) is None
    assert found(BITS[:, None], 1, "mse", "recall", False, metrics=recall) is None
    assert found(CLASSES, 3, SPARSE, data=weighted) is None
    assert found(CLASSES, 3, SPARSE, data=[(X, CLASSES)]) is None
    assert found(REAL, 2, lambda y, p: keras.ops.mean(y - p)) is None


def test_masked_outputs_have_no_value_as_their_metric_counts_fewer_rows():
    def build(mask):
        inputs = keras.Input((5,), dtype="int32")
        x = keras.layers.Embedding(7, 4, mask_zero=mask)(inputs)
        model = keras.Model(inputs, keras.layers.Dense(3)(x))
        model.compile("sgd", SPARSE, metrics=["accuracy"])
        return model

    tokens = RNG.integers(0, 7, (40, 5)).astype("int32")
    data = (tokens, (tokens > 3).astype("int32"))
    values = []
    for mask in (False, True):
        model = build(mask)
        model.test_on_batch(data[0][:2], data[1][:2])
        values.append(best_constant(model, logged_by(model)["accuracy"], data, 2, False))
    by_place = (tokens > 3).mean(axis=0)
    assert values[0] == pytest.approx(np.maximum(by_place, 1 - by_place).mean())
    assert values[1] is None


def test_a_dead_start_is_flagged_and_one_that_learns_is_not():
    def build():
        layers = [keras.layers.Dense(16, "relu"), keras.layers.Dense(3)]
        model = keras.Sequential([keras.layers.Input((3,)), *layers])
        eagerly = keras.backend.backend() == "tensorflow"  # which is faster for a few steps
        model.compile(keras.optimizers.Adam(0.03), SPARSE, metrics=["accuracy"], run_eagerly=eagerly)
        return model

    rows = (X + 3 * np.eye(3, dtype="float32")[CLASSES], CLASSES)
    for metric in ("accuracy", "loss"):
        compared = initx.compare(
            build,
            ["zeros", "he_normal"],
            rows,
            rows,
            seeds=2,
            epochs=3,
            metric=metric,
            runner=Sequential(progress=False),
        )
        assert compared.chance == pytest.approx(0.5 if metric == "accuracy" else ENTROPY, rel=1e-4)
        assert {row.initializer: row.at_chance for row in compared.rows} == {
            "zeros": True,
            "he_normal": False,
        }
        assert (
            "zeros stayed at chance: in none of 2 seeds is it better than one prediction" in compared.summary
        )
        assert "at chance" in str(compared).splitlines()[2]
