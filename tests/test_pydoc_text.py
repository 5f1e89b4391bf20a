"""Text of the standard library: what may be learned from it, and what must not leak."""

import collections
import importlib.util
import sys

import pytest

from keras_initx import datasets
from keras_initx.datasets import _pydoc_text
from support import forked

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites
CONFIGS = sorted(_pydoc_text.CONFIGS)


@pytest.fixture(scope="module")
def texts():
    return {config: datasets.read_pydoc(config) for config in CONFIGS}


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A small standard library: a big and a small module of each family, with planted texts."""
    monkeypatch.setattr(_pydoc_text, "FAMILIES", {"files": "disk tape", "numbers": "sum root"})
    monkeypatch.setitem(_pydoc_text.LABELS, "families", ("files", "numbers"))
    for name, word, count in (
        ("disk", "folder", 8),
        ("tape", "reel", 1),
        ("sum", "digit", 8),
        ("root", "square", 1),
    ):
        body = ['"""Some text that every module of this library has."""', "raise SystemExit('imported')"]
        for number in map("abcdefgh".__getitem__, range(count)):
            body += [
                f"def {word}_{number}(argument):",
                f'    """Turns the {word} {number} into what was asked for.',
                f"    It is the {word} that {number} has.",
                "",
                f"    >>> {word}_{number}(1)  # an example is neither prose nor code",
                '    """',
                f"    {word}_{number}_result = argument + 1",
                f"    # a comment of {word} {number} is no code",
            ]
        (tmp_path / f"{name}.py").write_text("\n".join(body))
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "broken.py").write_text("this is not Python")
    return tmp_path


def test_planted_sentences_have_the_label_of_their_family_and_repeated_ones_are_left_out(library):
    text = datasets.read_pydoc("families", library)
    assert text.labels == ("files", "numbers")
    assert {label for _, label in text.train} == {0, 1}
    words = {"folder": 0, "reel": 0, "digit": 1, "square": 1}
    for sentence, label in text.train + text.test:
        assert {words[word] for word in words if f" {word} " in sentence} == {label}
    assert len(text.train) == 32
    assert sorted(text.test) == sorted(
        (sentence.format(word), label)
        for word, label in (("reel", 0), ("square", 1))
        for sentence in ("Turns the {} a into what was asked for.", "It is the {} that a has.")
    )


def test_planted_lines_are_prose_or_code(library):
    text = datasets.read_pydoc("code", library)
    rows = text.train + text.test
    assert {label for line, label in rows if line.startswith(("Turns", "Some text"))} == {0}
    assert {label for line, label in rows if line.startswith(("def ", "raise", "folder_"))} == {1}
    assert not [line for line, _ in rows if "example" in line or "comment" in line]


@pytest.mark.parametrize("config", CONFIGS)
def test_nothing_leaks_and_labels_are_balanced(config, texts):
    text = texts[config]
    rows = text.train + text.test
    keys = [" ".join("".join(c for c in line.lower() if c.isalnum() or c == " ").split()) for line, _ in rows]
    ascii_keys = [key for key in keys if key.isascii() and key]
    assert len(ascii_keys) == len(set(ascii_keys))
    assert all(line.strip() for line, _ in rows)
    for split, fewest in ((text.train, 500), (text.test, 100)):
        counts = collections.Counter(label for _, label in split)
        assert set(counts) == set(range(len(text.labels)))
        assert len(set(counts.values())) == 1
        assert counts[0] >= fewest


def test_the_splits_share_no_module():
    modules = {
        (family, f"{family}{number}.py"): [("text", 0)] * (number + 1)
        for family in _pydoc_text.FAMILIES
        for number in range(9)
    }
    held_out = _pydoc_text._held_out(modules)
    for family in _pydoc_text.FAMILIES:
        share = sum(len(modules[module]) for module in held_out if module[0] == family) / 45
        assert 0.1 < share <= 0.2


def test_no_module_is_imported(library):
    """Each planted module would end the process."""
    before = set(sys.modules)
    datasets.read_pydoc("code", library)
    assert not (set(sys.modules) - before) & {"disk", "tape", "sum", "root"}


def test_unknown_configs_and_a_python_without_source_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"`config` must be one of \['code', 'families'\]. Received: config='word'"
    ):
        datasets.read_pydoc("word")
    with pytest.raises(FileNotFoundError, match="Take another Python, or another data set"):
        datasets.read_pydoc("code", tmp_path)


@pytest.mark.skipif(not importlib.util.find_spec("tensorflow_datasets"), reason="tfds is not installed")
def test_tfds_gives_the_same_rows_under_a_version_that_names_the_python(texts, tmp_path, monkeypatch):
    from keras_initx.datasets import _builders

    # Of which it would take long to write all.
    some = {c: _pydoc_text.PydocText(t.labels, t.train[:300], t.test[:100]) for c, t in texts.items()}
    monkeypatch.setattr(_builders, "read_pydoc", some.__getitem__)
    (train, test), info = datasets.load("initx_pydoc/families", ["train", "test"], tmp_path)
    assert str(info.version) == "1.{}{:02}.{}".format(*sys.version_info[:3])
    assert tuple(info.features["label"].names) == texts["families"].labels
    for split, rows in ((train, some["families"].train), (test, some["families"].test)):
        found = [(text.decode(), int(label)) for text, label in split.as_numpy_iterator()]
        assert sorted(found) == sorted(rows)


@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="JAX is not installed")
def test_another_process_without_tensorflow_and_tfds_reads_the_same_rows_in_the_same_order(texts):
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['tensorflow_datasets'] = None\n"
        "from keras_initx import datasets\n"
        "print(ascii(datasets.read_pydoc('families')))"
    )
    done = forked.run(["-c", code], env=forked.backend("jax", PYTHONHASHSEED="1"), check=True)
    assert done.stdout.strip() == ascii(texts["families"])
