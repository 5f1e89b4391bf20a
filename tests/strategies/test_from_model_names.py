"""Names that the user gave tell the pairs: of heads, towers and branches side by side, and of tables."""

import json
import re

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx.strategies import FromModel
from support.grown_models import difference, randomized


def numpy(value):
    return keras.ops.convert_to_numpy(value)


def heads(names):
    entry = layers.Input((5,))
    x = layers.Dense(8, "relu", name="trunk")(entry)
    return keras.Model(entry, [layers.Dense(3, name=name)(x) for name in names])


def towers(names):
    entries = [layers.Input((5,), name=f"in_{name}") for name in names]
    inner = [
        keras.Sequential([layers.Dense(8, "relu"), layers.Dense(8, "relu")], name=name)(entry)
        for name, entry in zip(names, entries, strict=True)
    ]
    return keras.Model(entries, layers.Dense(2, name="out")(layers.Average()(inner)))


def branches(names):
    entry = layers.Input((8,))
    x = layers.Dense(8, name="stem")(entry)
    y = layers.Add()([layers.Dense(8, "relu", name=name)(x) for name in names] + [x])
    return keras.Model(entry, layers.Dense(2, name="out")(y))


def sources(report):
    """The sources of the kernels, by the paths without the numbers that Keras made."""
    short = lambda path: re.sub(r"dense(_\d+)?", "dense", path)  # noqa: E731
    return {(short(row.path), short(row.source)) for row in report.rows if row.is_kernel}


@pytest.mark.parametrize("depth", ["uniform", "first", "stack"])
@pytest.mark.parametrize(
    ("build", "old", "new"),
    [
        (heads, "age gender", "age gender mood"),
        (heads, "age gender", "gender mood age"),
        (heads, "age gender", "mood age gender"),
        (heads, "age gender mood", "mood gender"),
        (heads, "age gender", "age mood"),
        (heads, "task_1 task_2", "task_2 task_1"),
        (heads, "task_1 task_2", "task_3 task_2 task_1"),
        (towers, "user item", "query user item"),
        (towers, "user item", "item user"),
        (branches, "left right", "left middle right"),
        (branches, "branch_1 branch_2", "branch_0 branch_2 branch_1"),
    ],
)
def test_what_lies_side_by_side_is_paired_by_name(build, old, new, depth):
    donor, model = randomized(build(old.split())), build(new.split())
    report = initx.initialize(model, FromModel(donor, depth=depth), seed=1)
    for path, source in sources(report):
        known = path.split("/")[0] in (*old.split(), "trunk", "stem", "out")
        assert source == (path if known else "")
    for row in report.rows:
        assert bool(row.source) != bool(row.note)
        if not row.source:
            assert "the donor has none of its name" in row.note or "no weight left" in row.note


def test_names_that_keras_made_do_not_count():
    def build(count):
        entry = layers.Input((5,))
        x = layers.Dense(8, "relu", name="trunk")(entry)
        return keras.Model(entry, [layers.Dense(3)(x) for _ in range(count)])

    donor = randomized(build(2))
    build(1)  # the numbers of the model are others
    model = build(2)
    report = initx.initialize(model, FromModel(donor), seed=1)
    assert report.matched == 1
    for mine, other in zip(model.layers[2:], donor.layers[2:], strict=True):
        np.testing.assert_array_equal(numpy(mine.kernel), numpy(other.kernel))


def test_numbered_blocks_in_a_row_follow_depth():
    def build(blocks):
        hidden = [layers.Dense(8, "relu", name=f"layer_{n}") for n in range(blocks)]
        return keras.Sequential([layers.Input((8,)), *hidden, layers.Dense(3, name="head")])

    donor, model = randomized(build(4)), build(8)
    report = initx.initialize(model, FromModel(donor), seed=1)
    taken = [row.source for row in report.rows if row.is_kernel]
    assert taken == [f"layer_{n // 2}" for n in range(8)] + ["head"]


