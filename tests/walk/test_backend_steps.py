"""A layer that calls the backend's own functions has the place in the flow of one by Keras' operations."""

import keras
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.walk import iter_kernels
from keras_initx.walk._affine import with_numbers
from keras_initx.walk._operations import label_of

BACKEND = keras.backend.backend()
if BACKEND == "tensorflow":
    import tensorflow as tf

    OWN = {
        "matmul": tf.matmul,
        "scores": lambda q, k: tf.nn.softmax(tf.einsum("bqd,bkd->bqk", q, k)),
        "normalize": lambda x: x * tf.math.rsqrt(tf.reduce_mean(x * x, axis=-1, keepdims=True) + 1e-6),
        "turn": lambda x: tf.transpose(x, (0, 2, 1)),
        "relu": tf.nn.relu,
        "relu6": tf.nn.relu6,
        "max(x, 0)": lambda x: tf.maximum(x, 0.0),
        "tanh": tf.tanh,
        "sigmoid": tf.sigmoid,
        "softplus": tf.nn.softplus,
        "silu": tf.nn.silu,
        "selu": tf.nn.selu,
        "gelu": tf.nn.gelu,
        "gelu by tanh": lambda x: tf.nn.gelu(x, approximate=True),
        "mish": lambda x: x * tf.tanh(tf.nn.softplus(x)),
        "leaky": tf.nn.leaky_relu,
        "2 relu": lambda x: 2 * tf.nn.relu(x),
        "relu / 2": lambda x: tf.nn.relu(x) / 2,
        "1 - sigmoid": lambda x: 1 - tf.sigmoid(x),
        "softplus - 0.5": lambda x: tf.nn.softplus(x) - 0.5,
    }
elif BACKEND == "jax":
    import jax
    import jax.numpy as jnp

    OWN = {
        "matmul": jnp.matmul,
        "scores": lambda q, k: jax.nn.softmax(jnp.einsum("bqd,bkd->bqk", q, k)),
        "normalize": lambda x: x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6),
        "turn": lambda x: jnp.transpose(x, (0, 2, 1)),
        "relu": jax.nn.relu,
        "relu6": jax.nn.relu6,
        "tanh": jnp.tanh,
        "sigmoid": jax.nn.sigmoid,
        "softplus": jax.nn.softplus,
        "silu": jax.nn.silu,
        "selu": jax.nn.selu,
        "gelu by tanh": jax.nn.gelu,
        "mish": lambda x: x * jnp.tanh(jax.nn.softplus(x)),
        "leaky": jax.nn.leaky_relu,
        "max(x, 0)": lambda x: jnp.maximum(x, 0.0),
        "2 relu": lambda x: 2 * jax.nn.relu(x),
        "relu / 2": lambda x: jax.nn.relu(x) / 2,
        "1 - sigmoid": lambda x: 1 - jax.nn.sigmoid(x),
        "softplus - 0.5": lambda x: jax.nn.softplus(x) - 0.5,
    }
else:
    import torch
    from torch.nn import functional

    OWN = {
        "matmul": torch.matmul,
        "scores": lambda q, k: torch.softmax(torch.einsum("bqd,bkd->bqk", q, k), -1),
        "normalize": lambda x: x * torch.rsqrt(torch.mean(x * x, dim=-1, keepdim=True) + 1e-6),
        "turn": lambda x: torch.permute(x, (0, 2, 1)),
        "relu": functional.relu,
        "relu6": functional.relu6,
        "max(x, 0)": lambda x: torch.clamp(x, min=0),
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "softplus": functional.softplus,
        "silu": functional.silu,
        "selu": functional.selu,
        "gelu": functional.gelu,
        "gelu by tanh": lambda x: functional.gelu(x, approximate="tanh"),
        "mish": lambda x: x * torch.tanh(functional.softplus(x)),
        "leaky": functional.leaky_relu,
        "2 relu": lambda x: 2 * functional.relu(x),
        "relu / 2": lambda x: functional.relu(x) / 2,
        "1 - sigmoid": lambda x: 1 - torch.sigmoid(x),
        "softplus - 0.5": lambda x: functional.softplus(x) - 0.5,
    }
NUMBERS = {
    "2 relu": ("relu", 2, 0),
    "relu / 2": ("relu", 0.5, 0),
    "1 - sigmoid": ("sigmoid", -1, 1),
    "softplus - 0.5": ("softplus", 1, -0.5),
}
NOT_ACTIVATIONS = ("matmul", "scores", "normalize", "turn")
KERAS = {
    "matmul": ops.matmul,
    "scores": lambda q, k: ops.softmax(ops.einsum("bqd,bkd->bqk", q, k)),
    "normalize": lambda x: x * ops.rsqrt(ops.mean(x * x, axis=-1, keepdims=True) + 1e-6),
    "turn": lambda x: ops.transpose(x, (0, 2, 1)),
    "tanh": ops.tanh,
}


