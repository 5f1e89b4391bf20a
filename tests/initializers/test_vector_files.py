"""The readers of word vectors: every format gives the same table, and a malformed file says where."""

import io
import pickle
import re
import tracemalloc

import numpy as np
import pytest

from keras_initx.initializers._vector_files import checksum_of, read_table

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites

WORDS = ["the", "1", "naïve", "日本", ".", "a\u2028b", "new\xa0york", "the"]
VECTORS = np.random.default_rng(0).normal(size=(8, 5)).astype("float32")
VOCABULARY = ("", "[UNK]", "日本", "the", "a\u2028b", "the", "The", "new\xa0york", "1")
# The first vector of a word counts: row 7 holds a second one for "the".
ROWS = {2: 3, 3: 0, 4: 5, 5: 0, 7: 6, 8: 1}


def text_of(words, vectors, header=False, end="\n"):
    lines = [f"{len(words)} {len(vectors[0])}{end}"] if header else []
    lines += [f"{word} {' '.join(map(str, row))}{end}" for word, row in zip(words, vectors, strict=True)]
    return "".join(lines).encode()


def binary_of(words, vectors, end=b"\n"):
    pairs = zip(words, vectors, strict=True)
    records = (word.encode() + b" " + row.astype("<f4").tobytes() + end for word, row in pairs)
    return f"{len(words)} {vectors.shape[1]}\n".encode() + b"".join(records)


def npz_of(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy_of(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


FORMS = {
    "glove.txt": text_of(WORDS, VECTORS),
    "windows.txt": text_of(WORDS, VECTORS, end="\r\n"),
    "word2vec.txt": text_of(WORDS, VECTORS, header=True, end=" \n"),
    "fasttext.vec": text_of(WORDS, VECTORS, header=True),
    "word2vec.bin": binary_of(WORDS, VECTORS),
    "gensim.bin": binary_of(WORDS, VECTORS, end=b""),
    "texts.npz": npz_of(words=WORDS, vectors=VECTORS),
    "bytes.npz": npz_of(words=[word.encode() for word in WORDS], vectors=VECTORS.astype("float64")),
}


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


def read(folder, name, content, words=VOCABULARY):
    path = written(folder, name, content)
    return read_table(path, checksum_of(path), words)


@pytest.mark.parametrize("name", FORMS)
def test_each_format_gives_the_same_rows(name, tmp_path):
    table = read(tmp_path, name, FORMS[name])
    assert table.vectors.dtype == np.float32
    assert dict(enumerate(table.found)) == {row: row in ROWS for row in range(len(VOCABULARY))}
    np.testing.assert_array_equal(table.vectors[list(ROWS)], VECTORS[list(ROWS.values())])
    assert not table.vectors[~table.found].any()


@pytest.mark.parametrize("name", [*FORMS, "alone.npz", "alone.npy"])
def test_without_a_vocabulary_the_rows_are_those_of_the_file(name, tmp_path):
    alone = {"alone.npz": npz_of(vectors=VECTORS), "alone.npy": npy_of(VECTORS)}
    table = read(tmp_path, name, (FORMS | alone)[name], None)
    assert table.found.all()
    np.testing.assert_array_equal(table.vectors, VECTORS)


@pytest.mark.parametrize("more", [0, 2])
def test_vectors_without_words_are_in_the_order_of_the_vocabulary(more, tmp_path):
    words = tuple("abcdefgh") + ("",) * more
    table = read(tmp_path, "alone.npy", npy_of(VECTORS), words)
    np.testing.assert_array_equal(table.vectors[:8], VECTORS)
    assert table.found.tolist() == [True] * 8 + [False] * more


@pytest.mark.parametrize("words", [tuple("abcdefg"), tuple("abcdefghi")])
def test_vectors_without_words_must_be_as_many_as_the_words(words, tmp_path):
    told = f"`vocabulary` must have a word for each vector.* {len(words)} words, .* with 8 vectors"
    with pytest.raises(ValueError, match=told):
        read(tmp_path, "alone.npz", npz_of(vectors=VECTORS), words)


def test_a_word_of_text_may_have_spaces(tmp_path):
    """As in GloVe's 840B: the vector is read from the right."""
    content = b"of 1 2 3\n. . . 4 5 6\nat name@domain.com 7 8 9\nat 10 11 12\n"
    words = (". . .", "at", "at name@domain.com", "name@domain.com", ".")
    table = read(tmp_path, "glove.txt", content, words)
    assert table.vectors.tolist() == [[4, 5, 6], [10, 11, 12], [7, 8, 9], [0, 0, 0], [0, 0, 0]]
    assert table.found.tolist() == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("few.txt", b"the 1 2 3\nof 1 2 3\nand 1 2\n", "2 numbers instead of 3 in line 3"),
        ("unwanted.txt", b"the 1 2 3\nxxx 1 2\n", "2 numbers instead of 3 in line 2"),
        ("many.txt", b"the 1 2 3\n\nof 1 2 3 4\n", "4 numbers instead of 3 in line 3"),
        ("header.txt", b"2 3\nthe 1 2 3\nof 1 2 3 4\n", "4 numbers instead of 3 in line 3"),
        ("twice.txt", b"the 1  2 3\n", "4 numbers instead of 3 in line 1"),
        ("tabs.txt", b"the\t1\t2\t3\n", "0 numbers instead of 3 in line 1"),
        ("words.txt", b"the 1 2 3\nof 1 x 3\n", "a text in the place of a number in line 2"),
        ("nan.txt", b"the 1 2 3\nof 1 nan 3\n", "the word 'of' with a number that is not finite"),
        (
            "infinite.bin",
            binary_of(["of"], np.full((1, 3), np.inf)),
            "the word 'of' with a number that is not",
        ),
        ("short.txt", b"3 2\nthe 1 2\nof 1 2\n", "2 vectors, where the first line says 3"),
        ("long.txt", b"1 2\nthe 1 2\nof 1 2\n", "2 vectors, where the first line says 1"),
        ("empty.txt", b"", "a first line without a word and a vector"),
        ("no_vector.txt", b"the\nof\n", "a first line without a word and a vector"),
        ("empty.bin", b"", "not the two numbers of word2vec"),
        ("fasttext.bin", b"\xba\x16O/\x0c\x00\x00\x00 \n", "Take the `.vec` file of fastText"),
        ("short.bin", binary_of(WORDS, VECTORS)[:-4], "a file that ends in vector 8 of 8"),
        ("cut.bin", b"2 2\nthe " + b"\0" * 8 + b"\nof", "a file that ends in vector 2 of 2"),
        ("long.bin", binary_of(WORDS, VECTORS).replace(b"8 5", b"7 5", 1), "more than the 7 vectors"),
        ("empty.npy", b"", "a file that NumPy cannot read"),
        ("empty.npz", b"", "a file that NumPy cannot read"),
        ("axes.npy", npy_of(VECTORS[0]), r"vectors of shape \(5,\), dtype float32"),
        ("texts.npy", npy_of(np.array([["a"]])), r"vectors of shape \(1, 1\), dtype <U1"),
        ("names.npz", npz_of(matrix=VECTORS), r"arrays named \['matrix'\], none of them 'vectors'"),
        ("fewer.npz", npz_of(vectors=VECTORS, words=WORDS[1:]), r"words of shape \(7,\).* for 8 vectors"),
        ("numbers.npz", npz_of(vectors=VECTORS, words=np.arange(8)), "words of shape .* dtype int64"),
        ("glove.zip", b"PK", "packed as .zip. Unpack the file first"),
        ("google.bin.gz", b"", "packed as .gz. Unpack the file first"),
    ],
)
def test_a_malformed_file_tells_where(name, content, told, tmp_path):
    path = re.escape(str(tmp_path / name))
    with pytest.raises(ValueError, match=f"`path` must be a file of word vectors.*{path}.*{told}"):
        read(tmp_path, name, content, ("of", "the"))


