"""Labelled text from the source files of Python's standard library, none of which is imported."""

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

from keras_initx.checks import check_choice

__all__ = ["CONFIGS", "FAMILIES", "PydocText", "read_pydoc"]

CONFIGS = {
    "code": "Lines of docstrings against lines of source, to be told apart by their characters.",
    "families": "Sentences of docstrings, labelled by the family of their module.",
}
# After the chapters of https://docs.python.org/3/library/. Modules that a release lacks are passed over.
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
TEST_SHARE = 0.2
MOST = 4000  # rows of a label in the training split

_PUNCTUATION = re.compile(r"[^0-9a-z\s]")
_Rows = list[tuple[str, int]]
_Take = Callable[[str, list[ast.AST], str], Iterator[tuple[str, int]]]


@dataclasses.dataclass(frozen=True)
class PydocText:
    """Two splits of labelled text.

    Attributes:
        labels: Names of the labels, by number.
        train: Pairs of text and label.
        test: The same, from other modules.
    """

    labels: tuple[str, ...]
    train: tuple[tuple[str, int], ...]
    test: tuple[tuple[str, int], ...]


def read_pydoc(config: str, folder: str | os.PathLike[str] | None = None) -> PydocText:
    """Reads labelled text from the docstrings and the source of Python's standard library.

    `code` holds lines of docstrings (label `prose`) and of source (`code`), 20 to 100 characters long.
    `families` holds sentences of docstrings of 5 to 60 words, labelled by what their module is for:
    concurrency, development, files, networking, numbers or text. The test split comes from other modules than
    the training split; no text comes twice, also when case and punctuation are left out; and a text that
    would have two labels is left out. In each split all labels have equally many rows. The same Python gives
    the same rows in the same order.

    >>> text = read_pydoc("families")
    >>> text.labels
    ('concurrency', 'development', 'files', 'networking', 'numbers', 'text')
    >>> len({label for _, label in text.test}), len(text.train) > 2 * len(text.test)
    (6, True)

    It needs neither a network nor tensorflow-datasets.

    Args:
        config: `code` or `families`.
        folder: Where the library's source files are; those of the running Python when None.

    Returns:
        The labels and the two splits.

    Raises:
        ValueError: If there is no such config.
        FileNotFoundError: If the folder lacks the source of a whole label, as in a Python without its `.py`
            files.
    """
    check_choice("config", config, CONFIGS)
    root = pathlib.Path(folder or sysconfig.get_paths()["stdlib"])
    train, test = _splits(root, _lines if config == "code" else _sentences)
    labels = LABELS[config]
    train, test = _balanced(train, len(labels), MOST), _balanced(test, len(labels), MOST // 4)
    if not train or not test:
        raise FileNotFoundError(
            f"{root} holds too little source text of Python's standard library for 'initx_pydoc/{config}': "
            "this Python came without it. Take another Python, or another data set."
        )
    return PydocText(labels, tuple(train), tuple(test))


def _splits(root: pathlib.Path, take: _Take) -> tuple[_Rows, _Rows]:
    """Takes the rows of all modules, without repeated ones; in each family some modules are for the test."""
    modules: dict[tuple[str, str], _Rows] = {}
    for family, names in FAMILIES.items():
        for name in names.split():
            for path in sorted([root / f"{name}.py", *(root / name).rglob("*.py")]):
                if (read := _read(path)) is not None:
                    modules[family, path.relative_to(root).as_posix()] = list(take(family, *read))
    labels = collections.defaultdict(set)
    for rows in modules.values():
        for text, label in rows:
            labels[_key(text)].add(label)
    held_out = _held_out(modules)
    train: _Rows = []
    test: _Rows = []
    seen: set[str] = set()
    for module in sorted(modules, key=lambda module: module in held_out):  # those to train on come first
        for text, label in modules[module]:
            if len(labels[_key(text)]) == 1 and _key(text) not in seen:
                seen.add(_key(text))
                (test if module in held_out else train).append((text, label))
    return train, test


def _held_out(modules: dict[tuple[str, str], _Rows]) -> set[tuple[str, str]]:
    """Chooses modules of each family, in an order like chance, that hold `TEST_SHARE` of its rows at most."""
    chosen = set()
    for family in FAMILIES:
        sizes = {module: len(rows) for module, rows in modules.items() if module[0] == family and rows}
        room = TEST_SHARE * sum(sizes.values())
        for module in sorted(sizes, key=lambda module: zlib.crc32(module[1].encode())):
            if sizes[module] <= room:
                room -= sizes[module]
                chosen.add(module)
    return chosen


def _balanced(rows: _Rows, labels: int, most: int) -> _Rows:
    """Takes equally many rows of each label, in an order like chance."""
    counts = collections.Counter(label for _, label in rows)
    left = dict.fromkeys(range(labels), min(most, *(counts[label] for label in range(labels))))
    chosen = []
    for text, label in sorted(rows, key=lambda row: (zlib.crc32(row[0].encode()), row)):
        if left[label]:
            left[label] -= 1
            chosen.append((text, label))
    return chosen


def _read(path: pathlib.Path) -> tuple[list[ast.AST], str] | None:
    """Parses a file; None where there is none, or it is not Python of this release, as some test data."""
    try:
        with tokenize.open(path) as file:
            source = file.read()
        return list(ast.walk(ast.parse(source))), source
    except (FileNotFoundError, SyntaxError, UnicodeDecodeError):
        return None


def _docstrings(nodes: list[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def _lines(_family: str, nodes: list[ast.AST], source: str) -> Iterator[tuple[str, int]]:
    for docstring in _docstrings(nodes):
        for line in map(str.strip, docstring.splitlines()):
            if 20 <= len(line) <= 100 and not line.startswith((">>>", "...")) and _is_prose(line):
                yield line, 0
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
    """Whether it is a docstring, or a string of several lines."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, ast.Constant | ast.JoinedStr) and node.end_lineno != node.lineno


def _sentences(family: str, nodes: list[ast.AST], _source: str) -> Iterator[tuple[str, int]]:
    """Sentences outside of doctests: a paragraph with a prompt in it is an example."""
    for docstring in _docstrings(nodes):
        for paragraph in re.split(r"\n\s*\n", docstring):
            if ">>>" in paragraph:
                continue
            for sentence in re.split(r"(?<=[.!?:])\s+(?=[A-Z])", " ".join(paragraph.split())):
                if 5 <= len(sentence.split()) <= 60 and _is_prose(sentence):
                    yield sentence, list(FAMILIES).index(family)


def _is_prose(text: str) -> bool:
    """Whether it is letters and spaces for the most part: no rule, table or formula."""
    return sum(character.isalpha() or character == " " for character in text) > 0.8 * len(text)


def _key(text: str) -> str:
    """What is left of a text without case, punctuation and line breaks."""
    return " ".join(_PUNCTUATION.sub("", text.lower()).split()) or text
