"""Where kernels stand: feeding activations, depth, residual branches, outputs."""

import keras
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.walk import iter_kernels


def sites(model):
    return {s.path.rpartition("/")[2] or s.path: s for s in iter_kernels(model) if "scale" not in s.role}


def functional(build, shape=(8,), dtype=None):
    inputs = layers.Input(shape, dtype=dtype)
    return keras.Model(inputs, build(inputs))


def conv(x, name, filters=4, size=3, **options):
    return layers.Conv2D(filters, size, padding="same", name=name, **options)(x)


def test_plain_stack():
    found = sites(
        functional(
            lambda x: layers.Dense(3, "softmax", name="c")(
                layers.Dense(4, "tanh", name="b")(layers.Dense(5, "relu", name="a")(x))
            )
        )
    )
    assert [site.activation for site in found.values()] == [None, "relu", "tanh"]
    assert [site.feeds for site in found.values()] == ["relu", "tanh", "softmax"]
    assert [site.depth for site in found.values()] == [0, 1, 2]
    assert [site.is_output for site in found.values()] == [False, False, True]
    assert not any(site.branch or site.ends_branch for site in found.values())


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.ReLU(), "relu"),
        (layers.ReLU(6.0), "relu6"),
        (layers.ReLU(negative_slope=0.1), layers.ReLU),
        (layers.LeakyReLU(), layers.LeakyReLU),
        (layers.PReLU(), layers.PReLU),
        (layers.Activation("silu"), "silu"),
        (layers.Activation("linear"), None),
        (ops.relu, "relu"),
        (ops.silu, "silu"),
        (lambda x: x * ops.sigmoid(x), "silu"),
        (layers.LayerNormalization(), None),
        (lambda x: layers.BatchNormalization()(layers.ReLU()(x)), None),
        (lambda x: layers.Dropout(0.1)(layers.Reshape((2, 2))(ops.tanh(x))), "tanh"),
        (lambda x: ops.concatenate([ops.relu(x), ops.relu(-x)]), "relu"),
    ],
)
def test_what_feeds_a_kernel(layer, expected):
    found = sites(functional(lambda x: layers.Dense(2, name="b")(layer(layers.Dense(4, name="a")(x)))))
    activation = found["b"].activation
    assert found["b"].note == ""
    assert activation == expected or isinstance(activation, expected)


@pytest.mark.parametrize("approximate", [True, False])
def test_gelu_keeps_its_form(approximate):
    found = sites(functional(lambda x: layers.Dense(2, name="b")(ops.gelu(x, approximate=approximate))))
    gain = initx.gains.compute_gain(found["b"].activation)
    reference = initx.gains.compute_gain(lambda x: keras.activations.gelu(x, approximate=approximate))
    assert gain == pytest.approx(reference, rel=1e-4)


def test_what_cannot_be_known_is_noted():
    mixed = functional(lambda x: layers.Dense(2, name="b")(ops.concatenate([ops.relu(x), ops.tanh(x)])))
    assert "not known" in sites(mixed)["b"].note
    assert sites(mixed)["b"].activation is None


def test_normalization_written_with_ops():
    def norm(x):
        centred = ops.relu(x) - ops.mean(ops.relu(x), axis=-1, keepdims=True)
        return centred * ops.rsqrt(ops.mean(ops.square(centred), axis=-1, keepdims=True) + 1e-6)

    found = sites(functional(lambda x: layers.Dense(2, name="b")(norm(x))))
    assert (found["b"].activation, found["b"].note) == (None, "")


def resnet(pre, projection):
    def build(x):
        x = conv(x, "stem")
        skip = conv(x, "shortcut", 6, 1) if projection else x
        width = 6 if projection else 4
        y = layers.ReLU()(layers.BatchNormalization()(x)) if pre else x
        y = layers.ReLU()(layers.BatchNormalization()(conv(y, "one", width)))
        y = conv(y, "two", width)
        y = y if pre else layers.BatchNormalization(name="last")(y)
        x = layers.add([skip, y])
        return layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(x if pre else layers.ReLU()(x)))

    return functional(build, (8, 8, 3))


@pytest.mark.parametrize("pre", [True, False])
@pytest.mark.parametrize("projection", [True, False])
def test_residual_nets(pre, projection):
    model = resnet(pre, projection)
    found = sites(model)
    inside = {name for name, site in found.items() if site.branch}
    assert inside == {"one", "two"}
    assert found["one"].branch.layers == 2
    assert [name for name, site in found.items() if site.ends_branch] == ["two"]
    assert found["two"].activation == "relu"
    assert found["one"].activation == ("relu" if pre else None)
    assert found["head"].activation == (None if pre else "relu")
    assert found["head"].depth == 3
    assert [found[name].feeds for name in ("one", "two", "head")] == ["relu", None if pre else "relu", None]
    ends = [s.path for s in iter_kernels(model) if s.role == "scale" and s.ends_branch]
    assert ends == ([] if pre else ["last/gamma"])


def test_dense_blocks_and_u_nets_have_no_branches():
    def build(x):
        x = conv(x, "stem")
        y = layers.concatenate([x, conv(x, "grow", activation="relu")])
        down = conv(layers.MaxPooling2D()(y), "low")
        return conv(layers.concatenate([y, layers.UpSampling2D()(down)]), "out")

    assert not any(site.branch or site.ends_branch for site in sites(functional(build, (8, 8, 3))).values())


