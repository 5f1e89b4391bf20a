"""FromVectors: embeddings that begin with word vectors, in models, files and reports."""

import concurrent.futures
import json
import os
import pickle
import zipfile

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.experiments._identity import identify
from keras_initx.initializers import FromVectors, HeScaled
from keras_initx.initializers._vector_files import read_table
from support import forked

WORDS = ["the", "of", "and", "cat", "dog", "sat"]
VECTORS = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
VOCABULARY = ["", "[UNK]", "cat", "the", "bird", "sat"]
OWN = {2: 3, 3: 0, 5: 5}  # rows of the vectors by the rows of the table


def array(tensor):
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float64")))


def written(path, words=WORDS, vectors=VECTORS):
    lines = (f"{word} {' '.join(map(str, row))}\n" for word, row in zip(words, vectors, strict=True))
    path.write_text("".join(lines), "utf-8")
    return path


@pytest.fixture
def glove(tmp_path):
    return written(tmp_path / "glove.txt")


def model_of(initializer, rows=6):
    embedding = layers.Embedding(rows, 4, embeddings_initializer=initializer, name="embedding")
    model = keras.Sequential([layers.Input((3,), dtype="int32"), embedding, layers.Flatten()])
    model.add(layers.Dense(1, name="head"))
    return model


def table_of(model):
    return array(model.get_layer("embedding").embeddings)


def check_own(table):
    np.testing.assert_array_equal(table[list(OWN)], VECTORS[list(OWN.values())])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_rows_of_known_words_are_their_vectors(glove, dtype):
    table = FromVectors(glove, VOCABULARY)((6, 4), dtype)
    expected = array(ops.cast(ops.convert_to_tensor(VECTORS), dtype))
    np.testing.assert_array_equal(array(table)[list(OWN)], expected[list(OWN.values())])
    others = [row for row in range(6) if row not in OWN]
    assert np.isfinite(array(table)[others]).all()
    assert array(table)[others].all()


def test_an_embedding_takes_it(glove):
    check_own(table_of(model_of(FromVectors(glove, VOCABULARY))))
    half = layers.Embedding(6, 4, embeddings_initializer=FromVectors(glove, VOCABULARY), dtype="float16")
    half.build()
    np.testing.assert_array_equal(array(half.embeddings)[2], VECTORS[3].astype("float16"))


def test_missing_words_have_the_moments_of_the_vectors_in_each_dimension(tmp_path):
    mean, std = np.array([0.0, 3.0, -1.0]), np.array([1.0, 0.1, 5.0])
    vectors = np.random.default_rng(1).normal(mean, std, size=(50, 3)).astype("float32")
    known = [f"known{number}" for number in range(50)]
    missing = [f"missing{number}" for number in range(4000)]
    initializer = FromVectors(written(tmp_path / "v.txt", known, vectors), missing + known[:40], seed=1)
    with pytest.warns(UserWarning, match="found 40 of 4040 words"):
        drawn = array(initializer((4040, 3)))[:4000]
    # Those that were found count, not the other ten.
    mean, std = vectors[:40].mean(axis=0, dtype="float64"), vectors[:40].std(axis=0, dtype="float64")
    assert (abs(drawn.mean(axis=0) - mean) < 4.5 * std / 4000**0.5).all()
    assert (abs(drawn.std(axis=0) / std - 1) < 4.5 / 8000**0.5).all()


def test_the_moments_are_exact_far_from_zero(tmp_path):
    """The std from sums of squares, where the mean is 1000 times as large: 1.5 for 999, 1001, 1002, 1003."""
    vectors = np.array([[999.0], [1001.0], [1002.0], [1003.0]])
    file = written(tmp_path / "v.txt", "abcd", vectors)
    drawn = array(FromVectors(file, [*"abcdx"], seed=3)((5, 1)))[4, 0]
    normal = array(keras.random.normal((5, 1), seed=_seed(3, (5, 1))))[4, 0]
    # float32 near 1000 has steps of 6e-5
    assert drawn == pytest.approx(1001.25 + np.std([999.0, 1001.0, 1002.0, 1003.0]) * normal, abs=2e-4)


