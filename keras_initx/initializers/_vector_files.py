"""Readers of files with word vectors: NumPy arrays, word2vec and GloVe.

Text and binary files are read as streams: of a file with a million vectors, only those of the vocabulary are
parsed and kept. No format needs pickle, so no file can run code.
"""

import dataclasses
import functools
import hashlib
import mmap
import pathlib
import zipfile
from collections.abc import Container, Iterator, Sequence
from typing import TypeAlias

import numpy as np

from keras_initx._vocabulary import least_rows

__all__ = ["VectorTable", "checksum_of", "read_table"]

# The words of a file in UTF-8, each with its vector.
_Entries: TypeAlias = Iterator[tuple[bytes, np.ndarray]]
_PACKED = (".bz2", ".gz", ".xz", ".zip")
_MARK = b"\xef\xbb\xbf"  # some editors write it before the first word of a text in UTF-8


@dataclasses.dataclass(frozen=True, eq=False)
class VectorTable:
    """The rows of an embedding.

    Attributes:
        vectors: float32 of shape (rows, dimension), zero in the rows without a vector. It cannot be written.
        found: Whether each row has a vector; bool of shape (rows,).
    """

    vectors: np.ndarray
    found: np.ndarray

    def __post_init__(self) -> None:
        self.vectors.flags.writeable = self.found.flags.writeable = False


