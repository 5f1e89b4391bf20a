"""Rows that have names: classes, words and positions."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx import datasets
from keras_initx.strategies import FromModel
from support.grown_models import randomized


def numpy(value):
    return keras.ops.convert_to_numpy(value)


@pytest.mark.parametrize("activation", [None, "softmax", "sigmoid"])
def test_classes_are_permuted_removed_and_added(activation):
    def build(classes):
        return keras.Sequential(
            [
                layers.Input((4,)),
                layers.Dense(8, "relu"),
                layers.Dense(classes, activation, name="head"),
            ]
        )

    donor, model = randomized(build(4)), build(5)
    rows = [3, None, 0, 1, None]
    report = initx.initialize(model, FromModel(donor, rows={"head*": rows}), seed=1)
    for own, other in zip(model.get_layer("head").weights, donor.get_layer("head").weights, strict=True):
        own, other = numpy(own), numpy(other)
        np.testing.assert_array_equal(own[..., [0, 2, 3]], other[..., [3, 0, 1]])
        np.testing.assert_allclose(own[..., 1], other.mean(-1), atol=1e-6)
    # Two of five classes are new, in a kernel of 8 x 5 and a bias of 5.
    assert report.matched == pytest.approx(1 - (16 + 2) / (4 * 8 + 8 + 8 * 5 + 5))
    assert [row.note for row in report.rows if row.note] == ["2 new rows"] * 2


class Tied(layers.Layer):
    """Logits by the table of an embedding."""

    def __init__(self, table, **options):
        super().__init__(**options)
        self.table = table

    def call(self, x):
        return ops.matmul(x, ops.transpose(self.table.embeddings))


def language_model(words, tied, width=16):
    entry = layers.Input((None,), dtype="int32")
    table = layers.Embedding(words, width, name="words")
    x = layers.LayerNormalization()(layers.GRU(width, return_sequences=True)(table(entry)))
    return keras.Model(entry, Tied(table)(x) if tied else layers.Dense(words, name="logits")(x))


OLD = ["", "the", "cat", "sat", "mat"]
NEW = ["", "mat", "dog", "cat", "the", "sat", "hamster"]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("new_rows", ["mean", "normal", "like", "zeros"])
def test_logits_of_known_words_do_not_move(tied, new_rows):
    donor, model = randomized(language_model(5, tied)), language_model(7, tied)
    scheme = FromModel(
        donor, vocabulary=(OLD, NEW), new_rows=new_rows, like={"dog": "cat", "hamster": ["cat", "mat"]}
    )
    report = initx.initialize(model, scheme, seed=1)
    kept = [NEW.index(word) for word in OLD]
    tokens = np.random.default_rng(0).integers(0, 5, (3, 6))
    before, after = numpy(donor(tokens)), numpy(model(np.array(kept)[tokens]))
    np.testing.assert_allclose(after[..., kept], before, atol=1e-5)
    table = numpy(donor.get_layer("words").embeddings)
    np.testing.assert_allclose(numpy(model.get_layer("words").embeddings)[2], table[2], atol=1e-6)
    assert all(row.source for row in report.rows)
    whole = sum(row.size for row in report.rows)
    assert report.matched == pytest.approx(1 - (2 * 16 if tied else 2 * (16 + 16 + 1)) / whole)


def test_a_vocabulary_may_be_a_layer():
    text = [layers.TextVectorization(vocabulary=words) for words in (["a", "b"], ["b", "c"])]
    donor, model = randomized(language_model(4, False)), language_model(4, False)
    initx.initialize(model, FromModel(donor, vocabulary=tuple(text)), seed=1)
    first, second = (numpy(net.get_layer("words").embeddings) for net in (donor, model))
    np.testing.assert_array_equal(second[:3], first[[0, 1, 3]])
    np.testing.assert_allclose(second[3], first.mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"vocabulary": (OLD, NEW[:3])}, "as many words as an embedding or head of the model has rows"),
        ({"vocabulary": (OLD, NEW), "like": {"the": "cat"}}, "`like` must have new words as its keys"),
        ({"vocabulary": (OLD, NEW), "like": {"dog": "wolf"}}, "the donor has no 'wolf'"),
        ({"rows": {"gates": [0]}}, "embeddings, or of heads that make the model's output"),
    ],
)
def test_rows_that_do_not_fit(options, match):
    with pytest.raises(ValueError, match=match):
        initx.initialize(language_model(7, False), FromModel(language_model(5, False), **options))


@pytest.fixture(scope="module")
def trained():
    """A model of Python's source without the letters z and Z, and held-out text."""
    source = datasets.read_pysource()
    lost = [source.vocabulary.index(letter) for letter in "zZ"]
    old = [word for n, word in enumerate(source.vocabulary) if n not in lost]
    number = np.array([old.index(w) if w in old else 1 for w in source.vocabulary])
    model = language_model(len(old), tied=False, width=32)
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = (number[ids[:2000]] for ids in datasets.windows(source.train[:200_000], 32))
    model.fit(x, y, batch_size=64, epochs=1, verbose=0, shuffle=False)
    held = [number[ids[:200]] for ids in datasets.windows(source.test[:20_000], 32)]
    return model, old, list(source.vocabulary), held


@pytest.mark.parametrize("new_rows", ["mean", "normal", "like"])
def test_a_new_token_does_not_win_and_perplexity_stays(trained, new_rows):
    donor, old, new, (x, y) = trained
    model = language_model(len(new), tied=False, width=32)
    like = {"z": "s", "Z": ["S", "s"]} if new_rows == "like" else None
    initx.initialize(model, FromModel(donor, vocabulary=(old, new), new_rows=new_rows, like=like), seed=1)
    number = np.array([new.index(word) for word in old])

    def loss(net, x, y):
        logits = numpy(net.predict(x, verbose=0)).astype("float64")
        logits -= logits.max(-1, keepdims=True)
        chance = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        return -np.log(np.take_along_axis(chance, y[..., None], -1)).mean(), chance

    before, _ = loss(donor, x, y)
    after, chance = loss(model, number[x], number[y])
    assert before < 3.2  # it has learned: without, the loss is log 96 = 4.6
    added = [new.index("z"), new.index("Z")]
    if new_rows != "like":  # like `s`, a new token takes a share of what `s` had
        assert np.exp(after - before) < 1.01
        assert not np.isin(chance.argmax(-1), added).any()
    np.testing.assert_allclose(after - before, -np.log(1 - chance[..., added].sum(-1)).mean(), atol=1e-4)


def test_positions_of_an_image_are_resampled():
    class Placed(layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(shape=shape[1:], name="positions")

        def call(self, x):
            return x + self.table

    def build(size):
        entry = layers.Input((size, size, 3))
        x = layers.Reshape((-1, 8))(layers.Conv2D(8, 2, 2)(entry))
        x = layers.LayerNormalization()(Placed(name="placed")(x))
        return keras.Model(entry, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))

    donor, model = randomized(build(8)), build(12)
    report = initx.initialize(model, FromModel(donor), seed=1)
    assert "16 positions resampled to 36" in [row.note for row in report.rows]
    assert report.matched == 1
