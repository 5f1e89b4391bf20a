"""`FromModel`: what is followed to the donor's function, and what a row tells where it may be another."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.strategies import FromModel
from support.grown_models import INPUTS, Formula, difference, randomized

WORDS = "times 0.5, for the width of its sums"


def grown(build, *, own=16, donor=8, kind="features"):
    """The difference of a model from its donor, and the notes of its rows."""
    old, new = randomized(build(donor)), build(own)
    report = initx.initialize(new, FromModel(old, width="clone"), seed=1)
    assert report.matched == 1
    return difference(old, new, INPUTS[kind]), {row.path: row.note for row in report.rows if row.note}


def with_body(body, kind="features"):
    def build(width):
        entry = layers.Input(INPUTS[kind].shape[1:])
        found = Formula([], body, name="body")(layers.Dense(width, name="made")(entry))
        return keras.Model(entry, layers.Dense(3, name="head")(found))

    return build


def padded(both):
    def build(width):
        entry = layers.Input((8, 8, 3))
        x = layers.Conv2D(width, 3, padding="same")(entry)
        h = layers.Conv2D(2 * width, 3, padding="same", strides=2, activation="relu")(x)
        sides = [width // 2, width // 2] if both else [0, width]
        x = ops.relu(h + ops.pad(x[:, ::2, ::2], [[0, 0], [0, 0], [0, 0], sides]))
        return keras.Model(entry, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))

    return build


def shuffled(blocks):
    def build(width):
        entry = layers.Input((8, 8, 3))
        x = layers.Conv2D(width, 3, padding="same")(entry)
        for _ in range(blocks):
            one, other = ops.split(x, 2, axis=-1)
            x = ops.concatenate([one, layers.Conv2D(width // 2, 1, activation="relu")(other)], axis=-1)
            x = ops.transpose(ops.reshape(x, (-1, 8, 8, 2, width // 2)), (0, 1, 2, 4, 3))
            x = ops.reshape(x, (-1, 8, 8, width))
        return keras.Model(entry, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))

    return build


FOLLOWED = {
    "channels padded on both sides": (padded(True), "image"),
    "channels padded behind": (padded(False), "image"),
    "one block of shuffled channels": (shuffled(1), "image"),
    "two blocks of shuffled channels": (shuffled(2), "image"),
    "both orders": (with_body(lambda x: ops.concatenate([x, ops.flip(x, -1)], -1)), "features"),
    "the product of both orders": (with_body(lambda x: x * ops.flip(x, -1)), "features"),
    "units padded in front": (with_body(lambda x: ops.pad(x, [[0, 0], [2, 0]])), "features"),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_units_that_are_padded_cut_and_shuffled_are_followed(name):
    build, kind = FOLLOWED[name]
    apart, notes = grown(build, kind=kind)
    assert apart < 1e-4
    assert notes == {}


def test_what_cannot_be_followed_through_many_shuffles_is_told():
    apart, notes = grown(shuffled(3), kind="image")
    assert apart > 1e-2
    assert any("how its units are grouped is not known" in note for note in notes.values())


TABLE = "a table of constants"
TOLD = {
    "one_hot": (lambda x: x * ops.one_hot(0, x.shape[-1], dtype="float32"), 16, TABLE),
    "arange": (lambda x: ops.where(ops.arange(x.shape[-1]) < 2, x, 0.0), 16, TABLE),
    "shifted": (lambda x: ops.matmul(x, ops.eye(x.shape[-1], k=1)), 16, TABLE),
    "beside": (
        lambda x: ops.concatenate([x, x * 0 + ops.arange(x.shape[-1], dtype="float32")], -1),
        16,
        TABLE,
    ),
    "both orders": (lambda x: ops.concatenate([x, ops.flip(x, -1)], -1), 12, "in the reverse order"),
    "product of both orders": (lambda x: x * ops.flip(x, -1), 12, "in the reverse order"),
    "two groupings": (lambda x: ops.roll(x, 1, -1) * x, 12, "its units"),
}


@pytest.mark.parametrize("name", TOLD)
def test_functions_of_the_number_of_a_unit_are_told(name):
    function, width, reason = TOLD[name]
    apart, notes = grown(with_body(function), own=width)
    assert apart > 1e-2
    assert reason in notes["made"]


def with_biases_of_heads(width):
    """As ALiBi does: heads differ by fixed slopes, times positions that come from the input."""
    heads = width // 4

    def attend(x, query, key, value):
        split = [ops.reshape(ops.matmul(x, w), (-1, 6, heads, 4)) for w in (query, key, value)]
        scores = ops.einsum("bqhd,bkhd->bhqk", *split[:2]) / 2
        seen = ops.cumsum(ops.cast(x[:, :, 0] > -9, "float32"), axis=-1)[:, None, :]
        slopes = ops.convert_to_tensor([2.0**-n for n in range(heads)])[..., None] * seen
        weighted = ops.softmax(scores + slopes[:, :, None])
        return ops.reshape(ops.einsum("bhqk,bkhd->bqhd", weighted, split[2]), (-1, 6, width))

    entry = layers.Input((6, 8))
    x = Formula([(width, width)] * 3, attend, name="attention")(layers.Dense(width)(entry))
    return keras.Model(entry, layers.Dense(3)(x))


def test_a_bias_for_each_head_is_told():
    apart, notes = grown(with_biases_of_heads, kind="sequence")
    assert apart > 1e-3
    assert TABLE in notes["attention/w0"]


def tied(after):
    def build(width):
        entry = layers.Input((7,), dtype="int32")
        table = layers.ReversibleEmbedding(11, width, name="words")
        x = layers.LayerNormalization(name="norm")(layers.Dense(width, "relu")(table(entry)))
        return keras.Model(entry, table(after(x), reverse=True))

    return build


LINEAR = {
    "nothing": lambda x: x,
    "a number": lambda x: layers.Dropout(0.1)(x) * 2.0,
    "relu": layers.ReLU(),
}
CURVED = {
    "tanh": ops.tanh,
    "gelu": ops.gelu,
    "another norm": lambda x: layers.LayerNormalization(center=False, scale=False)(x),
    "a sum": lambda x: x + 1.0,
}


@pytest.mark.parametrize("name", LINEAR)
def test_a_factor_before_the_logits_passes_what_is_linear(name):
    apart, notes = grown(tied(LINEAR[name]), kind="tokens")
    assert apart < 1e-4
    assert notes == {"norm/gamma": WORDS, "norm/beta": WORDS}


@pytest.mark.parametrize("name", CURVED)
def test_a_factor_before_the_logits_does_not_pass_what_is_not_linear(name):
    _, notes = grown(tied(CURVED[name]), kind="tokens")
    assert "norm/gamma" not in notes
    assert "it also makes the logits" in notes["words/embeddings"]


def with_sum(first, second):
    entry = layers.Input((8,))
    x = layers.Dense(first, name="one")(entry)
    h = layers.Dense(second, "relu", name="two")(x)
    return keras.Model(entry, layers.Dense(3, name="head")(x + h if first == second else h))


@pytest.mark.parametrize(("donor", "own"), [((8, 8), (8, 16)), ((4, 8), (8, 8))])
def test_a_residual_sum_that_one_model_lacks_is_told(donor, own):
    old, new = randomized(with_sum(*donor)), with_sum(*own)
    report = initx.initialize(new, FromModel(old, width="clone"), seed=1)
    assert difference(old, new, INPUTS["features"]) > 1e-2
    assert "`add` follows" in {row.path: row.note for row in report.rows}["two/bias"]


def chain(width, skips):
    """Three blocks, of which some have a residual sum: one more sum follows either way."""
    entry = layers.Input((8,))
    x = layers.Dense(width, name="stem")(entry)
    for n in range(3):
        h = layers.Dense(width, name=f"out{n}")(layers.Dense(width, "relu", name=f"in{n}")(x))
        x = x + h if n in skips else h
    return keras.Model(entry, layers.Dense(3)(x))


def test_a_sum_with_another_partner_is_told():
    old, new = randomized(chain(8, {1, 2})), chain(16, {2})
    report = initx.initialize(new, FromModel(old, width="clone"), seed=1)
    assert difference(old, new, INPUTS["features"]) > 1e-2
    assert "meets others in a sum" in {row.path: row.note for row in report.rows}["out1/bias"]


def with_settings(width=8, activation="relu", epsilon=1e-3, strides=1, groups=2, after=ops.relu):
    entry = layers.Input((8, 8, 3))
    x = layers.Conv2D(width, 3, strides=strides, activation=activation, padding="same", name="conv")(entry)
    x = layers.GroupNormalization(groups, epsilon=epsilon, name="norm")(x)
    return keras.Model(entry, layers.Dense(3)(layers.GlobalAveragePooling2D()(after(x))))


@pytest.mark.parametrize("width", [8, 16])
@pytest.mark.parametrize(
    ("settings", "path", "note"),
    [
        ({"activation": "tanh"}, "conv", "activation=tanh where the donor's has relu"),
        ({"epsilon": 1.0}, "norm/gamma", "epsilon=1 where the donor's has 0.001"),
        ({"strides": 2}, "conv", "strides=(2, 2) where the donor's has (1, 1)"),
    ],
)
def test_settings_of_layers_that_differ_are_told(width, settings, path, note):
    old, new = randomized(with_settings()), with_settings(width, **settings)
    report = initx.initialize(new, FromModel(old, width="clone"), seed=1)
    assert note in {row.path: row.note for row in report.rows}[path]


def test_settings_without_weights_are_told_at_the_same_width():
    old = randomized(with_settings())
    for settings, note in (
        ({"groups": 4}, "groups=4 where the donor's has 2"),
        ({"after": ops.tanh}, "the model has Tanh where the donor has Relu"),
    ):
        report = initx.initialize(with_settings(**settings), FromModel(old), seed=1)
        assert sum(note in row.note for row in report.rows) == 1
    assert not any(row.note for row in initx.initialize(with_settings(), FromModel(old), seed=1).rows)


def test_a_donor_with_lora_is_no_doubt():
    def build(width):
        return keras.Sequential([layers.Input((8,)), layers.Dense(width, "relu"), layers.Dense(3)])

    old = build(8)
    old.layers[0].enable_lora(2, lora_alpha=6)
    new = build(16)
    report = initx.initialize(new, FromModel(randomized(old), width="clone"), seed=1)
    assert difference(old, new, INPUTS["features"]) < 1e-4
    assert not any(row.note for row in report.rows)


def test_positions_that_are_looked_up_are_no_doubt():
    def build(width):
        entry = layers.Input((6, 8))
        places = layers.Input((2,), dtype="int32")
        taken = ops.take_along_axis(layers.Dense(width)(entry), places[..., None], axis=1)
        return keras.Model([entry, places], layers.Dense(3)(taken))

    old, new = randomized(build(8)), build(16)
    report = initx.initialize(new, FromModel(old, width="clone"), seed=1)
    assert difference(old, new, [INPUTS["sequence"], np.array([[1, 2], [3, 0]] * 2)]) < 1e-4
    assert not any(row.note for row in report.rows)


def test_turned_pairs_of_a_head_are_no_doubt():
    """A rotary embedding stacks the halves of a head; there are more heads, and they are as wide."""

    def build(width):
        def rotate(x):
            one, other = ops.split(ops.reshape(x, (-1, 6, width // 4, 4)), 2, axis=-1)
            return ops.reshape(ops.stack([-other, one], axis=-2), (-1, 6, width))

        return with_body(rotate, "sequence")(width)

    apart, notes = grown(build, kind="sequence")
    assert apart < 1e-4
    assert notes == {}