def _seed(seed, shape):
    from keras_initx.initializers._base import call_seed

    return call_seed(seed, shape)


@pytest.mark.parametrize("missing", ["zeros", "initx>HeScaled", HeScaled(gain=3.0), "random_normal"])
def test_missing_words_by_a_law_are_rows_of_the_table_that_it_draws(glove, missing):
    initializer = FromVectors(glove, VOCABULARY, missing=missing, seed=5)
    table, law = array(initializer((6, 4))), keras.initializers.get(missing)
    if "seed" in law.get_config():
        law = type(law).from_config(law.get_config() | {"seed": _seed(5, (6, 4))})
    check_own(table)
    np.testing.assert_array_equal(table[[0, 1, 4]], array(law((6, 4)))[[0, 1, 4]])
    restored = keras.initializers.get(json.loads(json.dumps(keras.initializers.serialize(initializer))))
    np.testing.assert_array_equal(array(restored((6, 4))), table)


def test_a_law_with_a_seed_of_its_own_keeps_it(glove):
    first, second = (
        FromVectors(glove, VOCABULARY, missing=HeScaled(seed=9), seed=seed)((6, 4)) for seed in (1, 2)
    )
    np.testing.assert_array_equal(array(first), array(second))


@pytest.mark.parametrize("missing", [None, "random_normal", "initx>HeScaled"])
def test_seeds_rule_missing_words_alone(glove, missing):
    initializer = FromVectors(glove, VOCABULARY, missing=missing)
    keras.utils.set_random_seed(5)
    first, second = array(initializer((6, 4))), array(initializer((6, 4)))
    keras.utils.set_random_seed(5)
    np.testing.assert_array_equal(first, array(initializer((6, 4))))
    assert abs(first - second)[[0, 1, 4]].min() > 0
    check_own(second)


def lookups():
    text = ["the cat sat", "the cat", "the bird"]
    vectorization = layers.TextVectorization(max_tokens=9)
    vectorization.adapt(text)
    return {
        "TextVectorization": vectorization,
        "StringLookup": layers.StringLookup(vocabulary=["cat", "the", "bird", "sat"]),
        "masked": layers.StringLookup(vocabulary=["cat", "the"], mask_token="", num_oov_indices=2),
    }


@pytest.mark.parametrize("name", ["TextVectorization", "StringLookup", "masked"])
def test_a_lookup_layer_gives_the_rows_that_it_counts(glove, name):
    layer = lookups()[name]
    words = layer.get_vocabulary()
    table = array(FromVectors(glove, layer)((len(words), 4)))
    rows = array(ops.convert_to_tensor(np.asarray(layer(np.array(["cat", "the"]))))).astype(int).ravel()
    np.testing.assert_array_equal(table[rows], VECTORS[[3, 0]])


def test_a_tokenizer_of_keras_hub_gives_the_vocabulary(glove):
    tokenizers = pytest.importorskip("keras_hub").tokenizers
    tokenizer = tokenizers.WordPieceTokenizer(vocabulary=["[UNK]", "##s", "cat", "of", "the"])
    table = array(FromVectors(glove, tokenizer)((5, 4)))
    np.testing.assert_array_equal(table[[tokenizer.token_to_id("cat"), 4]], VECTORS[[3, 0]])


@pytest.mark.parametrize("rows", [6, 8, 9])
def test_a_table_may_have_rows_up_to_max_tokens(glove, rows):
    """The layer knows 6 words, with padding and unknown words, and may be given up to 9."""
    layer = lookups()["TextVectorization"]
    assert len(layer.get_vocabulary()) == 6
    table = array(FromVectors(glove, layer)((rows, 4)))
    np.testing.assert_array_equal(table[layer.get_vocabulary().index("cat")], VECTORS[3])
    assert table[6:].all()


def test_a_file_gives_the_vocabulary(glove, tmp_path):
    file = tmp_path / "vocabulary.txt"
    file.write_bytes("[UNK]\r\ncat\r\na\u2028b\r\nthe\r\n".encode())
    initializer = FromVectors(glove, file)
    assert initializer.vocabulary == ("[UNK]", "cat", "a\u2028b", "the")
    np.testing.assert_array_equal(array(initializer((4, 4)))[[1, 3]], VECTORS[[3, 0]])


