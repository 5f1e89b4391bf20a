"""`read_pydoc`: labelled text from the source files of Python's standard library.

The files are parsed and not imported, because some modules of the library act on import.
"""

import ast
import collections
import dataclasses
import os
import pathlib
import re
import sysconfig
import tokenize
import zlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

from keras_initx.checks import check_choice

__all__ = ["CONFIGS", "FAMILIES", "PydocText", "read_pydoc"]

CONFIGS = {
    "code": "Lines of docstrings against lines of source, to be told apart by their characters.",
    "families": "Sentences of docstrings, labelled by the family of their module.",
}
# The families follow the chapters of https://docs.python.org/3/library/. A module that a release of Python
# does not have is passed over.
FAMILIES = {
    "concurrency": "_threading_local asyncio concurrent contextvars multiprocessing queue sched selectors "
    "signal subprocess threading",
    "development": "ast bdb code codeop cProfile dis doctest importlib inspect pdb pkgutil profile pstats "
    "py_compile pyclbr pydoc runpy symtable timeit trace traceback tracemalloc typing unittest warnings",
    "files": "_pyio bz2 compression dbm filecmp fileinput fnmatch genericpath glob gzip io lzma ntpath os "
    "pathlib pickle pickletools posixpath shelve shutil stat tarfile tempfile zipfile zipimport",
    "networking": "ftplib http imaplib ipaddress nntplib poplib smtplib socket socketserver ssl telnetlib "
    "urllib webbrowser wsgiref xmlrpc",
    "numbers": "_pydatetime _pydecimal _strptime bisect calendar colorsys datetime decimal fractions hashlib "
    "heapq hmac numbers operator random secrets statistics uuid",
    "text": "argparse base64 codecs configparser csv difflib gettext html json locale optparse plistlib "
    "pprint quopri re reprlib shlex string stringprep textwrap tokenize xml",
}
LABELS = {"code": ("prose", "code"), "families": tuple(FAMILIES)}
TEST_SHARE = 0.2  # of the rows of a family, at most
MOST = 4000  # rows of a label in the training split

_PUNCTUATION = re.compile(r"[^0-9a-z\s]")
# Texts with their labels.
_Rows: TypeAlias = list[tuple[str, int]]
# Takes rows from a module: from its family, its nodes and its source.
_Take: TypeAlias = Callable[[str, list[ast.AST], str], Iterator[tuple[str, int]]]


@dataclasses.dataclass(frozen=True)
class PydocText:
    """Labelled text in two splits.

    Attributes:
        labels: The name of each label: `labels[1]` is the name of label 1.
        train: The pairs of text and label to train on.
        test: The held-out pairs, from other modules.
    """

    labels: tuple[str, ...]
    train: tuple[tuple[str, int], ...]
    test: tuple[tuple[str, int], ...]


