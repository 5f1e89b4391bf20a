"""Blocks of another depth come whole from one block of the donor, and `identity` keeps the function."""

import collections
import re

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx.strategies import FromModel
from support.grown_models import difference, randomized

X = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")


def second_resnet(depths, named=True):
    """A small ResNet V2: the first block of a stage has a projection, the last a stride."""
    name = (lambda text: text) if named else (lambda text: None)
    entry = layers.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", name=name("stem"))(entry)
    for stage, depth in enumerate(depths, 2):
        width = 4 * stage
        for block in range(1, depth + 1):
            path = f"conv{stage}_block{block}"
            stride = 2 if block == depth else 1
            h = layers.BatchNormalization(name=name(f"{path}_preact_bn"))(x)
            h = layers.Activation("relu")(h)
            if block == 1:
                skip = layers.Conv2D(4 * width, 1, strides=stride, name=name(f"{path}_0_conv"))(h)
            else:
                skip = layers.MaxPooling2D(1, strides=stride)(x) if stride > 1 else x
            h = layers.Conv2D(width, 1, use_bias=False, name=name(f"{path}_1_conv"))(h)
            h = layers.Activation("relu")(layers.BatchNormalization(name=name(f"{path}_1_bn"))(h))
            h = layers.Conv2D(width, 3, stride, use_bias=False, name=name(f"{path}_2_conv"))(
                layers.ZeroPadding2D(1)(h)
            )
            h = layers.Activation("relu")(layers.BatchNormalization(name=name(f"{path}_2_bn"))(h))
            x = skip + layers.Conv2D(4 * width, 1, name=name(f"{path}_3_conv"))(h)
    x = layers.BatchNormalization(name=name("post_bn"))(x)
    return keras.Model(entry, layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(x)))


def origins(report):
    """The blocks of the donor that the weights of each block come from; None for a kernel without source."""
    found = collections.defaultdict(set)
    for row in report.rows:
        if block := re.match(r"conv\d+_block\d+", row.path):
            if row.source:
                found[block[0]].add(re.match(r"conv\d+_block\d+", row.source)[0])
            elif row.is_kernel:
                found[block[0]].add(None)
    return found


@pytest.mark.parametrize("depth", ["uniform", "first", "stack", "identity"])
@pytest.mark.parametrize(("donor", "own"), [((2, 3), (3, 6)), ((3, 6), (2, 3)), ((3, 4), (3, 7))])
def test_a_block_comes_whole_from_one_block_of_the_same_stage(depth, donor, own):
    donor, model = randomized(second_resnet(donor)), second_resnet(own)
    report = initx.initialize(model, FromModel(donor, depth=depth), seed=1)
    found = origins(report)
    assert len(found) == sum(own)
    assert {block: blocks for block, blocks in found.items() if len(blocks) != 1} == {}
    assert all(block is None or block[:5] == own[:5] for own, (block,) in found.items())


@pytest.mark.parametrize("named", [True, False])
def test_new_blocks_of_a_second_resnet_keep_the_function(named):
    donor, model = randomized(second_resnet((2, 3), named)), second_resnet((3, 6), named)
    initx.initialize(model, FromModel(donor, depth="identity"), seed=1)
    assert difference(donor, model, X) < 1e-4