def test_without_a_vocabulary_the_table_is_that_of_the_file(tmp_path):
    np.save(tmp_path / "table.npy", VECTORS)
    initializer = FromVectors(tmp_path / "table.npy")
    np.testing.assert_array_equal(array(initializer((6, 4))), VECTORS)
    assert initializer.missing_words() == []
    assert initializer.remark == ""
    with pytest.raises(ValueError, match=r"shape=\(7, 4\), 6 vectors in the file.*input_dim=6"):
        initializer((7, 4))


@pytest.mark.parametrize("wrong", [{0: 0}, {"cat"}, ["cat", 1], [b"cat"], 3, layers.Dense(1)])
def test_a_wrong_vocabulary_is_refused(glove, wrong):
    with pytest.raises(ValueError, match=r"`vocabulary` must be a sequence of words.*mapping of words"):
        FromVectors(glove, wrong)


def test_a_path_without_a_file_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match="`path` must be an existing file.*no.txt"):
        FromVectors(tmp_path / "no.txt", VOCABULARY)
    with pytest.raises(ValueError, match="`path` must be an existing file"):
        FromVectors(tmp_path, VOCABULARY)
    with pytest.raises(ValueError, match="`vocabulary` must be an existing file.*'words'"):
        FromVectors(vocabulary="words")


@pytest.mark.parametrize("rows", [5, 7])
def test_another_number_of_rows_is_refused_with_the_cure(glove, rows):
    told = rf"shape=\({rows}, 4\), 6 words in the vocabulary.* input_dim=6"
    with pytest.raises(ValueError, match=told):
        model_of(FromVectors(glove, VOCABULARY), rows)


@pytest.mark.parametrize("shape", [(6, 5), (6,), (6, 4, 1)])
def test_another_dimension_is_refused_with_the_cure(glove, shape):
    told = r"shape=\(6,.*glove.txt' with vectors of 4 numbers.* output_dim=4"
    with pytest.raises(ValueError, match=told):
        FromVectors(glove, VOCABULARY)(shape)


def test_the_kernel_of_untied_logits_is_the_transposed_table(glove):
    initializer = FromVectors(glove, VOCABULARY, seed=1)
    layer = layers.ReversibleEmbedding(6, 4, tie_weights=False, embeddings_initializer=initializer)
    layer.build()
    check_own(array(layer.embeddings))
    np.testing.assert_array_equal(array(layer.reverse_embeddings), array(layer.embeddings).T)
    tied = layers.ReversibleEmbedding(6, 4, embeddings_initializer=initializer)
    tied.build()
    check_own(array(tied.embeddings))


def test_missing_words_and_the_remark_tell_what_was_found(glove):
    initializer = FromVectors(glove, VOCABULARY)
    assert initializer.missing_words() == ["[UNK]", "bird"]
    assert initializer.remark == "3 of 5 words have vectors"
    assert FromVectors(vocabulary=VOCABULARY).missing_words() == VOCABULARY[1:]


def test_few_words_found_give_a_warning(glove, recwarn):
    FromVectors(glove, ["[UNK]", "cat"])((2, 4))
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"found 1 of 3 words.*not \['The', 'Cat'\].*lower case"):
        FromVectors(glove, ["The", "cat", "Cat"])((3, 4))


def test_without_a_file_it_warns_and_draws_as_keras_random_normal(recwarn):
    drawn = array(FromVectors(seed=1)((500, 40)))
    assert "has no `path`" in str(recwarn.pop(UserWarning).message)
    assert abs(drawn.std() / 0.05 - 1) < 4.5 / (2 * drawn.size) ** 0.5
    assert abs(drawn.mean()) < 4.5 * 0.05 / drawn.size**0.5


