"""What diagnose reads of one fixed model; as a script, prints it for a comparison of backends."""

import json
import sys

import keras
import numpy as np
from keras import layers

import keras_initx as initx


def build():
    inputs = layers.Input((6, 6, 2))
    x = layers.Conv2D(6, 3, padding="same", name="stem")(inputs)
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    x = layers.add([x, layers.DepthwiseConv2D(3, padding="same", activation="tanh", name="dw")(x)])
    x = layers.Reshape((36, 6))(x)
    x = layers.LayerNormalization()(layers.MultiHeadAttention(2, 3, name="mha")(x, x) + x)
    model = keras.Model(inputs, layers.Dense(4, name="head")(layers.GlobalAveragePooling1D()(x)))
    rng = np.random.default_rng(0)
    drawn = [rng.normal(size=w.shape) for w in model.get_weights()]
    model.set_weights([0.5 + 0.3 * w**2 if w.ndim == 1 else 0.3 * w for w in drawn])
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def measure():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(24, 6, 6, 2)).astype("float32"), rng.integers(0, 4, 24)
    report = initx.diagnose(build(), (x, y), jacobian=True)
    found = {row.path: [v for v in vars(row).values() if isinstance(v, float)] for row in report.rows}
    totals = [report.loss, report.forward_gain, report.backward_gain, report.chi_1, report.jacobian.largest]
    return found | {"totals": totals}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure()))
