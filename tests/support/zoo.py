"""Layers as people write them: weights by `add_weight`, and Keras' operations, Python's operators or the
backend's own.

Each layer notes its pre-activations while `notes` is a dict, and adds tensors to them while `offsets` is one:
the gradient at a tensor of zeros is the gradient at the pre-activation. No code of the package knows of these
probes from outside.
"""

import keras
import numpy as np
from keras import layers, ops


def backend_matmul(x, w):
    """The backend's own product, which does not run on KerasTensors."""
    w = getattr(w, "value", w)
    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        return tf.matmul(x, w)
    if name == "jax":
        import jax.numpy as jnp

        return jnp.matmul(x, w)
    import torch

    return torch.matmul(x, w)


def backend_einsum(equation, x, w):
    w = getattr(w, "value", w)
    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        return tf.einsum(equation, x, w)
    if name == "jax":
        import jax.numpy as jnp

        return jnp.einsum(equation, x, w)
    import torch

    return torch.einsum(equation, x, w)


class Noting(layers.Layer):
    """Notes tensors by name."""

    notes = None
    offsets = None

    def note(self, name, tensor):
        if self.offsets is not None:
            tensor = tensor + self.offsets[name]
        if self.notes is not None:
            self.notes[name] = np.array(ops.convert_to_numpy(ops.stop_gradient(tensor)))
        return tensor

    def weight(self, name, *shape, **options):
        return self.add_weight(shape=shape, name=name, **options)


class Attention(Noting):
    """Attention with head axes in its weights, a norm with a scale before it, and a residual sum."""

    def build(self, shape):
        width = shape[-1]
        self.query, self.key, self.value = (
            self.weight(name, width, 4, 8) for name in ("query", "key", "value")
        )
        self.shift = self.weight("shift", 4, 8, initializer="zeros")
        self.out = self.weight("out", 4, 8, width)
        self.gain = self.weight("gain", width, initializer="ones")

    def call(self, x):
        h = x * ops.rsqrt(ops.mean(x * x, axis=-1, keepdims=True) + 1e-6) * self.gain
        query = self.note("query", ops.einsum("btd,dhk->bthk", h, self.query) + self.shift)
        key = self.note("key", backend_einsum("btd,dhk->bthk", h, self.key))
        value = self.note("value", ops.tensordot(h, self.value, axes=1))
        weights = ops.softmax(ops.einsum("bthk,bshk->bhts", query, key) / 8**0.5)
        mixed = ops.einsum("bhts,bshk->bthk", weights, value)
        return x + self.note("out", ops.einsum("bthk,hkd->btd", mixed, self.out))


class FusedAttention(Noting):
    """Query, key and value from one product."""

    def build(self, shape):
        self.fused = self.weight("fused", shape[-1], 3 * shape[-1])
        self.out = self.weight("out", shape[-1], shape[-1])

    def call(self, x):
        query, key, value = ops.split(self.note("fused", x @ self.fused), 3, axis=-1)
        weights = ops.softmax(query @ ops.transpose(key, (0, 2, 1)) / x.shape[-1] ** 0.5)
        return x + self.note("out", (weights @ value) @ self.out)


class Shifted(Noting):
    """Products with biases of several forms, none of them constant."""

    def build(self, shape):
        random = keras.initializers.RandomNormal(stddev=3.0, seed=4)
        self.first, self.bias = (
            self.weight("first", shape[-1], 12),
            self.weight("bias", 12, initializer=random),
        )
        self.second, self.row = self.weight("second", 12, 8), self.weight("row", 1, 8, initializer=random)
        self.third, self.long = self.weight("third", 8, 4), self.weight("long", 6, initializer=random)

    def call(self, x):
        h = self.note("first", x @ self.first + self.bias)
        h = self.note("second", self.row + backend_matmul(h, self.second))
        return h @ self.third + self.long[:4]


class Chosen(Noting):
    """A mixture of experts that looks up the matrix of each row's expert."""

    def build(self, shape):
        self.experts = self.weight("experts", 4, shape[-1], 8)

    def call(self, x):
        pooled = ops.mean(x, axis=1)
        chosen = ops.cast(ops.abs(pooled[:, 0]) * 8, "int32") % 4
        return self.note("experts", ops.einsum("bd,bdh->bh", pooled, ops.take(self.experts, chosen, axis=0)))