def plain_net(blocks):
    """Convolutions with batch normalization after each, without branches and names."""
    entry = layers.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(entry))
    for _ in range(blocks):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(x)))
    return keras.Model(entry, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("depth", ["uniform", "first", "stack"])
def test_a_normalization_comes_with_the_convolution_before_it(depth):
    donor, model = randomized(plain_net(2)), plain_net(4)
    report = initx.initialize(model, FromModel(donor, depth=depth), seed=1)
    source = {row.path: row.source for row in report.rows}
    after = lambda net: [(net.layers[n].name, net.layers[n + 1].name) for n in kernels(net)]  # noqa: E731
    kernels = lambda net: [n for n, l in enumerate(net.layers) if isinstance(l, layers.Conv2D)]  # noqa: E731, E741
    norm_of = dict(after(donor))
    for convolution, norm in after(model):
        taken = source[convolution]
        assert source[f"{norm}/gamma"] == (f"{norm_of[taken]}/gamma" if taken else "")


class Post(layers.Layer):
    """A block with two equal kernels, and two normalizations of a class of its own."""

    def __init__(self, **options):
        super().__init__(**options)
        self.one, self.two = layers.Dense(8, name="ffn_1"), layers.Dense(8, name="ffn_2")
        self.scales = [RootMean(name=f"norm_{n}") for n in range(2)]

    def build(self, shape):
        for layer in (self.one, self.two, *self.scales):
            layer.build(shape)

    def call(self, x):
        x = x + self.one(self.scales[0](x))
        return x + self.two(self.scales[1](x))


class RootMean(layers.Layer):
    def build(self, shape):
        self.weight = self.add_weight(shape=(shape[-1],), initializer="ones", name="weight")

    def call(self, x):
        return x * keras.ops.rsqrt(keras.ops.mean(x**2, axis=-1, keepdims=True) + 1e-6) * self.weight


def stack_of(blocks):
    entry = x = layers.Input((8,))
    for n in range(blocks):
        x = Post(name=f"layer_{n}")(x)
    return keras.Model(entry, layers.Dense(3, name="head")(x))


@pytest.mark.parametrize(("donor", "own"), [(2, 4), (4, 2)])
def test_equal_layers_within_a_block_come_from_one_block(donor, own):
    donor, model = randomized(stack_of(donor)), stack_of(own)
    report = initx.initialize(model, FromModel(donor), seed=1)
    blocks = collections.defaultdict(set)
    for row in report.rows:
        mine, _, rest = row.path.partition("/")
        other, _, its = row.source.partition("/")
        assert its == rest
        blocks[mine].add(other)
    assert all(len(found) == 1 for found in blocks.values())
    assert report.matched == 1


def test_the_note_counts_blocks():
    donor, model = randomized(stack_of(2)), stack_of(4)
    report = initx.initialize(model, FromModel(donor, depth="first"), seed=1)
    assert {row.note for row in report.rows if row.note} == {"the donor has 2 such blocks"}
    # Also biases and other weights of layers without a counterpart say why.
    assert all(bool(row.note) != bool(row.source) for row in report.rows)


def encoder_decoder(blocks):
    """Named blocks of an encoder and of a decoder, which run side by side and so mix in call order."""
    source, target = layers.Input((4, 8), name="source"), layers.Input((4, 8), name="target")
    x, y = source, target
    for n in range(blocks):
        x = x + layers.MultiHeadAttention(2, 4, name=f"encoder_{n}")(x, x)
    for n in range(blocks):
        y = y + layers.MultiHeadAttention(2, 4, name=f"decoder_self_{n}")(y, y)
        y = y + layers.MultiHeadAttention(2, 4, name=f"decoder_cross_{n}")(y, x)
    return keras.Model([source, target], layers.Dense(3, name="logits")(y))


@pytest.mark.parametrize(("donor", "own"), [(2, 4), (4, 2)])
@pytest.mark.parametrize("depth", ["uniform", "identity"])
def test_an_encoder_comes_from_the_encoder_and_a_decoder_from_the_decoder(donor, own, depth):
    taken = {"uniform": lambda n: n * donor // own, "identity": lambda n: n if n < donor else None}[depth]
    first, model = randomized(encoder_decoder(donor)), encoder_decoder(own)
    report = initx.initialize(model, FromModel(first, depth=depth), seed=1)
    for row in report.rows:
        number = re.search(r"(\d+)/", row.path)
        block = taken(int(number[1])) if number else 0
        expected = re.sub(r"\d+/", f"{block}/", row.path)
        assert row.source == ("" if block is None else expected)
    if depth == "identity" and own > donor:
        x = [np.random.default_rng(n).normal(size=(2, 4, 8)).astype("float32") for n in range(2)]
        assert difference(first, model, x) < 1e-4


def chain(blocks):
    hidden = [layers.Dense(4, name=f"d{n}") for n in range(blocks)]
    return keras.Sequential([layers.Input((4,)), *hidden, layers.Dense(2, name="head")])


@pytest.mark.parametrize("cure", ["first", "uniform", "stack"])
def test_identity_without_branches_is_refused_and_the_printed_cures_run(cure):
    donor, model = randomized(chain(2)), chain(4)
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in model.weights]
    with pytest.raises(ValueError, match="needs residual branches.*`d2` in none") as error:
        initx.initialize(model, FromModel(donor, depth="identity"))
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, keras.ops.convert_to_numpy(new))
    assert repr(cure) in str(error.value)
    initx.initialize(model, FromModel(donor, depth=cure))


