"""The text example: its token numbers and its models."""

import pathlib

import keras
import numpy as np
import pytest

pytest.importorskip("tensorflow_datasets")
pytest.importorskip("matplotlib")

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import text_classification

    return text_classification


@pytest.mark.tensorflow
@pytest.mark.parametrize("split", ["character", "whitespace"])
def test_the_plain_tokenizer_gives_the_ids_of_text_vectorization(split, example):
    import export_text

    texts = [
        "Hello, World! it's A-b c_d\tE\x0bF\x0cG\r\nH  \x1cI\u00a0J \u00c9COLE \u2028x",
        *(
            "",
            "   ",
            "[UNK] unk",
            "".join(map(chr, range(1, 128))),
            "\u0130stanbul \u2014 \u201cna\u00efve\u201d",
        ),
        *("a b c d e f g h i j k l m n o p", "a\u0000b \U0001f600"),
    ]
    known = example.learn_vocabulary(texts, split)[::2]
    vectorizer = export_text.vectorizer({"split": split, "vocabulary": known}, length=12)
    assert vectorizer.get_vocabulary() == ["", "[UNK]", *known]
    np.testing.assert_array_equal(vectorizer(texts), example.encode(texts, split, known, 12))


@pytest.mark.parametrize("kind", ["relu_rnn", "gru", "lstm", "transformer"])
def test_each_model_learns_from_its_first_step(kind, example):
    rows = [("left " * n, 0) for n in range(1, 5)] + [("right " * n, 1) for n in range(1, 5)]
    ids = example.encode([text for text, _ in rows], "whitespace", ["left", "right"], 6)
    labels = np.array([label for _, label in rows])
    data = example.Data((ids, labels), (ids, labels), ("l", "r"), "whitespace", ["left", "right"], [])
    model = example.build_model(data, kind, "initx>GlorotScaled")
    losses = model.fit(ids, labels, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    longer = np.pad(ids[:, :4], ((0, 0), (0, 2)))[[0, 4]]  # padding is not read
    answers = [keras.ops.convert_to_numpy(model(rows)) for rows in (longer, ids[[0, 4]])]
    np.testing.assert_allclose(*answers, atol=1e-6)


SENTENCE = "for row in rows: print(row)\n"


@pytest.fixture
def source(example, monkeypatch):
    """The characters of a sentence that is repeated, in place of the whole library."""
    datasets = example.keras_initx.datasets
    text = datasets.read_pysource.__globals__["_numbers"](SENTENCE * 60)
    found = datasets.SourceText(datasets.read_pysource.__globals__["VOCABULARY"], text[:1200], text[1200:])
    monkeypatch.setattr(datasets, "read_pysource", lambda: found)
    return example.load_data("initx_pysource", 16)


def test_the_decoder_learns_which_character_follows(source, example):
    assert source.train[0].shape == source.train[1].shape == (74, 16)
    assert source.examples[0] in SENTENCE * 2
    assert (
        example.encode(source.examples, "character", source.vocabulary, 16).tolist()
        == source.test[0][:8].tolist()
    )
    model = example.build_model(source, "decoder", "initx>GlorotScaled", width=32, depth=1)
    assert model.output_shape == (None, 16, 98)
    model.optimizer.learning_rate = 1e-2
    losses = model.fit(*source.train, batch_size=8, epochs=4, verbose=0).history["loss"]
    assert losses[0] < np.log(98)
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("tied", [False, True])
def test_the_decoder_sees_no_later_character_and_its_heads_grow_with_its_width(tied, example):
    import decoder

    model = decoder.build(48, 2, length=8, tied=tied)
    ids = np.arange(2, 18).reshape(2, 8)
    later = ids.copy()
    later[:, 5:] += 40
    first, second = (keras.ops.convert_to_numpy(model(rows)) for rows in (ids, later))
    assert first.shape == (2, 8, 98)
    np.testing.assert_allclose(first[:, :5], second[:, :5], atol=1e-5)
    assert np.abs(first[:, 5:] - second[:, 5:]).max() > 1e-2
    query = model.get_layer("block2_attention").query_dense.kernel
    assert tuple(query.shape) == (48, 3, 16)
    assert len(model.weights) == 2 + 2 * 16 + 2 + (0 if tied else 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((40, 1), "multiple of the width of a head, 16. Received: width=40"),
        ((0, 1), "Received: width=0"),
        ((32, 0), "`depth` must be at least 1. Received: depth=0"),
    ],
)
def test_the_decoder_refuses_other_sizes(arguments, message, example):
    import decoder

    with pytest.raises(ValueError, match=message):
        decoder.build(*arguments)