def test_the_config_holds_no_numbers_and_works_without_the_file(glove):
    config = FromVectors(glove, VOCABULARY).get_config()
    assert config["path"] == str(glove)
    assert len(config["checksum"]) == 64
    assert not any(str(number) in json.dumps(config) for number in VECTORS.ravel())
    glove.unlink()
    initializer = FromVectors.from_config(config)
    assert initializer.get_config() == config
    assert initializer.remark == "no file of vectors: `missing` drew all rows"
    with pytest.warns(UserWarning, match="does not find .*glove.txt.* load a saved model, all is well"):
        initializer((6, 4))


def test_a_saved_model_loads_without_the_file(glove, tmp_path):
    model = model_of(FromVectors(glove, VOCABULARY))
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        config = file.read("config.json").decode()
    assert "glove.txt" in config
    assert not any(str(number) in config for number in VECTORS.ravel())
    glove.unlink()
    with pytest.warns(UserWarning, match="does not find"):
        loaded = keras.models.load_model(tmp_path / "model.keras")
    for new, old in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(array(new), array(old))


@pytest.mark.tensorflow  # a file is the same on each backend
def test_a_fresh_process_loads_a_saved_model_without_the_file(glove, tmp_path):
    model = model_of(FromVectors(glove, VOCABULARY))
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "table.npy", table_of(model))
    glove.unlink()
    code = (
        "import keras, keras_initx, numpy as np\n"
        "model = keras.models.load_model('model.keras')\n"
        "table = keras.ops.convert_to_numpy(model.get_layer('embedding').embeddings)\n"
        "np.testing.assert_array_equal(table, np.load('table.npy'))"
    )
    forked.run(["-c", code], cwd=tmp_path, check=True)


def test_a_changed_file_is_refused_with_both_checksums(glove):
    initializer = FromVectors(glove, VOCABULARY)
    written(glove, WORDS[:5], VECTORS[:5])
    changed = FromVectors(glove).checksum
    assert changed != initializer.checksum
    told = f"checksum='{initializer.checksum}', path='{glove}' with '{changed}': the file has changed"
    for use in (lambda: initializer((6, 4)), initializer.missing_words):
        with pytest.raises(ValueError, match=told):
            use()


def test_initialize_draws_it_and_reports_the_words_found(glove):
    model = model_of(FromVectors(glove, VOCABULARY))
    model.get_layer("embedding").embeddings.assign(np.zeros((6, 4)))
    report = initx.initialize(model, None, seed=1)
    check_own(table_of(model))
    row = report.rows[0]
    assert row.initializer == f"FromVectors(path={glove})"
    assert row.note == "3 of 5 words have vectors"
    first = table_of(model)
    initx.initialize(model, None, seed=1)
    np.testing.assert_array_equal(first, table_of(model))
    initx.initialize(model, None, seed=2)
    assert abs(first - table_of(model))[[0, 1, 4]].min() > 0


@pytest.mark.parametrize("missing", [None, "he_normal"])
def test_initialize_takes_it_as_an_override(glove, missing):
    model = model_of("zeros")
    initializer = FromVectors(glove, VOCABULARY, missing=missing)
    report = initx.initialize(model, seed=1, overrides={"embedding": initializer})
    check_own(table_of(model))
    assert table_of(model).all()
    assert report.rows[0].note == "3 of 5 words have vectors"


def test_initialize_names_the_kernel_that_it_does_not_fit(glove):
    model = model_of("zeros")
    told = r"`head` \(role dense, shape \(12, 1\)\) cannot be drawn by FromVectors.* vectors of 4 numbers"
    with pytest.raises(ValueError, match=told):
        initx.initialize(model, FromVectors(glove, VOCABULARY))
    assert not table_of(model).any()


def test_other_verbs_and_copies_keep_it(glove):
    model = model_of(FromVectors(glove, VOCABULARY))
    initx.calibrate(model, np.arange(24).reshape(8, 3) % 6, "initx>LSUV", include="head")
    check_own(table_of(model))
    clone = keras.models.clone_model(model)
    assert clone.get_layer("embedding").embeddings_initializer.vocabulary == tuple(VOCABULARY)
    check_own(table_of(clone))
    initializer = pickle.loads(pickle.dumps(FromVectors(glove, VOCABULARY, seed=2)))
    check_own(array(initializer((6, 4))))
    told = identify(initializer, "words")
    assert told == identify(FromVectors(glove, VOCABULARY, seed=2), "words")
    assert told != identify(FromVectors(glove, VOCABULARY[::-1], seed=2), "words")