def language(tied, table=layers.ReversibleEmbedding):
    entry = layers.Input((4,), dtype="int32")
    options = {"tie_weights": tied} if table is layers.ReversibleEmbedding else {}
    words = table(9, 6, name="words", **options)
    x = layers.LayerNormalization(name="norm")(layers.GRU(6, return_sequences=True, name="gru")(words(entry)))
    if options:
        return keras.Model(entry, words(x, reverse=True))
    return keras.Model(entry, layers.Dense(9, name="logits", use_bias=False)(x))


TABLES = {
    "tied": lambda: language(True),
    "untied": lambda: language(False),
    "dense": lambda: language(None, layers.Embedding),
}


@pytest.mark.parametrize(
    ("old", "new"),
    [("tied", "untied"), ("untied", "tied"), ("tied", "dense"), ("dense", "tied"), ("untied", "dense")],
)
def test_the_body_of_a_language_model_passes_between_tied_and_other_logits(old, new):
    donor, model = randomized(TABLES[old]()), TABLES[new]()
    report = initx.initialize(model, FromModel(donor), seed=1)
    rest = {row.path: row.note for row in report.rows if not row.source}
    expected = {"untied": {"words/reverse_embeddings"}, "dense": {"logits"}, "tied": set()}[new]
    assert set(rest) == expected
    assert all(rest.values())
    np.testing.assert_array_equal(
        numpy(model.get_layer("words").embeddings), numpy(donor.get_layer("words").embeddings)
    )


