"""Characters of Python's own source: the numbers, the splits, and what is left out."""

import importlib.util
import sys
import zlib

import numpy as np
import pytest

from keras_initx import datasets
from support import forked

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites
KNOWN = "\n" + "".join(map(chr, range(32, 127)))
# Paths whose checksum is a multiple of 10, and others.
HELD_OUT = [f"held{n}.py" for n in range(200) if zlib.crc32(f"held{n}.py".encode()) % 10 == 0][:2]
TRAIN = [f"train{n}.py" for n in range(200) if zlib.crc32(f"train{n}.py".encode()) % 10][:2]


def text_of(ids):
    return ids.tobytes().translate(("0?" + KNOWN).encode().ljust(256)).decode()


@pytest.fixture(scope="module")
def whole():
    return datasets.read_pysource()


@pytest.fixture
def library(tmp_path):
    (tmp_path / TRAIN[0]).write_text("raise SystemExit('é\t~ ')\n", "utf-8")
    (tmp_path / TRAIN[1]).write_bytes(b"# coding: latin-1\r\n\xe9 \x0c\x7f\n")
    for name in HELD_OUT:
        (tmp_path / name).write_text(f"held out\n{name}\n")
    for name in (
        *("test/a.py", "json/tests/a.py", "site-packages/a.py", "config-3.11/a.py", "encodings/cp1.py"),
        *("_sysconfigdata_x.py", "idlelib/a.py", "sitecustomize.py", "not-a-module.py"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("left out")
    return tmp_path


def test_planted_files_become_numbers_in_the_split_of_their_path(library):
    text = datasets.read_pysource(library)
    assert text.vocabulary == ("", "\ufffd", *KNOWN)
    first, second = sorted(TRAIN)
    by_name = {
        TRAIN[0]: "raise SystemExit('??~ ')\n",
        TRAIN[1]: "# coding: latin-1\n? ??\n",
    }
    assert text_of(text.train) == by_name[first] + by_name[second]
    assert text_of(text.test) == "".join(f"held out\n{name}\n" for name in sorted(HELD_OUT))
    assert text.train.dtype == text.test.dtype == np.uint8


def test_a_new_file_moves_no_other_file(library):
    before = datasets.read_pysource(library)
    (library / "aaa" / "zzz").mkdir(parents=True)
    (library / "aaa" / "zzz" / "new.py").write_text("new\n")
    after = datasets.read_pysource(library)
    assert sorted([len(after.train) - len(before.train), len(after.test) - len(before.test)]) == [0, 4]


def test_the_library_gives_millions_of_characters_and_hardly_an_unknown_one(whole):
    assert len(whole.train) > 5_000_000
    assert 0.05 < len(whole.test) / len(whole.train) < 0.2
    for ids in (whole.train, whole.test):
        counts = np.bincount(ids, minlength=98)
        assert len(counts) == 98
        assert counts[0] == 0
        assert counts[1] < 1e-3 * len(ids)
        assert (counts[2:] > 0).all()
    source = text_of(whole.train)
    assert source.count("\ndef ") > 1000
    assert "statement is used to iterate" in source  # of the documentation


def test_windows_hold_each_character_once_and_the_one_that_follows(whole):
    inputs, following = datasets.windows(whole.test, 128)
    assert inputs.shape == following.shape == ((len(whole.test) - 1) // 128, 128)
    assert inputs.dtype == following.dtype == np.int32
    np.testing.assert_array_equal(inputs.ravel(), whole.test[: inputs.size])
    np.testing.assert_array_equal(following.ravel(), whole.test[1 : inputs.size + 1])


@pytest.mark.parametrize("length", [0, -1, 8, 9])
def test_a_length_that_gives_no_row_is_refused(length):
    with pytest.raises(
        ValueError, match=rf"less than the number of characters, 8. Received: length={length}"
    ):
        datasets.windows(np.arange(8), length)
    assert datasets.windows(np.arange(8), 7)[0].shape == (1, 7)


@pytest.mark.parametrize("names", [[], HELD_OUT, TRAIN])
def test_a_python_without_source_is_refused(names, tmp_path):
    for name in names:
        (tmp_path / name).write_text("text\n")
    with pytest.raises(FileNotFoundError, match="holds too little of it for 'initx_pysource'. Take another"):
        datasets.read_pysource(tmp_path)


@pytest.mark.skipif(not importlib.util.find_spec("tensorflow_datasets"), reason="tfds is not installed")
def test_tfds_gives_the_same_windows_under_a_version_that_names_the_python(whole, tmp_path, monkeypatch):
    from keras_initx.datasets import _builders

    # Of the whole text it would take 20 seconds.
    some = datasets.SourceText(whole.vocabulary, whole.train[:30_000], whole.test[:9_000])
    monkeypatch.setattr(_builders, "read_pysource", lambda: some)
    splits, info = datasets.load("initx_pysource", ["train", "test"], tmp_path)
    assert str(info.version) == "1.{}{:02}.{}".format(*sys.version_info[:3])
    for split, ids in zip(splits, (some.train, some.test), strict=True):
        rows = sorted((a.tolist(), b.tolist()) for a, b in split.as_numpy_iterator())
        expected = zip(*datasets.windows(ids, 128), strict=True)
        assert rows == sorted((a.tolist(), b.tolist()) for a, b in expected)
        assert split.element_spec[0].dtype == "int32"


@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="JAX is not installed")
def test_another_process_without_tensorflow_and_tfds_reads_the_same_text(whole):
    code = (
        "import sys, zlib; sys.modules['tensorflow'] = sys.modules['tensorflow_datasets'] = None\n"
        "from keras_initx import datasets\n"
        "text = datasets.read_pysource()\n"
        "print(zlib.crc32(text.train), zlib.crc32(text.test))"
    )
    done = forked.run(["-c", code], env=forked.backend("jax", PYTHONHASHSEED="1"), check=True)
    assert done.stdout.split() == [str(zlib.crc32(ids)) for ids in (whole.train, whole.test)]