def read_pydoc(config: str, folder: str | os.PathLike[str] | None = None) -> PydocText:
    """Reads labelled text from the docstrings and the source of Python's standard library.

    `code` holds lines of docstrings (label `prose`) and of source (label `code`), each of 20 to 100
    characters. `families` holds sentences of docstrings, each of 5 to 60 words. Their label is the purpose of
    their module: concurrency, development, files, networking, numbers or text.

    The held-out split comes from other modules than the training split. No text comes twice, also if case and
    punctuation are ignored. A text that would have two labels is left out. In each split all labels have
    equally many rows. The same Python gives the same rows in the same order.

    This function needs neither a network nor tensorflow-datasets.

    >>> text = read_pydoc("families")
    >>> text.labels
    ('concurrency', 'development', 'files', 'networking', 'numbers', 'text')
    >>> len({label for _, label in text.test}), len(text.train) > 2 * len(text.test)
    (6, True)

    Args:
        config: `code` or `families`.
        folder: The folder with the source files of the library; None for the library of the running Python.

    Returns:
        The labels and the two splits.

    Raises:
        ValueError: If `config` is another name.
        FileNotFoundError: If the folder does not hold the source of any text of a label, as in a Python that
            was installed without its `.py` files.
    """
    check_choice("config", config, CONFIGS)
    root = pathlib.Path(folder or sysconfig.get_paths()["stdlib"])
    train, test = _splits(root, _lines if config == "code" else _sentences)
    labels = LABELS[config]
    train, test = _balanced(train, len(labels), MOST), _balanced(test, len(labels), MOST // 4)
    if not train or not test:
        raise FileNotFoundError(
            "`folder` must hold the source of Python's standard library. "
            f"Received: {str(root)!r}, which holds too little of it for 'initx_pydoc/{config}'. "
            "Take another Python, or another data set."
        )
    return PydocText(labels, tuple(train), tuple(test))


def _splits(root: pathlib.Path, take: _Take) -> tuple[_Rows, _Rows]:
    """Takes the rows of all modules without repetitions, and holds out some modules of each family."""
    modules: dict[tuple[str, str], _Rows] = {}
    for family, names in FAMILIES.items():
        for name in names.split():
            for path in sorted([root / f"{name}.py", *(root / name).rglob("*.py")]):
                if (read := _read(path)) is not None:
                    modules[family, path.relative_to(root).as_posix()] = list(take(family, *read))
    # Many modules share sentences, such as "Return a copy.": with two labels, nobody could tell them apart.
    labels = collections.defaultdict(set)
    for rows in modules.values():
        for text, label in rows:
            labels[_key(text)].add(label)
    held_out = _held_out(modules)
    train: _Rows = []
    test: _Rows = []
    seen: set[str] = set()
    # The modules to train on come first, so a text that is in both splits stays in the training split. Else a
    # model could be tested on a text that it has seen.
    for module in sorted(modules, key=lambda module: module in held_out):
        for text, label in modules[module]:
            if len(labels[_key(text)]) == 1 and _key(text) not in seen:
                seen.add(_key(text))
                (test if module in held_out else train).append((text, label))
    return train, test


def _held_out(modules: dict[tuple[str, str], _Rows]) -> set[tuple[str, str]]:
    """Chooses modules of each family that hold at most `TEST_SHARE` of the rows of the family."""
    chosen = set()
    for family in FAMILIES:
        sizes = {module: len(rows) for module, rows in modules.items() if module[0] == family and rows}
        room = TEST_SHARE * sum(sizes.values())
        # The order by a checksum of the name is as good as chance, and the same on every machine. A new
        # release that adds a module does not change the order of the others.
        for module in sorted(sizes, key=lambda module: zlib.crc32(module[1].encode())):
            if sizes[module] <= room:
                room -= sizes[module]
                chosen.add(module)
    return chosen


def _balanced(rows: _Rows, labels: int, most: int) -> _Rows:
    """Takes equally many rows of each label, at most `most`, in an order that is as good as chance."""
    counts = collections.Counter(label for _, label in rows)
    left = dict.fromkeys(range(labels), min(most, *(counts[label] for label in range(labels))))
    chosen = []
    for text, label in sorted(rows, key=lambda row: (zlib.crc32(row[0].encode()), row)):
        if left[label]:
            left[label] -= 1
            chosen.append((text, label))
    return chosen


def _read(path: pathlib.Path) -> tuple[list[ast.AST], str] | None:
    """Parses a file. Returns None if it does not exist, or is not Python of this release.

    Some files of test data in the library are broken Python on purpose.
    """
    try:
        with tokenize.open(path) as file:
            source = file.read()
        return list(ast.walk(ast.parse(source))), source
    except (FileNotFoundError, SyntaxError, UnicodeDecodeError):
        return None


def _docstrings(nodes: list[ast.AST]) -> Iterator[str]:
    """Yields the docstrings of a module, its classes and its functions."""
    for node in nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def _lines(_family: str, nodes: list[ast.AST], source: str) -> Iterator[tuple[str, int]]:
    """Yields the rows of the config `code`: lines of docstrings (label 0) and of source (label 1)."""
    for docstring in _docstrings(nodes):
        for line in map(str.strip, docstring.splitlines()):
            if 20 <= len(line) <= 100 and not line.startswith((">>>", "...")) and _is_prose(line):
                yield line, 0
    # Lines within strings of the source are text, and comments are prose: neither is code.
    inside = {
        number
        for node in nodes
        if _is_text(node)
        for number in range(node.lineno, node.end_lineno + 1)  # type: ignore[attr-defined]
    }
    for number, line in enumerate(map(str.strip, source.splitlines()), 1):
        if 20 <= len(line) <= 100 and number not in inside and not line.startswith("#"):
            yield line, 1


def _is_text(node: ast.AST) -> bool:
    """Tells whether a node is a docstring, or a string of several lines."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, ast.Constant | ast.JoinedStr) and node.end_lineno != node.lineno


def _sentences(family: str, nodes: list[ast.AST], _source: str) -> Iterator[tuple[str, int]]:
    """Yields the rows of the config `families`: sentences of docstrings, with the number of the family.

    A paragraph with a prompt in it is an example and not prose.
    """
    for docstring in _docstrings(nodes):
        for paragraph in re.split(r"\n\s*\n", docstring):
            if ">>>" in paragraph:
                continue
            # A sentence ends with a mark, before a space and a capital letter: "e.g. this" stays whole.
            for sentence in re.split(r"(?<=[.!?:])\s+(?=[A-Z])", " ".join(paragraph.split())):
                if 5 <= len(sentence.split()) <= 60 and _is_prose(sentence):
                    yield sentence, list(FAMILIES).index(family)


def _is_prose(text: str) -> bool:
    """Tells whether letters and spaces are more than 80 % of a text. A rule, table or formula has fewer."""
    return sum(character.isalpha() or character == " " for character in text) > 0.8 * len(text)


def _key(text: str) -> str:
    """Returns a text without case, punctuation and line breaks; equal keys are repetitions."""
    # A text without letters and digits has an empty key, so it is its own key.
    return " ".join(_PUNCTUATION.sub("", text.lower()).split()) or text