def test_the_only_candidate_is_taken():
    """The two have other names around the table and another number of blocks, as BERT and DistilBERT."""

    class Tables(layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.token = layers.Embedding(11, 8, name="token_embedding")

        def build(self, _):
            self.token.build()

        def call(self, x):
            return self.token(x)

    def build(blocks, nested, more):
        entry = layers.Input((4,), dtype="int32")
        x = Tables(name="tables")(entry) if nested else layers.Embedding(11, 8, name="token_embedding")(entry)
        x = x + layers.Embedding(2, 8, name="segment_embedding")(entry) if more else x
        for n in range(blocks):
            h = layers.LayerNormalization(name=f"layer_{n}_norm")(x)
            x = x + layers.Dense(8, name=f"layer_{n}_out")(layers.Dense(16, "relu", name=f"layer_{n}_in")(h))
        return keras.Model(entry, x)

    donor, model = randomized(build(4, False, True)), build(2, True, False)
    report = initx.initialize(model, FromModel(donor), seed=1)
    assert report.matched == 1
    source = {row.path: row.source for row in report.rows}
    assert source["tables/token_embedding/embeddings"] == "token_embedding/embeddings"
    assert [source[f"layer_{n}_in"] for n in range(2)] == ["layer_0_in", "layer_2_in"]


def test_one_candidate_for_several_is_told_and_the_printed_cure_runs():
    def build(names):
        entry = x = layers.Input((4,))
        for name in names:
            x = layers.Dense(4, "relu", name=name)(x)
        return keras.Model(entry, layers.EinsumDense("ab,bc->ac", 4, name="out")(x))

    donor = randomized(build(["stem", "other"]))
    entry = layers.Input((4,))
    x = layers.LayerNormalization(name="norm")(layers.Dense(4, name="stem")(entry))
    x = layers.Dense(4, name="two")(layers.Dense(4, name="one")(x))
    model = keras.Model(entry, layers.EinsumDense("ab,bc->ac", 4, name="out")(x))
    with pytest.raises(ValueError, match="`other` alone, for 2 of the model: `one`, `two`") as error:
        initx.initialize(model, FromModel(donor))
    assert "candidates" not in str(error.value)
    mapping = json.loads(re.search(r"mapping=(\{.*?\})", str(error.value))[1])
    report = initx.initialize(model, FromModel(donor, mapping=mapping), seed=1)
    assert {row.path: row.source for row in report.rows if row.is_kernel and row.source} == {
        "stem": "stem",
        "one": "other",
        "out": "out",
    }


def attention(width, count):
    """An attention that is written out."""
    entry = layers.Input((6, 5))
    split = layers.Reshape((6, count, width // count))
    query, key, value = (split(layers.Dense(width, name=name)(entry)) for name in ("q", "k", "v"))
    scores = keras.ops.softmax(keras.ops.einsum("bqhd,bkhd->bhqk", query, key))
    x = keras.ops.einsum("bhqk,bkhd->bqhd", scores, value)
    return keras.Model(entry, layers.Dense(2, name="out")(layers.Reshape((6, width))(x)))


def grouped(width, groups):
    entry = layers.Input((8, 8, 3))
    x = layers.Conv2D(width, 3, groups=groups, name="grouped")(layers.Conv2D(width, 3, name="stem")(entry))
    return keras.Model(entry, layers.Dense(2, name="out")(layers.GlobalAveragePooling2D()(x)))


def inner(width, hidden):
    entry = layers.Input((6,))
    x = layers.Dense(hidden, "relu", name="in")(layers.Dense(width, name="stem")(entry))
    return keras.Model(entry, layers.Dense(3, name="head")(layers.Dense(width, name="back")(x)))


@pytest.mark.parametrize("width", ["clone", "select"])
@pytest.mark.parametrize(
    ("build", "old", "new", "told"),
    [
        (
            attention,
            (8, 2),
            (16, 8),
            r"wider at `.`, axis 1 \(8 where .* 2\), .*narrower at `.`, axis 1 \(2 ",
        ),
        (grouped, (8, 2), (16, 8), r"axis 3 \(8 where .* 2\), .*narrower at `.*`, axis 3 \(2 where .* 4\)"),
        (
            inner,
            (8, 16),
            (16, 8),
            r"wider at `stem`, axis 1 \(16 .* 8\), .*narrower at `in`, axis 1 \(8 .* 16",
        ),
    ],
)
def test_a_model_that_is_wider_and_narrower_is_told_and_the_printed_cure_runs(build, old, new, told, width):
    donor, model = randomized(build(*old)), build(*new)
    before = [numpy(weight).copy() for weight in model.weights]
    with pytest.raises(ValueError, match=told) as error:
        initx.initialize(model, FromModel(donor, width=width))
    assert type(error.value) is ValueError
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(numpy(weight), value)
    cure = re.search(r"FromModel\(donor, width='(\w+)', mapping=(\{.*?\})\)", str(error.value))
    mapping = json.loads(cure[2].replace("None", "null"))
    report = initx.initialize(model, FromModel(donor, width=cure[1], mapping=mapping), seed=1)
    notes = {row.path: row.note for row in report.rows}
    assert all("`mapping` gives it nothing" in notes[path] for path in mapping)


@pytest.mark.parametrize(
    "grid", [(2, 2), ((0, -3), (1, 2)), ((2, 2),), ((2, 2), (3.5, 2)), "no", ((2, 2), (True, 2)), 4]
)
def test_grids_that_are_none(grid):
    with pytest.raises(ValueError, match=r"`grid` must be two pairs of positive integers.*Received: grid="):
        FromModel(grid=grid)


def test_grids_of_numpy_integers():
    assert FromModel(grid=np.array([[2, 3], [4, 5]])).grid == ((2, 3), (4, 5))


def test_the_summary_says_which_weights_are_the_donors():
    def build(classes):
        return keras.Sequential([layers.Input((4,)), layers.Dense(8), layers.Dense(classes, name="head")])

    donor = randomized(build(3))
    same, other = (initx.initialize(build(classes), FromModel(donor), seed=1) for classes in (3, 4))
    assert "2 biases, scales and statistics, 2 of the donor, are not shown" in str(same)
    # The bias of a head that is drawn has a reason, and so a row in the table.
    assert "1 biases, scales and statistics, 1 of the donor, are not shown" in str(other)
    assert "head/bias" in str(other)
    own = initx.initialize(build(3), seed=1)
    assert "2 biases, scales and statistics, by their layers' own initializers, are not shown" in str(own)


def test_a_renamed_model_is_paired_by_order():
    donor, model = randomized(heads(["age"])), heads(["years"])
    initx.initialize(model, FromModel(donor), seed=1)
    assert difference(donor, model, np.ones((2, 5), "float32") * [[1.0], [2.0]]) < 1e-6