def test_inverted_bottleneck_with_squeeze_and_excitation():
    def build(x):
        x = conv(x, "stem")
        y = conv(x, "expand", 8, 1, activation="silu")
        y = layers.DepthwiseConv2D(3, padding="same", activation="silu", name="depthwise")(y)
        se = layers.GlobalAveragePooling2D(keepdims=True)(y)
        se = conv(conv(se, "squeeze", 2, 1, activation="relu"), "excite", 8, 1, activation="sigmoid")
        y = conv(layers.multiply([y, se]), "project", 4, 1)
        return layers.add([x, y])

    found = sites(functional(build, (8, 8, 3)))
    assert [name for name, site in found.items() if site.ends_branch] == ["project"]
    assert found["project"].activation == "silu"
    assert found["excite"].activation == "relu"
    assert found["project"].branch.layers == 5


def test_sums_of_embeddings_are_no_branch():
    class Embed(layers.Layer):
        def __init__(self):
            super().__init__()
            self.tokens, self.places = layers.Embedding(20, 8, name="t"), layers.Embedding(6, 8, name="p")

        def build(self, shape):
            self.tokens.build(shape)
            self.places.build(shape[1:])

        def call(self, x):
            return self.tokens(x) + self.places(ops.arange(ops.shape(x)[1]))

    model = functional(lambda x: layers.Dense(3, name="head")(Embed()(x)), (6,), "int32")
    found = sites(model)
    assert not any(site.branch for site in found.values())
    assert found["head"].activation is None


class Block(layers.Layer):
    """A transformer block: pre-norm, sequential or parallel, plain or gated."""

    def __init__(self, parallel=False, gated=False, **options):
        super().__init__(**options)
        self.parallel, self.gated = parallel, gated
        self.one, self.two = layers.LayerNormalization(), layers.LayerNormalization()
        self.attention = layers.MultiHeadAttention(2, 4, name="attention")
        self.up, self.gate, self.down = (
            layers.Dense(n, name=m) for n, m in ((16, "up"), (16, "gate"), (8, "down"))
        )

    def build(self, shape):
        self.one.build(shape)
        self.two.build(shape)
        self.attention.build(shape, shape)
        self.up.build(shape)
        self.gate.build(shape)
        self.down.build((*shape[:-1], 16))

    def mlp(self, x):
        up = self.up(x)
        return self.down(ops.silu(self.gate(x)) * up if self.gated else ops.gelu(up))

    def call(self, x):
        normed = self.one(x)
        attended = self.attention(normed, normed, use_causal_mask=True)
        if self.parallel:
            return x + attended + self.mlp(normed)
        x = x + attended
        return x + self.mlp(self.two(x))


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("gated", [True, False])
def test_transformer_blocks(parallel, gated):
    model = functional(lambda x: Block(parallel, gated)(layers.Dense(8, name="stem")(x)), (6, 5))
    found = sites(model)
    assert {name for name, site in found.items() if site.ends_branch} == {"attention_output", "down"}
    assert found["down"].branch != found["attention_output"].branch
    assert found["down"].branch.layers == found["query"].branch.layers == 2
    assert found["down"].depth == (2 if parallel else 4)
    label = found["down"].activation
    assert label == "swiglu" if gated else type(label).__name__ == "Gelu"
    assert not any(site.cross or site.note for name, site in found.items() if name != "gate")
    assert found["attention_output"].activation is None


@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize("cls", [layers.MultiHeadAttention, layers.GroupQueryAttention])
def test_cross_attention_with_masks(cls, flash):
    options = {"flash_attention": flash} if flash and cls is layers.GroupQueryAttention else {}
    own, cross = ((2, 4) if cls is layers.MultiHeadAttention else (4, 2, 1) for _ in range(2))
    encoded, tokens = layers.Input((5, 8)), layers.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8, mask_zero=True)(tokens)
    x = x + cls(*own, name="own", **options)(x, x, use_causal_mask=True)
    x = x + cls(*cross, name="cross", **options)(x, encoded)
    model = keras.Model([encoded, tokens], x)
    crossing = {site.path: site.cross for site in iter_kernels(model) if site.attention}
    assert crossing == {
        f"{name}/{role}": name == "cross"
        for name in ("own", "cross")
        for role in ("query", "key", "value", "attention_output")
    }
    ends = {site.path for site in iter_kernels(model) if site.ends_branch}
    assert ends == {"own/attention_output", "cross/attention_output"}


def test_a_shared_layer_stands_where_it_runs_first():
    shared = layers.Dense(8, "relu", name="shared")
    found = sites(functional(lambda x: layers.Dense(2, name="head")(shared(shared(x)))))
    assert [found["shared"].depth, found["head"].depth] == [0, 2]
    assert found["shared"].activation is None


def test_kernels_within_one_layer_come_one_after_another():
    model = functional(
        lambda x: layers.SeparableConv2D(4, 3, activation="relu", name="b")(conv(x, "a", activation="tanh")),
        (8, 8, 3),
    )
    found = sites(model)
    assert [found[n].depth for n in ("a", "depthwise_kernel", "pointwise_kernel")] == [0, 1, 2]
    assert (found["depthwise_kernel"].activation, found["depthwise_kernel"].feeds) == ("tanh", None)
    assert (found["pointwise_kernel"].activation, found["pointwise_kernel"].feeds) == (None, "relu")


def test_recurrent_layers():
    def build(x):
        x = layers.SimpleRNN(4, return_sequences=True, name="simple")(x)
        return layers.Dense(2, name="head")(layers.LSTM(4, name="lstm")(x))

    found = list(iter_kernels(functional(build, (6, 3))))
    assert [site.depth for site in found] == [0, 0, 1, 1, 2]
    assert found[2].activation == "tanh"
    assert "not known" in found[4].note


def test_residual_scale_ends_its_branch():
    model = functional(lambda x: x + initx.layers.ResidualScale(name="s")(layers.Dense(8, name="d")(x)))
    ends = {site.path for site in iter_kernels(model) if site.ends_branch}
    assert ends == {"d", "s/scale"}