class Noisy(Noting):
    """A product beside noise with a seed of its own."""

    def build(self, shape):
        self.seeds = keras.random.SeedGenerator(3)
        self.mixing = self.weight("mixing", shape[-1], 8)

    def call(self, x):
        return self.note("mixing", x @ self.mixing) + 0.01 * keras.random.normal((8,), seed=self.seeds)


class SwiGLU(Noting):
    def build(self, shape):
        self.gate = self.weight("gate", shape[-1], 48)
        self.up = self.weight("up", shape[-1], 48)
        self.down = self.weight("down", 48, shape[-1])

    def call(self, x):
        gate, up = self.note("gate", x @ self.gate), self.note("up", x @ self.up)
        return x + self.note("down", (ops.silu(gate) * up) @ self.down)


class BackendMLP(Noting):
    """Two products of the backend's own."""

    def build(self, shape):
        self.first = self.weight("first", shape[-1], 40)
        self.shift = self.weight("shift", 40, initializer="zeros")
        self.second = self.weight("second", 40, shape[-1])

    def call(self, x):
        h = self.note("first", backend_matmul(x, self.first) + ops.convert_to_tensor(self.shift))
        return self.note("second", backend_matmul(ops.relu(h), self.second))


class Turned(Noting):
    """Weights that are cut, transposed, joined and reshaped before their products."""

    def build(self, shape):
        self.turned = self.weight("turned", 12, shape[-1])
        self.left, self.right = self.weight("left", 12, 10), self.weight("right", 12, 6)
        self.folded = self.weight("folded", 16, 2, shape[-1])

    def call(self, x):
        h = self.note("turned", x @ ops.transpose(self.turned))
        h = h @ ops.concatenate([self.left, self.right], axis=1)
        return self.note(
            "folded", ops.reshape(h @ ops.reshape(self.folded, (16, -1)), (-1, x.shape[1], 2, x.shape[2]))
        )[:, :, 0]


class Experts(Noting):
    """A mixture of experts: a router, and a product with an axis of experts in input, weight and output."""

    def build(self, shape):
        self.router = self.weight("router", shape[-1], 5)
        self.first = self.weight("first", 5, shape[-1], 12)
        self.second = self.weight("second", 5, 12, shape[-1])

    def call(self, x):
        chosen = ops.softmax(self.note("router", x @ self.router))
        h = self.note("first", ops.einsum("btd,edf->ebtf", x, self.first))
        y = self.note("second", ops.matmul(ops.reshape(ops.relu(h), (5, -1, 12)), self.second))
        y = ops.reshape(y, (5, -1, x.shape[1], x.shape[2]))
        return ops.einsum("bte,ebtd->btd", chosen, y)


class Tied(Noting):
    """An autoencoder whose decoder is the transpose of its encoder."""

    def build(self, shape):
        self.code = self.weight("code", shape[-1], 7)

    def call(self, x):
        return ops.matmul(ops.tanh(x @ self.code), ops.transpose(self.code))


class Standardized(Noting):
    """A weight that is standardized before its product."""

    def build(self, shape):
        self.raw = self.weight("raw", shape[-1], 9)

    def call(self, x):
        centered = self.raw - ops.mean(self.raw, axis=0, keepdims=True)
        return x @ (centered / ops.std(self.raw, axis=0, keepdims=True))


class LowRank(Noting):
    """One layer with its factors in a row, and one whose factors are multiplied first."""

    def build(self, shape):
        self.down, self.up = self.weight("down", shape[-1], 3), self.weight("up", 3, shape[-1])
        self.one, self.two = self.weight("one", shape[-1], 3), self.weight("two", 3, shape[-1])

    def call(self, x):
        h = self.note("up", self.note("down", x @ self.down) @ self.up)
        return h @ (self.one @ self.two)


class Positions(Noting):
    """A table of positions and a class token, which no product takes."""

    def build(self, shape):
        self.table = self.weight("table", *shape[1:])
        self.token = self.weight("token", 1, 1, shape[-1])

    def call(self, x):
        token = ops.broadcast_to(self.token, (ops.shape(x)[0], 1, x.shape[-1]))
        return ops.concatenate([token, x + self.table], axis=1)