class Hidden(layers.Layer):
    """A residual block whose kernel the trace does not see."""

    def build(self, shape):
        self.inner = layers.Dense(shape[-1], name="inner")
        self.inner.build(shape)

    def call(self, x):
        return keras.ops.multiply(x, 1.0) + self.inner(x)


def hidden(blocks):
    entry = x = layers.Input((4,))
    for n in range(blocks):
        x = Hidden(name=f"block_{n}")(x)
    return keras.Model(entry, layers.Dense(2, name="head")(x))


def test_the_branches_that_a_user_names_begin_at_zero():
    donor, model = randomized(hidden(2)), hidden(4)
    initx.initialize(model, FromModel(donor, depth="identity", branches=["block_*"]), seed=1)
    assert difference(donor, model, np.ones((3, 4), "float32") * [[1.0], [2.0], [3.0]]) < 1e-4
    with pytest.raises(ValueError, match="`branches` must hold patterns"):
        initx.initialize(model, FromModel(donor, depth="identity", branches=["nothing_*"]))


def after_norm(blocks):
    entry = x = layers.Input((4, 8))
    for n in range(blocks):
        x = layers.LayerNormalization(name=f"norm_{n}")(x + layers.Dense(8, name=f"dense_of_{n}")(x))
    return keras.Model(entry, layers.Dense(2, name="head")(x))


def test_a_new_normalization_outside_the_branches_is_told():
    donor, model = randomized(after_norm(2)), after_norm(4)
    report = initx.initialize(model, FromModel(donor, depth="identity"), seed=1)
    notes = {row.path: row.note for row in report.rows}
    assert "begins at zero" in notes["dense_of_3"]
    assert "in no residual branch that begins at zero" in notes["norm_3/gamma"]


def lettered(blocks):
    """Blocks a, b, c of a stage, of which the first has another input: as in EfficientNet."""
    entry = layers.Input((8,))
    x = layers.Dense(16, name="stem")(entry)
    for stage, count in enumerate(blocks, 1):
        for letter in "abc"[:count]:
            h = layers.Dense(8, "relu", name=f"block{stage}{letter}_expand")(x)
            h = layers.Dense(8 + 8 * stage, name=f"block{stage}{letter}_project")(h)
            x = h if letter == "a" else x + h
    return keras.Model(entry, layers.Dense(3, name="top")(x))


def test_lettered_blocks_of_a_stage_begin_at_zero():
    donor, model = randomized(lettered((1, 2))), lettered((2, 3))
    report = initx.initialize(model, FromModel(donor, depth="identity"), seed=1)
    x = np.random.default_rng(0).normal(size=(3, 8)).astype("float32")
    assert difference(donor, model, x) < 1e-4
    assert all(row.source in ("", row.path) for row in report.rows)


def dense_blocks(count):
    entry = x = layers.Input((4,))
    for n in range(count):
        x = layers.Concatenate()([x, layers.Dense(4, "relu", name=f"block_{n}")(x)])
    return keras.Model(entry, layers.Dense(2, name="head")(x))


def test_new_blocks_that_are_concatenated_are_told():
    donor, model = randomized(dense_blocks(2)), dense_blocks(4)
    scheme = FromModel(donor, depth="identity", width="clone", mapping={"head": None})
    report = initx.initialize(model, scheme, seed=1)
    notes = {row.path: row.note for row in report.rows}
    assert [row.source for row in report.rows[:2]] == ["block_0", "block_1"]
    assert all("in no residual branch" in notes[f"block_{n}"] for n in (2, 3))
