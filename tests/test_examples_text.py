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