class Convolutions(Noting):
    """Plain, depthwise, grouped and transposed convolutions."""

    def build(self, shape):
        self.plain = self.weight("plain", 3, 3, shape[-1], 8)
        self.shift = self.weight("shift", 8, initializer="zeros")
        self.deep = self.weight("deep", 3, 3, 8, 2)
        self.back = self.weight("back", 3, 3, 5, 16)

    def call(self, x):
        x = self.note("plain", ops.conv(x, self.plain, padding="same") + self.shift)
        x = self.note("deep", ops.depthwise_conv(ops.relu(x), self.deep, padding="same"))
        return self.note("back", ops.conv_transpose(x, self.back, strides=2, padding="same"))


class Grouped(Noting):
    def build(self, shape):
        self.grouped = self.weight("grouped", 3, 3, shape[-1] // 2, 8)

    def call(self, x):
        return ops.conv(x, self.grouped, strides=2, padding="same")


class Lookup(Noting):
    """A table that is looked up, by hand."""

    def build(self, shape):
        self.table = self.weight("table", 11, 16)

    def call(self, x):
        return ops.take(self.table, x, axis=0)


# For each kernel: role, fan_in, fan_out, and a part of the reason why it cannot be scaled. None: no kernel.
TEXT = (6, 32)
MAP = (8, 8, 4)
ZOO = {
    "attention": (Attention, TEXT, {
        **{name: (name, 32, 32, "") for name in ("query", "key", "value")},
        "out": ("attention_output", 32, 32, ""),
    }),
    "fused": (FusedAttention, TEXT, {"fused": ("dense", 32, 96, ""), "out": ("dense", 32, 32, "")}),
    "swiglu": (SwiGLU, TEXT, {
        "gate": ("dense", 32, 48, ""), "up": ("dense", 32, 48, ""), "down": ("dense", 48, 32, ""),
    }),
    "backend": (BackendMLP, TEXT, {"first": ("dense", 32, 40, ""), "second": ("dense", 40, 32, "")}),
    "turned": (Turned, TEXT, {
        "turned": ("dense", 32, 12, ""), "left": ("dense", 12, 10, "beside other weights"),
        "right": ("dense", 12, 6, "beside other weights"), "folded": ("einsum", 16, 64, ""),
    }),
    "experts": (Experts, TEXT, {
        "router": ("dense", 32, 5, ""), "first": ("einsum", 32, 60, ""), "second": ("einsum", 12, 32, ""),
    }),
    "tied": (Tied, TEXT, {"code": ("dense", 32, 7, "in different ways")}),
    "standardized": (Standardized, TEXT, {"raw": ("dense", 32, 9, "before it is used")}),
    "low rank": (LowRank, TEXT, {
        "down": ("dense", 32, 3, ""), "up": ("dense", 3, 32, ""),
        "one": ("dense", 32, 3, "another weight"), "two": ("dense", 3, 32, "another weight"),
    }),
    "positions": (Positions, TEXT, {}),
    "shifted": (Shifted, TEXT, {
        "first": ("dense", 32, 12, ""), "second": ("dense", 12, 8, ""),
        "third": ("dense", 8, 4, "made of another weight"),
    }),
    "chosen": (Chosen, TEXT, {"experts": ("einsum", 32, 8, "")}),
    "noisy": (Noisy, TEXT, {"mixing": ("dense", 32, 8, "")}),
    "convolutions": (Convolutions, MAP, {
        "plain": ("conv", 36, 72, ""), "deep": ("depthwise", 9, 18, ""), "back": ("transposed", 36, 45, ""),
    }),
    "grouped": (Grouped, MAP, {"grouped": ("conv", 18, 9, "")}),
    "lookup": (Lookup, (5,), {"table": ("embedding", 1, 16, "")}),
}  # fmt: skip


def model_of(row):
    """A model of one layer of the zoo."""
    own, shape, _ = row
    inputs = layers.Input(shape, dtype="int32" if len(shape) == 1 else None)
    return keras.Model(inputs, own(name="own")(inputs))


def batch_of(row, rows=64):
    rng = np.random.default_rng(0)
    _, shape, _ = row
    if len(shape) == 1:
        return rng.integers(0, 11, (rows, *shape)).astype("int32")
    return rng.standard_normal((rows, *shape)).astype("float32")


class Cell(layers.Layer):
    """A recurrent cell by hand."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.state_size = units

    def build(self, shape):
        self.inner = self.add_weight(shape=(shape[-1], self.state_size), name="inner")
        self.back = self.add_weight(shape=(self.state_size, self.state_size), name="back")

    def call(self, x, states):
        state = ops.tanh(x @ self.inner + states[0] @ self.back)
        return state, [state]
