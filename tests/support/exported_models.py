"""Models of the kinds that are exported, each with rows of input in the order of its inputs' names."""

import keras
import numpy as np
from keras import layers


def floats(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def tokens(*shape):
    return np.random.default_rng(0).integers(0, 9, shape)


def dense():
    model = keras.Sequential(
        [
            layers.Input((6,), name="features"),
            layers.Dense(5, "relu", kernel_initializer="initx>LSUV"),
            layers.Dense(3, "softmax", name="pets", kernel_initializer="initx>HeScaled"),
        ]
    )
    return model, {"features": floats(4, 6)}


def several():
    numbers, words = layers.Input((4,), name="numbers"), layers.Input((3,), dtype="int32", name="words")
    joined = layers.Concatenate()([numbers, layers.Flatten()(layers.Embedding(9, 2)(words))])
    outputs = [layers.Dense(2, name="class.scores")(joined), layers.Dense(1, name="price")(joined)]
    rows = {"numbers": floats(4, 4), "words": tokens(4, 3).astype("int32")}
    return keras.Model([numbers, words], outputs), rows


def by_keys():
    inputs = {"b": layers.Input((2,), name="b"), "a": layers.Input((2,), name="a")}
    hidden = layers.Dense(3)(layers.Add()([inputs["a"], inputs["b"]]))
    return keras.Model(inputs, {"sum": hidden, "half": hidden / 2}), {"a": floats(4, 2), "b": floats(4, 2)}


def states():
    inputs = layers.Input((None, 2), name="series")
    return keras.Model(inputs, layers.LSTM(3, return_state=True, name="memory")(inputs)), {
        "series": floats(4, 7, 2)
    }


def words():
    inputs = layers.Input((1,), dtype="string", name="text")
    vectorize = layers.TextVectorization(20, output_sequence_length=5)
    vectorize.adapt(["a good day", "a bad day"])
    hidden = layers.GlobalAveragePooling1D()(layers.Embedding(20, 4)(vectorize(inputs)))
    rows = {"text": np.array([["a day"], ["bad bad day"], ["what"], [""]], object)}
    return keras.Model(inputs, layers.Dense(2, "softmax", name="mood")(hidden)), rows


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.embed, self.score = layers.Embedding(9, 3), layers.Dense(2)

    def call(self, tokens):
        return {"scores": self.score(self.embed(tokens)), "tokens": tokens}


def subclassed():
    model, rows = Subclassed(), tokens(4, 5).astype("float32")
    model(rows)
    return model, {"tokens": rows}


def mixed():
    inputs = layers.Input((8,), name="x")
    hidden = layers.Dense(32, "relu", dtype="mixed_bfloat16")(inputs)
    return keras.Model(inputs, layers.Dense(4, dtype="mixed_bfloat16", name="y")(hidden)), {"x": floats(4, 8)}


def half():
    inputs = layers.Input((8,), name="x", dtype="bfloat16")
    return keras.Model(
        inputs, layers.Dense(4, dtype="bfloat16", kernel_initializer="initx>LSUV", name="y")(inputs)
    ), {"x": floats(4, 8).astype("bfloat16").astype("float32")}


def mobilenet():
    model = keras.applications.MobileNet(weights=None, alpha=0.25, input_shape=(32, 32, 3), classes=10)
    for weight in model.weights:  # or its outputs do not depend on its input
        if weight.path.endswith("gamma"):
            weight.assign(weight * 8)
    return model, {model.layers[0].name: floats(4, 32, 32, 3)}


MODELS = {
    build.__name__: build
    for build in (dense, several, by_keys, states, words, subclassed, mixed, half, mobilenet)
}


def predict(model, rows):
    """What `model.predict` answers, as a flat list of float32 arrays."""
    import tensorflow as tf

    rows = {key: tf.constant(row) if row.dtype == object else row for key, row in rows.items()}
    given = list(rows.values())
    structure = getattr(getattr(model, "_functional", model), "_inputs_struct", given[0])
    packed = rows if isinstance(structure, dict) else given if len(given) > 1 else given[0]
    return [
        np.asarray(leaf, "float32")
        for leaf in keras.tree.flatten(model.predict(packed, verbose=0))
        if len(leaf)
    ]
