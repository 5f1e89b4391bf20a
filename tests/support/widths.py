"""Models of any width, with data, for the coordinate check."""

import keras
import numpy as np
from keras import layers

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 16)).astype("float32")
LABELS = (X @ RNG.normal(size=(16, 10))).argmax(1)
TOKENS = RNG.integers(0, 32, (8, 8))
NEXT = np.roll(TOKENS, -1, 1)


def net(width):
    return keras.Sequential(
        [
            layers.Input((16,)),
            layers.Dense(width, "relu", name="in"),
            layers.Dense(width, "relu", name="first"),
            layers.Dense(width, "relu", name="second"),
            layers.Dense(10, name="out"),
        ]
    )


def decoder(width, heads=None):
    """A decoder of one block; its heads have 16 features, or there are as many as are given."""
    heads = heads or width // 16
    tokens = layers.Input((8,), dtype="int32")
    x = layers.Embedding(32, width, name="tokens")(tokens)
    h = layers.LayerNormalization(name="norm_1")(x)
    h = layers.MultiHeadAttention(heads, width // heads, name="attention")(h, h, use_causal_mask=True)
    x = layers.Add(name="add_1")([x, h])
    h = layers.LayerNormalization(name="norm_2")(x)
    h = layers.Dense(4 * width, "gelu", name="up")(h)
    x = layers.Add(name="add_2")([x, layers.Dense(width, name="down")(h)])
    x = layers.LayerNormalization(name="norm_3")(x)
    return keras.Model(tokens, layers.Dense(32, name="head")(x))


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