@pytest.mark.parametrize("name", ["empty.txt", "none.txt", "none.bin", "none.npy"])
def test_a_file_without_vectors_is_refused_where_it_gives_the_rows(name, tmp_path):
    content = {"empty.txt": b"", "none.npy": npy_of(VECTORS[:0])}.get(name, b"0 5\n")
    with pytest.raises(ValueError, match="without a"):
        read(tmp_path, name, content, None)


class Bomb:
    """Raises when it is unpickled: a file that could run code would not show an error of ours."""

    def __reduce__(self):
        return exec, ("raise SystemExit('code of the file ran')",)


@pytest.mark.parametrize("name", ["bomb.npy", "bomb.npz", "raw.npy"])
def test_a_pickle_is_refused_and_not_run(name, tmp_path):
    bombs = np.array([Bomb()], dtype=object)
    content = {
        "bomb.npy": npy_of(bombs, allow_pickle=True),
        "bomb.npz": npz_of(vectors=VECTORS[:1], words=bombs),
        "raw.npy": pickle.dumps(Bomb()),
    }[name]
    with pytest.raises(ValueError, match="cannot read .*(pickled|allow_pickle=False).*texts and numbers"):
        read(tmp_path, name, content)


@pytest.mark.parametrize("name", ["large.txt", "large.bin"])
def test_reading_a_few_words_takes_little_memory(name, tmp_path):
    vectors = np.random.default_rng(1).normal(size=(20_000, 50)).astype("float32")
    words = [f"word{number}" for number in range(20_000)]
    content = text_of(words, vectors) if name == "large.txt" else binary_of(words, vectors)
    path = written(tmp_path, name, content)
    checksum = checksum_of(path)
    tracemalloc.start()
    table = read_table(path, checksum, ("word19999", "word7"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(table.vectors, vectors[[19_999, 7]])
    assert peak < len(content) / 20


def test_the_checksum_is_sha256_and_follows_the_file(tmp_path):
    path = written(tmp_path, "glove.txt", b"abc")
    # NIST's example (FIPS 180-2, appendix B.1)
    assert checksum_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.write_bytes(b"")
    assert checksum_of(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
