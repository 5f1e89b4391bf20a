"""Vocabularies of `FromModel`: forms of words, the tables and heads that follow them, and what is told."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.strategies import FromModel
from support.grown_models import randomized

OLD = ["", "[UNK]", "the", "cat", "sat", "mat"]
BIG = ["", "[UNK]", "mat", "dog", "the", "bird", "cat", "emu", "sat"]
TURNED = ["", "[UNK]", "mat", "the", "cat", "sat"]


def numpy(value):
    return ops.convert_to_numpy(value)


def dense(words, x):
    return layers.Dense(words, name="out")(x)


def model_of(words, head=dense):
    entry = layers.Input((7,), dtype="int32")
    x = layers.Dense(8, "relu", name="mid")(layers.Embedding(words, 8, name="words")(entry))
    return keras.Model(entry, head(words, x))


def moved(donor, model, old, new, shared=OLD):
    """How far the answers move, of words that both have."""
    first, second = (np.array([words.index(word) for word in shared]) for words in (old, new))
    tokens = np.random.default_rng(0).integers(len(shared), size=(4, 7))
    one, other = (numpy(net(at[tokens]))[..., at] for net, at in ((donor, first), (model, second)))
    return abs(one - other).max() / one.std()


def notes_of(report):
    return {row.path: row.note for row in report.rows}


def reversible(words):
    entry = layers.Input((None,), dtype="int32")
    table = layers.ReversibleEmbedding(words, 8, tie_weights=False, name="words")
    return keras.Model(entry, table(layers.Dense(8, "tanh")(table(entry)), reverse=True))


@pytest.mark.parametrize("words", [(OLD, TURNED), (BIG, OLD), (OLD, BIG)], ids=["turned", "fewer", "more"])
def test_a_table_that_runs_backwards_follows_with_its_columns(words):
    donor, model = randomized(reversible(len(words[0]))), reversible(len(words[1]))
    report = initx.initialize(model, FromModel(donor, vocabulary=words), seed=1)
    assert moved(donor, model, *words) < 1e-5
    assert notes_of(report)["words/reverse_embeddings"].startswith("rows by `vocabulary`")
    again = reversible(len(words[1]))
    rows = [words[0].index(word) if word in words[0] else None for word in words[1]]
    initx.initialize(again, FromModel(donor, rows={"words": rows}), seed=1)
    assert moved(donor, again, *words) < 1e-5


def test_without_words_both_sides_of_a_reversible_table_are_drawn_anew():
    report = initx.initialize(reversible(6), FromModel(reversible(9)), seed=1)
    tables = [row for row in report.rows if "embeddings" in row.path]
    assert [(row.source, "units have names" in row.note) for row in tables] == [("", True)] * 2


HEADS = {
    "bent": lambda n, x: layers.Dense(n, "tanh", name="out")(x),
    "each position": lambda n, x: layers.TimeDistributed(layers.Dense(n, name="d"), name="out")(x),
    "sum": lambda n, x: layers.Dense(n, name="out")(x) + layers.Dense(n, name="out_too")(x),
    "normalized": lambda n, x: layers.LayerNormalization(name="norm")(layers.Dense(n, name="out")(x)),
}


@pytest.mark.parametrize("name", HEADS)
def test_units_that_reach_the_output_follow_and_their_rows_say_so(name):
    for old, new in ((OLD, TURNED), (BIG, OLD)):
        donor, model = (randomized(model_of(len(words), HEADS[name])) for words in (old, new))
        report = initx.initialize(model, FromModel(donor, vocabulary=(old, new)), seed=1)
        notes = [note for path, note in notes_of(report).items() if path.startswith(("out", "norm"))]
        assert all("rows by `vocabulary`" in note for note in notes)
        if name == "normalized" and len(old) != len(new):
            assert "a mean is taken over all of them" in notes[0]
        else:
            assert moved(donor, model, old, new) < 1e-5


def test_a_head_of_classes_for_each_position_is_drawn_anew_without_rows():
    def build(classes):
        entry = layers.Input((7, 4))
        return keras.Model(entry, HEADS["each position"](classes, layers.Dense(8, name="mid")(entry)))

    donor = randomized(build(9))
    report = initx.initialize(build(4), FromModel(donor), seed=1)
    assert "units have names" in notes_of(report)["out/d"]
    model = build(4)
    initx.initialize(model, FromModel(donor, rows={"out*": [0, 3, 7, None]}), seed=1)
    first, second = (numpy(net.get_layer("out").layer.kernel) for net in (donor, model))
    np.testing.assert_array_equal(second[:, :3], first[:, [0, 3, 7]])


class Bytepairs:
    """A tokenizer whose dict is in another order than its numbers."""

    def __init__(self, numbers):
        self.vocabulary = dict(reversed(numbers.items()))

    def get_vocabulary(self):
        return self.vocabulary.keys()


def numbered(words):
    return {word: words.index(word) for word in sorted(words)}


@pytest.mark.parametrize(
    "form", [numbered, lambda words: Bytepairs(numbered(words)), np.array, tuple], ids=range(4)
)
def test_all_forms_of_words_are_read_by_their_numbers(form):
    donor, model = randomized(model_of(6)), model_of(9)
    report = initx.initialize(model, FromModel(donor, vocabulary=(form(OLD), form(BIG))), seed=1)
    assert moved(donor, model, OLD, BIG) < 1e-5
    table = 9 * 8
    whole = table + 8 * 8 + 8 + table + 9
    assert report.matched == pytest.approx(1 - (3 * 8 + 3 * 8 + 3) / whole)  # 3 of 9 words are new


@pytest.mark.parametrize("numbers", [{"the": 1, "cat": 2}, {"the": 0, "cat": 0}, {"the": 0.0, "cat": 1.0}])
def test_numbers_with_a_gap_are_refused(numbers):
    with pytest.raises(
        ValueError, match=r'`vocabulary` must have the numbers from 0 on.*\{"": 0\} \| numbers'
    ):
        FromModel(model_of(2), vocabulary=(numbers, ["the", "cat"]))
    if 0 not in numbers.values():
        initx.initialize(model_of(3), FromModel(model_of(3), vocabulary=({"": 0} | numbers,) * 2))


def test_the_words_of_the_donor_must_fit_its_rows():
    donor, model = randomized(model_of(6)), model_of(9)
    before = [numpy(weight) for weight in model.weights]
    for wrong in (OLD[2:], ["<pad>", *OLD]):
        with pytest.raises(ValueError, match=r"head of the donor has rows.*rows of \[6\].*special tokens"):
            initx.initialize(model, FromModel(donor, vocabulary=(wrong, BIG)))
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(numpy(weight), old)


def text(most, words):
    return layers.TextVectorization(max_tokens=most, vocabulary=words)


def test_a_table_may_have_rows_beyond_the_words():
    layer = [text(10, ["the", "cat"]), text(12, ["cat", "dog", "the"])]
    donor, model = randomized(model_of(10)), model_of(12)
    short = [[str(word) for word in own.get_vocabulary()] for own in layer]
    with pytest.raises(ValueError, match="an empty string is a row without a word"):
        initx.initialize(model, FromModel(donor, vocabulary=tuple(short)))
    lists = [words + [""] * (rows - len(words)) for words, rows in zip(short, (10, 12), strict=True)]
    for words in (layer, lists):
        report = initx.initialize(model, FromModel(donor, vocabulary=tuple(words)), seed=1)
        assert moved(donor, model, *short, ["", "[UNK]", "the", "cat"]) < 1e-5
        assert notes_of(report)["words/embeddings"] == "rows by `vocabulary`, 8 new rows"
        # New rows get the mean of the rows that have words.
        mean = numpy(donor.get_layer("words").embeddings)[:4].mean(0)
        np.testing.assert_allclose(numpy(model.get_layer("words").embeddings)[5:], [mean] * 7, atol=1e-6)


@pytest.mark.parametrize("counts", [(2, 2), (1, 2), (2, 1)])
def test_several_rows_of_unknown_words(counts):
    found = [
        layers.StringLookup(vocabulary=words, num_oov_indices=count)
        for words, count in zip((["the", "cat"], ["cat", "dog", "the"]), counts, strict=True)
    ]
    donor, model = randomized(model_of(2 + counts[0])), model_of(3 + counts[1])
    initx.initialize(model, FromModel(donor, vocabulary=tuple(found)), seed=1)
    old, new = (numpy(net.get_layer("words").embeddings) for net in (donor, model))
    for row in range(counts[1]):
        np.testing.assert_array_equal(new[row], old[min(row, counts[0] - 1)])
    np.testing.assert_array_equal(new[[counts[1], counts[1] + 2]], old[[counts[0] + 1, counts[0]]])
    with pytest.raises(ValueError, match="must have each word once. Received: 'the' twice"):
        FromModel(donor, vocabulary=(["the", "the"], OLD))


def test_words_written_otherwise_give_a_warning_and_do_not_count_as_matched():
    upper = [word.upper() for word in OLD[2:]]
    with pytest.warns(UserWarning, match="the donor has 0 of 4 words of the model"):
        report = initx.initialize(model_of(4), FromModel(model_of(4), vocabulary=(upper, OLD[2:])))
    assert report.matched == pytest.approx((8 * 8 + 8) / (4 * 8 + 8 * 8 + 8 + 4 * 8 + 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("default", message=".*__array__")
        initx.initialize(model_of(9), FromModel(model_of(6), vocabulary=(OLD, BIG)))


def test_positions_that_the_run_knows_stay():
    class Placed(layers.Layer):
        def build(self, shape):
            self.table = layers.Embedding(6, 8, name="table")
            self.table.build()

        def call(self, x):
            return x + self.table(ops.arange(6))

    def build():
        entry = layers.Input((6,), dtype="int32")
        x = Placed(name="places")(layers.Embedding(6, 8, name="words")(entry))
        return keras.Model(entry, layers.Dense(6, name="out")(x))

    donor, model = randomized(build()), build()
    report = initx.initialize(model, FromModel(donor, vocabulary=(OLD, TURNED)), seed=1)
    first, second = (numpy(net.get_layer("places").table.embeddings) for net in (donor, model))
    np.testing.assert_array_equal(first, second)
    notes = notes_of(report)
    assert next(note for path, note in notes.items() if "table" in path) == ""
    assert notes["words/embeddings"] == notes["out"] == "rows by `vocabulary`"


@pytest.mark.parametrize("wrong", [[0, -1, None, 2], [True, None, 0, 1], [0.0, 1, 2, None]])
def test_a_row_is_a_number_of_at_least_0_or_none(wrong):
    net = keras.Sequential([layers.Input((4,)), layers.Dense(4, name="head")])
    with pytest.raises(ValueError, match="`rows` must have numbers of the donor's rows, from 0 on"):
        initx.initialize(net, FromModel(net, rows={"head": wrong}))


def test_a_table_that_the_input_numbers_keeps_its_rows_by_rows():
    def build():
        words, places = layers.Input((6,), dtype="int32"), layers.Input((6,), dtype="int32")
        x = layers.Embedding(6, 8, name="words")(words) + layers.Embedding(6, 8, name="places")(places)
        return keras.Model([words, places], layers.Dense(6, name="out")(x))

    donor, model = randomized(build()), build()
    report = initx.initialize(model, FromModel(donor, vocabulary=(OLD, TURNED)), seed=1)
    assert notes_of(report)["places/embeddings"] == "rows by `vocabulary`"
    scheme = FromModel(donor, vocabulary=(OLD, TURNED), rows={"places": range(6)})
    assert notes_of(initx.initialize(model, scheme, seed=1))["places/embeddings"] == ""
    first, second = (numpy(net.get_layer("places").embeddings) for net in (donor, model))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", ["bent", "sum", "normalized"])
def test_units_that_reach_the_output_may_be_classes_and_a_row_says_so(name):
    donor, model = randomized(model_of(9, HEADS[name])), model_of(4, HEADS[name])
    notes = notes_of(initx.initialize(model, FromModel(donor, rows={"words": range(4)}), seed=1))
    doubt = "if they are classes or words, tell which by `rows` or `vocabulary`"
    assert [path for path, note in notes.items() if doubt in note] == ["out"]
    cure = FromModel(donor, rows={"words": range(4), "out*": [0, 3, 7, None], "norm*": [0, 3, 7, None]})
    if name != "normalized":
        cure.rows.pop("norm*")
    report = initx.initialize(model, cure, seed=1)
    assert not any(doubt in note for note in notes_of(report).values())
    first, second = (numpy(net.get_layer("out").kernel) for net in (donor, model))
    np.testing.assert_array_equal(second[:, :3], first[:, [0, 3, 7]])


def test_a_tokenizer_of_byte_pairs_is_read_by_its_numbers():
    tokenizers = pytest.importorskip("keras_hub").tokenizers
    old = {"e": 3, "the": 0, "t": 1, "h": 2, "th": 4}
    new = {"t": 0, "h": 1, "e": 2, "th": 3, "the": 4}
    pair = [tokenizers.BytePairTokenizer(vocabulary=own, merges=["t h", "th e"]) for own in (old, new)]
    donor, model = randomized(model_of(5)), model_of(5)
    initx.initialize(model, FromModel(donor, vocabulary=tuple(pair)), seed=1)
    first, second = (numpy(net.get_layer("words").embeddings) for net in (donor, model))
    for word, row in new.items():
        np.testing.assert_array_equal(second[row], first[old[word]])
