"""`read_pysource`: the characters of Python's own source and documentation, as numbers.

The files are read and not imported.
"""

import dataclasses
import os
import pathlib
import sysconfig
import tokenize
import zlib
from collections.abc import Iterator

import numpy as np

__all__ = ["VOCABULARY", "SourceText", "read_pysource", "windows"]

# Padding, the mark of any other character, a line break, and the printable characters of ASCII. The first two
# have the numbers that `keras.layers.TextVectorization` gives them.
VOCABULARY = ("", "\N{REPLACEMENT CHARACTER}", "\n", *map(chr, range(ord(" "), ord("~") + 1)))
_OTHER = 1
_HELD_OUT = 10  # one file of this many
# Tests and tables; packages that some distributors of Python leave out; files that an installation writes.
_LEFT_OUT = {
    *("encodings", "idle_test", "test", "tests"),
    *("distutils", "ensurepip", "idlelib", "lib2to3", "tkinter", "turtledemo"),
    *("sitecustomize", "usercustomize"),
}


@dataclasses.dataclass(frozen=True)
class SourceText:
    """Text as the numbers of its characters, in two splits.

    Attributes:
        vocabulary: The character of each number. Number 0 is padding, which the text does not hold: an empty
            string. Number 1 stands for all characters that are not in the vocabulary: U+FFFD.
        train: The numbers of the characters to train on, one file after the other: uint8 of shape (n,).
        test: The numbers of the held-out characters, from other files, in the same form.
    """

    vocabulary: tuple[str, ...]
    train: np.ndarray
    test: np.ndarray


def read_pysource(folder: str | os.PathLike[str] | None = None) -> SourceText:
    r"""Reads the source files of Python's standard library as the numbers of their characters.

    The text is source with its docstrings and comments, and the reference of the language, which is in
    `pydoc_data/topics.py`: eight million characters in Python 3.11. Tests, tables of encodings, and packages
    that some distributors of Python leave out are not read.

    The vocabulary is fixed: a line break and the 95 printable characters of ASCII. With padding and the
    number of all other characters there are 98 numbers. The splits share no file: a file is held out if the
    checksum of its path is a multiple of 10, so a new file moves no other file to the other split. The same
    installation of Python gives the same numbers in the same order. Another release gives another text.

    This function needs neither a network nor tensorflow-datasets.

    >>> text = read_pysource()
    >>> len(text.vocabulary), text.train.dtype, len(text.train) > 5 * len(text.test)
    (98, dtype('uint8'), True)
    >>> "".join(text.vocabulary[number] for number in text.train[3:22])
    'Record of phased-in'

    Args:
        folder: The folder with the source files of the library; None for the library of the running Python.

    Returns:
        The vocabulary and the two splits.

    Raises:
        FileNotFoundError: If the folder does not hold source files for both splits, as in a Python that was
            installed without its `.py` files.
    """
    root = pathlib.Path(folder or sysconfig.get_paths()["stdlib"])
    files: tuple[list[str], list[str]] = ([], [])
    for path, text in _texts(root):
        files[zlib.crc32(path.encode()) % _HELD_OUT == 0].append(text)
    train, test = (_numbers("".join(texts)) for texts in files)
    if not (len(train) and len(test)):
        raise FileNotFoundError(
            "`folder` must hold the source of Python's standard library. "
            f"Received: {str(root)!r}, which holds too little of it for 'initx_pysource'. "
            "Take another Python, or another data set."
        )
    return SourceText(VOCABULARY, train, test)


def windows(ids: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a text into rows, and gives for each character the character that follows it.

    >>> inputs, following = windows(np.arange(8), 3)
    >>> inputs.tolist(), following.tolist()
    ([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]])

    Args:
        ids: The numbers of the characters, of shape (n,), as in `SourceText`.
        length: The number of characters of a row.

    Returns:
        Two arrays of int32 and of shape ((n - 1) // length, length): the rows, and the characters to predict.

    Raises:
        ValueError: If `length` is less than 1, or the text is too short for one row.
    """
    if not 1 <= length < len(ids):
        raise ValueError(
            f"`length` must be at least 1 and less than the number of characters, {len(ids)}. Received: "
            f"length={length!r}."
        )
    rows = (len(ids) - 1) // length
    inputs, following = (ids[start : start + rows * length].reshape(rows, length) for start in (0, 1))
    return inputs.astype(np.int32), following.astype(np.int32)


def _texts(root: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Yields the path of each file and its text, in the order of the paths."""
    paths = {path.relative_to(root).as_posix(): path for path in root.rglob("*.py")}
    for name in sorted(paths):
        # Folders such as `site-packages` hold no module of the library: their names are no identifiers.
        parts = name.removesuffix(".py").split("/")
        if (
            not all(map(str.isidentifier, parts))
            or _LEFT_OUT & {*parts}
            or parts[-1].startswith("_sysconfigdata")
        ):
            continue
        with tokenize.open(paths[name]) as file:
            yield name, file.read()


def _numbers(text: str) -> np.ndarray:
    """Returns the number of each character."""
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    table = np.full(128, _OTHER, np.uint8)
    for number, character in enumerate(VOCABULARY[_OTHER + 1 :], _OTHER + 1):
        table[ord(character)] = number
    return np.where(codes < len(table), table[np.minimum(codes, len(table) - 1)], np.uint8(_OTHER))
