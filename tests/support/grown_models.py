"""Models of any width: those that compute the same function when units are cloned, and those that do not.

`STAY` and `CHANGE` map a name to a function of a width, and the input that the model takes.
"""

import keras
import numpy as np
from keras import layers, ops

__all__ = ["CHANGE", "INPUTS", "STAY", "difference", "randomized"]

_RNG = np.random.default_rng(1)
INPUTS = {
    "features": _RNG.normal(size=(4, 8)).astype("float32"),
    "sequence": _RNG.normal(size=(4, 6, 8)).astype("float32"),
    "image": _RNG.normal(size=(4, 8, 8, 3)).astype("float32"),
    "tokens": _RNG.integers(0, 11, (4, 7)),
}


def randomized(model, seed=0):
    """Returns a model with weights other than those of any initializer: biases and statistics, too."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        value = 0.3 * rng.normal(size=weight.shape)
        if "variance" in weight.name:
            value = 1 + abs(value)
        elif weight.name in ("gamma", "scale"):
            value = 1 + value
        weight.assign(value)
    return model


def difference(one, other, x):
    """The largest difference of two models' outputs, in standard deviations of the first."""
    first, second = (keras.ops.convert_to_numpy(model(x)) for model in (one, other))
    return float(abs(first - second).max() / first.std())


def _with(kind, body, head=3):
    """A function of a width that builds a model with a dense head over `body(width, input)`."""

    def build(width):
        tokens = kind == "tokens"
        entry = layers.Input(INPUTS[kind].shape[1:], dtype="int32" if tokens else None)
        found = body(width, entry)
        return keras.Model(entry, layers.Dense(head)(found) if head else found)

    return build, kind


class Formula(layers.Layer):
    """A layer that is a formula with weights of its own, as users write them."""

    def __init__(self, shapes, formula, **options):
        super().__init__(**options)
        self.shapes, self.formula = shapes, formula

    def build(self, _):
        self.own = [
            self.add_weight(shape=shape, name=f"w{n}", initializer="glorot_uniform")
            for n, shape in enumerate(self.shapes)
        ]

    def call(self, x):
        return self.formula(x, *self.own)


def _swiglu(n, x):
    x = layers.Dense(n)(x)

    def gated(x, gate, value, out):
        return ops.matmul(ops.silu(ops.matmul(x, gate)) * ops.matmul(x, value), out)

    return x + Formula([(n, 2 * n), (n, 2 * n), (2 * n, n)], gated)(layers.RMSNormalization()(x))


def _packed(n, x):
    x = layers.Dense(n)(x)

    def gated(x, both, out):
        gate, value = ops.split(ops.matmul(x, both), 2, axis=-1)
        return ops.matmul(ops.silu(gate) * value, out)

    return x + Formula([(n, 4 * n), (2 * n, n)], gated)(layers.LayerNormalization()(x))


def _written_attention(heads, size):
    def build(n, x):
        h, d = heads(n), size(n)

        def attend(x, query, key, value, out):
            split = [ops.reshape(ops.matmul(x, w), (-1, 6, h, d)) for w in (query, key, value)]
            scores = ops.softmax(ops.einsum("bqhd,bkhd->bhqk", *split[:2]) / np.sqrt(d))
            mixed = ops.einsum("bhqk,bkhd->bqhd", scores, split[2])
            return ops.matmul(ops.reshape(mixed, (-1, 6, h * d)), out)

        x = layers.Dense(n)(x)
        return x + Formula([(n, h * d)] * 3 + [(h * d, n)], attend)(layers.LayerNormalization()(x))

    return build


