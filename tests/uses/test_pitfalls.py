"""Layers by hand that once gave a wrong number, or lost what they must keep, without a word."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.walk import iter_kernels


def own(build, call, name="own"):
    """A layer of one `build`, which returns the shapes of its weights by name, and one `call`."""

    class Own(layers.Layer):
        def build(self, shape):
            for key, size in build(shape[-1]).items():
                setattr(self, key, self.add_weight(shape=size, name=key))

        def call(self, x):
            return call(self, x)

    return Own(name=name)


def model_of(layer, shape=(16,), **options):
    return keras.Sequential([layers.Input(shape, **options), layer, layers.Dense(3, name="head")])


def zeros(model):
    return {s.path for s in iter_kernels(model) if not ops.convert_to_numpy(s.kernel.value).any()}


def square(*names):
    return lambda size: dict.fromkeys(names, (size, size))


@pytest.mark.parametrize("strategy", ["Fixup", "ZeroResidual"])
def test_of_two_factors_of_a_branch_one_is_zero(strategy):
    layer = own(
        square("gate", "inner", "outer"),
        lambda s, x: x + ops.tanh(x @ s.gate) * (ops.relu(x @ s.inner) @ s.outer),
    )
    model = model_of(layer)
    initx.initialize(model, strategy, seed=1)
    assert zeros(model) - {"head"} == {"own/outer"}


def test_a_model_that_returns_scores_keeps_one_of_their_factors():
    layer = own(square("q", "k"), lambda s, x: (x @ s.q) @ ops.transpose(x @ s.k, (0, 2, 1)))
    model = keras.Sequential([layers.Input((5, 16)), layer])
    initx.initialize(model, "ZeroHead", seed=1)
    assert zeros(model) == {"own/k"}


def test_the_kernel_of_a_loop_ends_no_residual_branch():
    def loop(s, x):
        state = ops.zeros((x.shape[0] or 2, 16))
        for step in range(4):
            state = ops.tanh(x[:, step] @ s.inner + state @ s.back)
        return state

    model = model_of(own(square("inner", "back"), loop), (4, 16), batch_size=2)
    assert not any(site.ends_branch or site.branch for site in iter_kernels(model))


GATES = {
    "a wavenet's": ("tanh(a) sigmoid(b)", None),
    "of a split": ("a sigmoid(b) of a split", "glu"),
    "of slices": ("a sigmoid(b) of slices", "glu"),
    "of itself": ("a sigmoid(a)", "silu"),
}


@pytest.mark.parametrize(("code", "expected"), GATES.values(), ids=GATES)
def test_the_activation_of_a_gate(code, expected):
    def call(s, x):
        both = x @ s.first
        a, b = ops.split(both, 2, axis=-1) if code.endswith("a split") else (both[:, :16], both[:, 16:])
        made = {
            "tanh(a) sigmoid(b)": lambda: ops.tanh(a) * ops.sigmoid(b),
            "a sigmoid(a)": lambda: a * ops.sigmoid(a),
        }.get(code, lambda: a * ops.sigmoid(b))()
        return made @ s.second

    model = model_of(own(lambda size: {"first": (size, 32), "second": (16, 16)}, call))
    second = next(site for site in iter_kernels(model) if site.kernel.name == "second")
    assert second.activation == expected
    assert second.note == ("" if expected else "the activation that feeds it is not known")


def test_a_kernel_whose_uses_are_fed_differently_says_so():
    def call(s, x):
        for number in range(3):
            x = ops.relu(x @ s.stack[number])
        return x

    model = model_of(own(lambda size: {"stack": (3, size, size)}, call))
    site = next(iter_kernels(model))
    assert (site.activation, site.note) == (None, "different activations feed it in its uses")


def test_what_is_read_of_an_activation_is_that_of_this_activation():
    """Of relu(x a + x c), relu(x a) is no part; of z sigmoid(z), sigmoid(z) is none either."""
    summed = own(square("a", "c"), lambda s, x: ops.relu(x @ s.a + x @ s.c))
    itself = own(square("a"), lambda s, x: (x @ s.a) * ops.sigmoid(x @ s.a))
    scaled = own(square("a"), lambda s, x: ops.tanh(40.0 * (x @ s.a)))
    plain = own(square("a"), lambda s, x: ops.relu(x @ s.a))
    for layer, feeds in ((summed, None), (itself, None), (scaled, None), (plain, "relu")):
        assert next(iter_kernels(model_of(layer))).feeds == feeds


@pytest.mark.parametrize("kind", ["layer of Keras", "by hand"])
def test_a_table_that_makes_the_logits_is_drawn_by_the_root_of_its_width(kind):
    class Tied(keras.Model):
        def __init__(self):
            super().__init__()
            self.table = layers.Embedding(50, 64) if kind == "layer of Keras" else None

        def build(self, shape):
            self.mix = self.add_weight(shape=(64, 64), name="mix")
            self.own = self.table or self.add_weight(shape=(50, 64), name="own")
            if self.table:
                self.table.build(shape)

        def call(self, tokens):
            table = self.table.embeddings if self.table else self.own
            state = self.table(tokens) if self.table else ops.take(table, tokens, axis=0)
            return ops.matmul(state + state @ self.mix, ops.transpose(table))

    model = Tied()
    tokens = np.random.default_rng(0).integers(0, 50, (8, 6))
    model(tokens)
    site = next(site for site in iter_kernels(model) if site.role == "embedding")
    assert site.tied
    assert site.obstacle
    initx.initialize(model, "by_role", seed=1)
    # The sample standard deviation of n normal numbers scatters by 1 / sqrt(2 n) of itself.
    error = 4 / (2 * 50 * 64) ** 0.5
    assert ops.convert_to_numpy(site.kernel.value).std() == pytest.approx(1 / 8, rel=error)


def test_the_prior_of_a_head_by_hand_stays():
    prior = initx.initializers.PriorBias(0.01)

    class Head(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 1), name="kernel")
            self.bias = self.add_weight(shape=(1,), name="bias", initializer=prior)

        def call(self, x):
            return x @ self.kernel + self.bias

    model = keras.Sequential([layers.Input((16,)), layers.Dense(32, "relu"), Head(name="own")])
    batch = np.random.default_rng(0).standard_normal((256, 16)).astype("float32")
    report = initx.calibrate(model, batch, "LSUV", seed=1)
    assert float(ops.mean(model(batch))) == pytest.approx(np.log(0.01 / 0.99), abs=1e-3)
    assert "holds a prior (PriorBias)" in report.rows[-1].bias


def test_one_frozen_weight_stays():
    model = keras.Sequential([layers.Input((6,)), layers.Dense(4, name="one"), layers.Dense(2, name="two")])
    kernel = model.layers[0].kernel
    kernel.trainable = False
    before = ops.convert_to_numpy(kernel.value).copy()
    report = initx.initialize(model, "by_role", seed=3)
    np.testing.assert_array_equal(ops.convert_to_numpy(kernel.value), before)
    assert "frozen" in next(row.note for row in report.rows if row.path == "one")
    initx.initialize(model, "by_role", seed=3, frozen=True)
    assert (ops.convert_to_numpy(kernel.value) != before).any()


ATTENTIONS = {
    "rotary": lambda s, q, k, v: mixed(s, turned(q), turned(k), v),
    "capped": lambda s, q, k, v: mixed(s, q, k, v, lambda scores: 5 * ops.tanh(scores / 5)),
    "one operation": lambda s, q, k, v: ops.dot_product_attention(
        *(ops.expand_dims(one, 2) for one in (q, k, v))
    )[:, :, 0],
}


def turned(x):
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[1])[:, None] / 10 ** np.arange(half)
    both = np.concatenate([angles, angles], -1).astype("float32")
    cos, sin = (ops.convert_to_tensor(f(both)) for f in (np.cos, np.sin))
    return x * cos + ops.concatenate([-x[..., half:], x[..., :half]], -1) * sin


def mixed(s, q, k, v, cap=lambda scores: scores):
    return ops.softmax(cap(q @ ops.transpose(k, (0, 2, 1)) / 4)) @ v


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_the_roles_of_attention_as_people_write_it(kind):
    attend = ATTENTIONS[kind]
    layer = own(square(*"qkvo"), lambda s, x: x + attend(s, x @ s.q, x @ s.k, x @ s.v) @ s.o)
    roles = {s.kernel.name: s.role for s in iter_kernels(model_of(layer, (5, 16))) if s.attention}
    assert roles == {"q": "query", "k": "key", "v": "value", "o": "attention_output"}


def between(scores):
    """Attention whose scores go through a function other than a softmax."""
    return lambda s, q, k, v: ops.matmul(scores(ops.matmul(q, ops.transpose(k, (0, 2, 1)))), v)


@pytest.mark.parametrize(
    "scores", [ops.relu, lambda x: ops.square(ops.relu(x)), lambda x: ops.sigmoid(x - 1)]
)
def test_attention_with_another_activation_has_roles(scores):
    attend = between(scores)
    layer = own(square(*"qkvo"), lambda s, x: x + attend(s, x @ s.q, x @ s.k, x @ s.v) @ s.o)
    roles = {s.kernel.name: s.role for s in iter_kernels(model_of(layer, (5, 16))) if s.attention}
    assert roles == {"q": "query", "k": "key", "v": "value", "o": "attention_output"}


def keys_and_values_first(s, q, k, v):
    return ops.matmul(q, ops.matmul(ops.transpose(k, (0, 2, 1)), v))


@pytest.mark.parametrize("attend", [between(lambda x: x / 4), keys_and_values_first])
def test_linear_attention_has_no_roles_and_deep_norm_refuses_it(attend):
    inputs = layers.Input((5, 16))
    x = layers.Add()([inputs, layers.MultiHeadAttention(2, 8)(inputs, inputs)])
    x = own(square(*"qkvo"), lambda s, x: x + attend(s, x @ s.q, x @ s.k, x @ s.v) @ s.o, "linear")(x)
    with pytest.raises(ValueError, match="each must be a kernel of its own .* Received: `linear/[qk]`"):
        initx.initialize(keras.Model(inputs, x), "DeepNorm", seed=1)


def test_deep_norm_refuses_query_key_and_value_in_one_kernel():
    def fused(s, x):
        q, k, v = ops.split(x @ s.both, 3, axis=-1)
        return x + mixed(s, q, k, v) @ s.o

    inputs = layers.Input((5, 16))
    x = own(square(*"qkvo"), lambda s, x: x + mixed(s, x @ s.q, x @ s.k, x @ s.v) @ s.o, "one")(inputs)
    x = own(lambda size: {"both": (size, 3 * size), "o": (size, size)}, fused, "two")(x)
    with pytest.raises(ValueError, match="each must be a kernel of its own .* Received: `two/both`"):
        initx.initialize(keras.Model(inputs, x), "DeepNorm", seed=1)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch's modules")
def test_torch_modules_keep_their_buffers_and_start_over():
    import torch

    class Own(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(shape[-1], 16), name="w")
            self.bn = torch.nn.BatchNorm1d(16)

        def call(self, x):
            return self.bn(x @ self.w.value)

    layer = Own(name="own")
    model = model_of(layer)
    batch = np.random.default_rng(0).standard_normal((32, 16)).astype("float32")
    model(batch, training=True)
    module = layer.bn.module
    before = {name: value.clone() for name, value in module.named_buffers()}
    list(iter_kernels(model))
    initx.diagnose(model, batch, seed=1)
    initx.calibrate(model, batch, seed=1)
    for name, value in module.named_buffers():
        assert torch.equal(value, before[name]), name
    for seed in range(3):
        initx.initialize(model, "by_role", seed=seed)
        assert torch.equal(module.weight, torch.ones(16))
        assert torch.equal(module.bias, torch.zeros(16))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's own variables")
@pytest.mark.parametrize("verb", ["initialize", "calibrate", "diagnose"])
def test_plain_variables_of_tensorflow_keep_their_values(verb):
    import tensorflow as tf

    class Counting(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(shape[-1], 4), name="w")
            self.count = tf.Variable(0)

        def call(self, x):
            self.count.assign_add(1)
            return x @ self.w

    layer = Counting(name="own")
    model = model_of(layer)
    batch = np.random.default_rng(0).standard_normal((8, 16)).astype("float32")
    data = () if verb == "initialize" else (batch,)
    getattr(initx, verb)(model, *data)
    assert int(layer.count) == 0