def checksum_of(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal digits.

    A file is read anew only if its size or its time of change differs.

    Args:
        path: An existing file.
    """
    stat = path.stat()
    return _checksum(path.resolve(), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _checksum(path: pathlib.Path, size: int, changed: int) -> str:  # noqa: ARG001
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# A model that is built, reset or compared draws its table many times. The last table stays in memory.
@functools.lru_cache(maxsize=1)
def read_table(path: pathlib.Path, checksum: str, words: tuple[str, ...] | None) -> VectorTable:  # noqa: ARG001
    """Reads the vectors of a vocabulary from a file.

    If a word occurs several times in the file, its first vector counts.

    Args:
        path: A `.npy`, `.npz` or word2vec `.bin` file, or a text file of word2vec or GloVe.
        checksum: The SHA-256 of the file: a changed file is read anew.
        words: The word of each row; an empty string for a row without a word. None takes the vectors in the
            order of the file.

    Returns:
        The table.

    Raises:
        ValueError: If the file is not such a file, or holds numbers that are not finite.
    """
    suffix = path.suffix.lower()
    if suffix in _PACKED:
        raise _misfit(path, f"a file packed as {suffix}", "Unpack the file first.")
    if suffix in (".npy", ".npz"):
        table = _from_arrays(path, *_load(path), words)
    elif words is None:
        table = _whole([vector for _, vector in _stream(path, None)[1]], path)
    else:
        index = _index(words)
        table = _chosen(*_stream(path, index), index, len(words))
    bad = np.flatnonzero(~np.isfinite(table.vectors).all(axis=1))
    if bad.size:
        named = f"row {bad[0]}" if words is None else f"the word {words[bad[0]]!r}"
        raise _misfit(path, f"a vector for {named} with a number that is not finite", "Correct the file.")
    return table


def _index(words: Sequence[str]) -> dict[bytes, list[int]]:
    """Returns the rows of each word."""
    index: dict[bytes, list[int]] = {}
    for row, word in enumerate(words):
        if word:
            index.setdefault(word.encode(), []).append(row)
    return index


def _whole(vectors: Sequence[np.ndarray] | np.ndarray, path: pathlib.Path) -> VectorTable:
    if not len(vectors):
        raise _misfit(path, "a file without a vector")
    return VectorTable(np.array(vectors, dtype=np.float32), np.ones(len(vectors), bool))


def _chosen(dimension: int, entries: _Entries, index: dict[bytes, list[int]], rows: int) -> VectorTable:
    """Puts the vectors of the words in their rows. `index` loses a word as soon as its vector is there."""
    vectors, found = np.zeros((rows, dimension), np.float32), np.zeros(rows, bool)
    for word, vector in entries:
        for row in index.pop(word, ()):
            vectors[row], found[row] = vector, True
    return VectorTable(vectors, found)


def _from_arrays(
    path: pathlib.Path, names: list[bytes] | None, vectors: np.ndarray, words: tuple[str, ...] | None
) -> VectorTable:
    if words is None:
        return _whole(vectors, path)
    if names is not None:
        index = _index(words)
        return _chosen(vectors.shape[1], zip(names, vectors, strict=True), index, len(words))
    # Without words, the vectors are in the order of the vocabulary.
    least = least_rows(words)
    if not least <= len(vectors) <= len(words):
        raise ValueError(
            "`vocabulary` must have a word for each vector of a file without words. Received: "
            f"{least} words, path={str(path)!r} with {len(vectors)} vectors. Save the words beside the "
            "vectors: `numpy.savez(path, words=words, vectors=vectors)`."
        )
    more = len(words) - len(vectors)
    padded = np.pad(vectors.astype(np.float32), ((0, more), (0, 0)))
    return VectorTable(padded, np.arange(len(words)) < len(vectors))


def _load(path: pathlib.Path) -> tuple[list[bytes] | None, np.ndarray]:
    """Returns the words, if the file has any, and the vectors of a `.npy` or `.npz` file."""
    cure = "Save it by `numpy.savez(path, words=words, vectors=vectors)`, with texts and numbers only."
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                arrays = {name: loaded[name] for name in ("words", "vectors") if name in loaded.files}
                held = loaded.files
        else:
            arrays, held = {"vectors": loaded}, []
    except (EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
        # NumPy's next sentence is how to run the code in a file.
        reason = str(error).partition(". ")[0]
        raise _misfit(path, f"a file that NumPy cannot read ({reason})", cure) from error
    if "vectors" not in arrays:
        raise _misfit(path, f"arrays named {held}, none of them 'vectors'", cure)
    vectors, words = arrays["vectors"], arrays.get("words")
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise _misfit(path, f"vectors of shape {vectors.shape}, dtype {vectors.dtype}", cure)
    if words is None:
        return None, vectors
    if words.dtype.kind not in "SU" or words.shape != vectors.shape[:1]:
        found = f"words of shape {words.shape}, dtype {words.dtype}, for {len(vectors)} vectors"
        raise _misfit(path, found, cure)
    return [word if isinstance(word, bytes) else word.encode() for word in words.tolist()], vectors


def _stream(path: pathlib.Path, wanted: Container[bytes] | None) -> tuple[int, _Entries]:
    """Returns the dimension of a word2vec or GloVe file, and its vectors of the words that are wanted."""
    binary = path.suffix.lower() == ".bin"
    with path.open("rb") as file:
        first = file.readline(100) if binary else file.readline()
        second = b"" if binary else file.readline()
    fields = (first if binary else first.removeprefix(_MARK)).split()
    # GloVe has no header. A vector of one number for a word that is a number would look like a header.
    header = len(fields) == 2 and all(field.isdigit() for field in fields)
    if binary and not header:
        cure = "Take the `.vec` file of fastText, whose `.bin` file is a model."
        raise _misfit(path, f"a first line that is not the two numbers of word2vec: {first[:20]!r}", cure)
    if header:
        count, dimension = map(int, fields)
        records = (
            _records(path, len(first), count, dimension, wanted)
            if binary
            else _lines(path, dimension, count, wanted)
        )
        return dimension, records
    if len(fields) < 2:
        raise _misfit(path, f"a first line without a word and a vector: {first[:20]!r}")
    dimension, other = len(fields) - 1, len(second.split()) - 1
    if 0 < other < dimension and not _is_number(fields[-other - 1]):
        dimension = other  # the first word has spaces
    return dimension, _lines(path, dimension, None, wanted)


def _lines(
    path: pathlib.Path, dimension: int, count: int | None, wanted: Container[bytes] | None
) -> _Entries:
    """Yields the vectors of a text file, whose header gave the count of its vectors, if it has a header."""
    seen, first = 0, 1
    with path.open("rb") as file:
        if count is not None:
            first = 2
            file.readline()
        for number, text in enumerate(file, first):
            line = (text.removeprefix(_MARK) if number == 1 else text).rstrip()  # word2vec ends with a space
            if not line:
                continue
            seen += 1
            numbers = line.count(b" ")
            word = line[: line.find(b" ")]
            if numbers > dimension:
                # GloVe has words with spaces, such as ". . .". A number there is one number too many.
                word = line.rsplit(b" ", dimension)[0]
                numbers -= not _is_number(word.rpartition(b" ")[2]) and numbers - dimension
            if numbers != dimension:
                raise _misfit(path, f"{numbers} numbers instead of {dimension} in line {number}")
            if wanted is None or word in wanted:
                yield word, _vector(line[len(word) + 1 :].split(b" "), path, number)
    if count not in (None, seen):
        raise _misfit(path, f"{seen} vectors, where the first line says {count}")


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return not text  # two spaces in a row
    return True


def _vector(numbers: list[bytes], path: pathlib.Path, line: int) -> np.ndarray:
    try:
        return np.array(numbers, dtype=np.float32)
    except ValueError as error:
        raise _misfit(path, f"a text in the place of a number in line {line} ({error})") from error


def _records(
    path: pathlib.Path, start: int, count: int, dimension: int, wanted: Container[bytes] | None
) -> _Entries:
    """Yields the vectors of word2vec's binary file: each a word, a space, and float32 numbers."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = start
        for number in range(1, count + 1):
            at += data[at : at + 1] == b"\n"  # word2vec ends a vector with it, other writers do not
            numbers = data.find(b" ", at) + 1
            end = numbers + 4 * dimension
            if not numbers or end > len(data):
                raise _misfit(path, f"a file that ends in vector {number} of {count}")
            word = data[at : numbers - 1]
            if wanted is None or word in wanted:
                yield word, np.frombuffer(data[numbers:end], "<f4")
            at = end
        if len(data) - at > 1:
            raise _misfit(path, f"more than the {count} vectors of its first line")


def _misfit(path: pathlib.Path, found: str, cure: str = "Fetch or write the file anew.") -> ValueError:
    return ValueError(
        "`path` must be a file of word vectors: `.npy`, `.npz`, word2vec (`.bin` or text) or GloVe text. "
        f"Received: path={str(path)!r}, {found}. {cure}"
    )