def test_training_does_not_change_the_table_that_is_kept(glove):
    """The backend might share the memory of an array that it is given."""
    initializer = FromVectors(glove, WORDS)
    model = model_of(initializer)
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.fit(np.arange(6).reshape(2, 3), np.ones((2, 1)), verbose=0)
    assert abs(table_of(model) - VECTORS).max() > 1e-3
    np.testing.assert_array_equal(array(initializer((6, 4))), VECTORS)


def test_a_file_is_read_once(glove):
    initializer = FromVectors(glove, VOCABULARY)
    before = read_table.cache_info().misses
    for _ in range(3):
        model_of(initializer)
    assert initializer.missing_words()
    assert read_table.cache_info().misses == before + 1


def test_threads_draw_the_same(glove):
    initializer = FromVectors(glove, VOCABULARY, seed=1)
    read_table.cache_clear()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(lambda _: array(initializer((6, 4))), range(8)))
    check_own(tables[0])
    assert all((table == tables[0]).all() for table in tables)


@pytest.mark.tensorflow
def test_a_long_vocabulary_is_cut_in_the_repr():
    words = [f"word{number}" for number in range(1000)]
    assert repr(FromVectors(vocabulary=words)) == (
        "FromVectors(vocabulary=['word0', 'word1', 'word2', ... 1000 in all])"
    )
    assert repr(FromVectors(vocabulary=words[:2])) == "FromVectors(vocabulary=['word0', 'word1'])"


@pytest.mark.tensorflow
def test_the_path_is_kept_as_it_was_given(glove, monkeypatch):
    monkeypatch.chdir(glove.parent)
    initializer = FromVectors("glove.txt", VOCABULARY)
    assert initializer.path == "glove.txt"
    check_own(array(initializer((6, 4))))
    assert initializer.checksum == FromVectors(os.fspath(glove)).checksum


@pytest.mark.parametrize("header", ["", "2 2\n"])
def test_a_mark_before_the_first_word_is_no_part_of_it(tmp_path, header):
    (tmp_path / "marked.txt").write_text(header + "the 1 2\ncat 3 4\n", encoding="utf-8-sig")
    (tmp_path / "words.txt").write_text("the\ncat\n", encoding="utf-8-sig")
    initializer = FromVectors(tmp_path / "marked.txt", tmp_path / "words.txt")
    np.testing.assert_array_equal(array(initializer((2, 2))), [[1, 2], [3, 4]])


def test_the_first_word_may_have_spaces(tmp_path):
    (tmp_path / "spaces.txt").write_text(". . . 1 2\nthe 3 4\n")
    found = array(FromVectors(tmp_path / "spaces.txt", ["the", ". . ."])((2, 2)))
    np.testing.assert_array_equal(found, [[3, 4], [1, 2]])


def test_a_number_beyond_the_dtype_is_refused(tmp_path):
    (tmp_path / "large.txt").write_text("the 1 70000\ncat 3 4\n")
    initializer = FromVectors(tmp_path / "large.txt", ["the", "cat"])
    with pytest.raises(ValueError, match="`dtype` must hold the vectors.*float16.*70000.*mixed_float16"):
        initializer((2, 2), "float16")
    layer = layers.Embedding(2, 2, embeddings_initializer=initializer, dtype="mixed_float16")
    layer.build()
    np.testing.assert_array_equal(array(layer.embeddings), [[1, 70000], [3, 4]])


def test_a_mapping_tells_the_rows_by_its_numbers(glove):
    initializer = FromVectors(glove, {"cat": 2, "": 0, "the": 1})
    assert initializer.vocabulary == ("", "the", "cat")
    with pytest.raises(ValueError, match=r'the numbers from 0 on.*\{"": 0\} \| numbers'):
        FromVectors(glove, {"cat": 2, "the": 1})
    assert FromVectors(glove, {"": 0} | {"cat": 2, "the": 1}).vocabulary == initializer.vocabulary