class Block(layers.Layer):
    """Attention and a perceptron, each in a residual branch behind a normalization."""

    def __init__(self, functions, gated=False, **options):
        super().__init__(**options)
        self.functions, self.gated = functions, gated

    def build(self, shape):
        size = shape[-1]
        self.q, self.k, self.v, self.o = (
            self.add_weight(shape=(size, size), name=name) for name in ("q", "k", "v", "o")
        )
        self.up = self.add_weight(shape=(size, 24), name="up")
        self.shift = self.add_weight(shape=(24,), name="shift", initializer="zeros")
        if self.gated:
            self.gate = self.add_weight(shape=(size, 24), name="gate")
        self.down = self.add_weight(shape=(24, size), name="down")

    def call(self, x):
        run = self.functions
        product = lambda x, w: run["matmul"](x, ops.convert_to_tensor(w) if run is not KERAS else w)  # noqa: E731
        n = run["normalize"](x)
        scores = run["scores"](product(n, self.q), product(n, self.k))
        x = x + product(run["matmul"](scores, product(n, self.v)), self.o)
        shift = self.shift if run is KERAS else ops.convert_to_tensor(self.shift)
        hidden = run["tanh"](product(run["normalize"](x), self.up) + shift)
        if self.gated:
            hidden = run["silu"](product(x, self.gate)) * hidden
        return x + product(hidden, self.down)


def places(block):
    model = keras.Sequential([layers.Input((5, 16)), block, layers.Dense(3, name="head")])
    return {
        site.path: (
            site.role, site.activation, site.feeds, site.depth, site.branch, site.ends_branch, site.is_output,
            site.normalized, site.note, site.obstacle,
        )
        for site in iter_kernels(model)
    }  # fmt: skip


def test_the_same_block_by_keras_operations_has_the_same_places():
    found = places(Block(OWN, name="block"))
    assert found == places(Block(KERAS, name="block"))
    assert found["block/down"][1] == "tanh"
    assert [path for path, place in found.items() if place[5]] == ["block/o", "block/down"]


def test_a_gated_unit_by_the_backend_is_swiglu_or_unknown():
    functions = {**OWN, "tanh": lambda x: x}
    assert places(Block(functions, gated=True, name="block"))["block/down"][1] == "swiglu"


class Activated(layers.Layer):
    def __init__(self, function, by_keras=False, **options):
        super().__init__(**options)
        self.function, self.by_keras = function, by_keras

    def build(self, shape):
        self.first = self.add_weight(shape=(shape[-1], 24), name="first")
        self.second = self.add_weight(shape=(24, 8), name="second")

    def call(self, x):
        if self.by_keras:
            return self.function(x @ self.first) @ self.second
        first, second = map(ops.convert_to_tensor, (self.first, self.second))
        return OWN["matmul"](self.function(OWN["matmul"](x, first)), second)


@pytest.mark.parametrize("name", [name for name in OWN if name not in (*NOT_ACTIVATIONS, *NUMBERS)])
def test_the_backends_own_activation_feeds_the_kernel_behind_it(name):
    model = keras.Sequential([layers.Input((16,)), Activated(OWN[name], name="own")])
    _, second = iter_kernels(model)
    label = None if second.activation is None else label_of(second.activation)
    expected = {"leaky": None, "max(x, 0)": "relu", "gelu by tanh": "gelu"}.get(name, name)
    assert label == expected
    # Where the slope below zero is not known, the row says so.
    assert second.note == ("the activation that feeds it is not known" if name == "leaky" else "")
    assert second.depth == 1


def second_of(function, by_keras=False):
    model = keras.Sequential([layers.Input((16,)), Activated(function, by_keras, name="own")])
    return list(iter_kernels(model))[1]


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_scale_and_shift_an_activation_count(name):
    activation = second_of(OWN[name]).activation
    label, scale, shift = NUMBERS[name]
    assert activation == with_numbers(label, scale, shift)
    # The gain is that of the whole function, as a user would compute it.
    own = keras.activations.get(label)
    assert initx.gains.compute_gain(activation) == initx.gains.compute_gain(lambda x: scale * own(x) + shift)


def test_numbers_count_in_the_operations_of_keras_too():
    assert second_of(lambda x: 3 * (2 * ops.relu(x) + 1), True).activation == with_numbers("relu", 6, 3)
    assert second_of(lambda x: ops.maximum(0, x), True).activation == "relu"
    assert second_of(lambda x: 2 * x + 1, True).activation is None


@pytest.mark.parametrize("by_keras", [True, False])
def test_a_signal_times_itself_is_not_linear(by_keras):
    site = second_of(lambda x: x * x, by_keras)
    assert (site.activation, site.note) == (None, "the activation that feeds it is not known")


def test_layers_of_keras_inside_keep_their_table_and_get_their_place():
    class Mixed(layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.one, self.two = layers.Dense(16, "relu", name="one"), layers.Dense(16, name="two")

        def build(self, shape):
            self.one.build(shape)
            self.two.build((*shape[:-1], 16))

        def call(self, x):
            return x + OWN["tanh"](self.two(OWN["turn"](OWN["turn"](self.one(x)))))

    model = keras.Sequential([layers.Input((5, 16)), Mixed(name="own"), layers.Dense(3, name="head")])
    sites = {site.path: site for site in iter_kernels(model)}
    assert {p: (s.activation, s.depth, s.ends_branch, s.note) for p, s in sites.items()} == {
        "own/one": (None, 0, False, ""),
        "own/two": ("relu", 1, True, ""),
        "head": (None, 2, False, ""),
    }
    initx.initialize(model, "Fixup", seed=1)
    zero = [path for path, s in sites.items() if not ops.convert_to_numpy(s.kernel.value).any()]
    assert zero == ["own/two", "head"]