def _convnet(n, x):
    x = layers.BatchNormalization()(layers.Conv2D(n, 3, padding="same")(x))
    x = layers.Concatenate()([x, layers.Conv2D(n // 2, 3, padding="same", activation="relu")(x)])
    x = layers.DepthwiseConv2D(3, depth_multiplier=2)(layers.BatchNormalization()(x))
    return layers.Flatten()(layers.SeparableConv2D(n, 3)(x))


def _squeezed(n, x):
    x = layers.Conv2D(n, 3)(x)
    gate = layers.Dense(n, "sigmoid")(layers.Dense(n // 4, "relu")(layers.GlobalAveragePooling2D()(x)))
    return x * layers.Reshape((1, 1, n))(gate)


def _shuffled(n, x):
    x = layers.Conv2D(n, 1, groups=2)(layers.Conv2D(n, 3)(x))
    x = ops.transpose(ops.reshape(x, (-1, 6, 6, 2, n // 2)), (0, 1, 2, 4, 3))
    return layers.Conv2D(n, 1, groups=2)(ops.reshape(x, (-1, 6, 6, n)))


def _maxout(n, x):
    return ops.max(ops.reshape(layers.Conv2D(2 * n, 3)(x), (-1, 6, 6, n, 2)), axis=-1)


def _residual(n, x):
    x = layers.Conv2D(n, 3, padding="same")(x)
    return layers.BatchNormalization()(x + layers.Conv2D(n, 3, groups=4, padding="same")(x))


def _attended(layer):
    def build(n, x):
        x = layers.Dense(n)(x)
        return x + layer(n)(x, x)

    return build


def _recurrent(layer):
    return lambda n, x: layer(n)(layer(n, return_sequences=True)(x))


def _both_ways(n, x):
    x = layers.Bidirectional(layers.LSTM(n, return_sequences=True))(x)
    return layers.Bidirectional(layers.GRU(n))(x)


def _mixer(n, x):
    x = layers.Dense(n)(x)
    across = layers.Dense(6)(layers.Dense(n, "gelu")(layers.Permute((2, 1))(layers.LayerNormalization()(x))))
    return x + layers.Permute((2, 1))(across)


def _normed_parts(n, x):
    return layers.LayerNormalization()(layers.Concatenate()([layers.Dense(n)(x), layers.Dense(n // 2)(x)]))


def _einsum(n, x):
    x = layers.EinsumDense("abc,cde->abde", (None, 2, n // 2), bias_axes="de")(x)
    return layers.EinsumDense("abde,def->abf", (None, n), bias_axes="f")(x)


def _grouped(groups):
    return lambda n, x: layers.GroupNormalization(groups(n))(layers.Conv2D(n, 3)(x))


def _wider_heads(n):
    return layers.MultiHeadAttention(2, n // 2)


# The function stays at twice the width.
STAY = {
    "batch_norm": _with("features", lambda n, x: layers.BatchNormalization()(layers.Dense(n)(x))),
    "bidirectional": _with("sequence", _both_ways),
    "concatenate_and_flatten": _with("image", _convnet),
    "conv": _with("image", lambda n, x: layers.Conv2D(n, 3)(layers.Conv2D(n, 3, activation="relu")(x))),
    "dense": _with("features", lambda n, x: layers.Dense(n, "gelu")(layers.Dense(n, "relu")(x))),
    "einsum_dense": _with("sequence", _einsum),
    "excited": _with("image", _squeezed),
    "group_norm": _with("image", _grouped(lambda n: 4)),
    "group_norm_of_more_groups": _with("image", _grouped(lambda n: n // 2)),
    "grouped_conv": _with("image", _residual),
    "gru": _with("sequence", _recurrent(layers.GRU)),
    "layer_norm": _with("features", lambda n, x: layers.LayerNormalization()(layers.Dense(n)(x))),
    "lstm": _with("sequence", _recurrent(layers.LSTM)),
    "maxout": _with("image", _maxout),
    "mixer": _with("sequence", _mixer),
    "more_heads": _with("sequence", _attended(lambda n: layers.MultiHeadAttention(n // 4, 4))),
    "more_query_heads": _with("sequence", _attended(lambda n: layers.GroupQueryAttention(4, n // 2, 2))),
    "norm_of_parts": _with("features", _normed_parts),
    "packed_gate": _with("sequence", _packed),
    "query_groups": _with("sequence", _attended(lambda n: layers.GroupQueryAttention(4, n // 2, n // 4))),
    "shuffled_channels": _with("image", _shuffled),
    "swiglu": _with("sequence", _swiglu),
    "transposed": _with("image", lambda n, x: layers.Conv2DTranspose(n, 3, 2)(layers.Conv2D(n, 3, 2)(x))),
    "wider_heads": _with("sequence", _attended(_wider_heads)),
    "written_attention": _with("sequence", _written_attention(lambda n: n // 4, lambda n: 4)),
}
_SINES = {n: np.sin(np.arange(7)[:, None] + np.arange(n)).astype("float32") for n in (8, 16)}
# The function changes, for the reason that the row gives.
CHANGE = {
    "attention_without_weights": (
        *_with("sequence", lambda n, x: layers.Attention()([layers.Dense(n)(x), layers.Dense(n)(x)])),
        "two signals",
    ),
    "cumulative": (
        *_with("features", lambda n, x: ops.cumsum(layers.Dense(n)(x), axis=-1)),
        "takes all its units",
    ),
    "fixed_positions": (
        *_with("tokens", lambda n, x: layers.Embedding(11, n)(x) + _SINES[n]),
        "a table of constants",
    ),
    "product_of_two": (
        *_with("features", lambda n, x: layers.Dot(1)([layers.Dense(n)(x), layers.Dense(n)(x)])),
        "two signals",
    ),
    "root_of_the_width": (
        *_with("tokens", lambda n, x: layers.Embedding(11, n)(x) * float(np.sqrt(n))),
        "other numbers (4) than the donor's (2.828)",
    ),
    "softmax": (*_with("features", lambda n, x: layers.Dense(n, "softmax")(x)), "takes all its units"),
    "sum": (
        *_with("features", lambda n, x: ops.sum(layers.Dense(n, "relu")(x), axis=-1, keepdims=True), head=0),
        "sum",
    ),
    "unit_norm": (*_with("features", lambda n, x: layers.UnitNormalization()(layers.Dense(n)(x))), "sum"),
    "written_attention": (
        *_with("sequence", _written_attention(lambda n: 2, lambda n: n // 2)),
        "two signals",
    ),
}
