"""Versions: numbered, whole or not there, durable, pruned."""

import os
import pathlib
import signal
import subprocess
import textwrap
import time

import keras
import pytest
from keras import layers

import keras_initx as initx
from keras_initx.saved_model import _versions
from support import forked

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def model():
    return keras.Sequential([layers.Input((2,)), layers.Dense(1)])


def entries(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_versions_count_up_from_the_highest(model, tmp_path):
    assert [initx.export(model, tmp_path).version for _ in range(2)] == [1, 2]
    (tmp_path / "0007").mkdir()
    (tmp_path / "notes").mkdir()
    exported = initx.export(model, str(tmp_path))
    assert (exported.version, exported.path) == (8, str(tmp_path / "8"))


def test_a_given_version_is_taken_and_one_that_exists_refused(model, tmp_path):
    assert initx.export(model, tmp_path, version=20261125).version == 20261125
    assert initx.export(model, tmp_path, version=3).version == 3
    (tmp_path / "0007").mkdir()
    for version in (3, 7):
        with pytest.raises(ValueError, match="`version` must be a new one. .* Leave it out for 20261126"):
            initx.export(model, tmp_path, version=version)
    assert entries(tmp_path) == ["0007", "20261125", "3"]


@pytest.mark.parametrize("value", [0, -1, 1.0, "2", True, 2**63])
@pytest.mark.parametrize("name", ["version", "keep"])
def test_what_is_no_number_is_refused(model, tmp_path, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be None or a positive int. Received: {name}="):
        initx.export(model, tmp_path / "new", **{name: value})
    assert entries(tmp_path) == []


def test_keep_prunes_after_success_alone(model, tmp_path, monkeypatch):
    for _ in range(3):
        initx.export(model, tmp_path, portable=True)
    (tmp_path / "notes").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(keras.export.ExportArchive, "__new__", lambda cls: 1 / 0)
        with pytest.raises(ValueError, match="division by zero"):
            initx.export(model, tmp_path, keep=1)
    assert entries(tmp_path) == ["1", "1.keras", "2", "2.keras", "3", "3.keras", "notes"]
    initx.export(model, tmp_path, keep=2)
    assert entries(tmp_path) == ["3", "3.keras", "4", "notes"]
    initx.export(model, tmp_path, version=1, keep=1)  # whatever its number, and newer ones stay
    assert entries(tmp_path) == ["1", "3", "3.keras", "4", "notes"]


def test_what_cannot_be_pruned_is_warned_of(tmp_path, monkeypatch):
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(pathlib.Path, "rename", lambda *_: (_ for _ in ()).throw(PermissionError("no")))
    with pytest.warns(UserWarning, match="`keep`: .*1' could not be removed: no"):
        _versions.prune(tmp_path, 1, 2)
    assert entries(tmp_path) == ["1", "2"]


def test_nothing_but_whole_versions_is_ever_visible_and_all_is_on_the_disk(model, tmp_path, monkeypatch):
    synced, seen = [], []
    monkeypatch.setattr(_versions, "_sync_one", lambda path: synced.append(path))
    original = _versions._rename

    def spy(folder, root, version):
        seen.append(entries(root))
        assert {*folder.rglob("*"), folder} <= set(synced)
        return original(folder, root, version)

    monkeypatch.setattr(_versions, "_rename", spy)
    initx.export(model, tmp_path)
    assert all(name.startswith(".") for name in seen[0])
    assert synced[-2:] == [tmp_path, tmp_path.parent]
    assert entries(tmp_path) == ["1"]


def test_others_may_read_what_was_written(model, tmp_path):
    initx.export(model, tmp_path, portable=True)
    umask = os.umask(0)
    os.umask(umask)
    for path in tmp_path.rglob("*"):
        wanted = (0o777 if path.is_dir() else 0o666) & ~umask
        assert path.stat().st_mode & 0o777 & ~0o111 == wanted & ~0o111, path


@pytest.mark.parametrize("version", [None, 1])
def test_a_number_that_another_export_took_meanwhile(tmp_path, monkeypatch, version):
    finished = tmp_path / ".exporting" / "model"
    finished.mkdir(parents=True)
    (finished / "saved_model.pb").touch()
    rename = pathlib.Path.rename

    def racing(self, target):
        if target.name == "1":
            target.mkdir()
            (target / "saved_model.pb").touch()
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", racing)
    if version is None:
        assert _versions.publish(finished, tmp_path, None) == 2
    else:
        with pytest.raises(ValueError, match="`version` must be a new one. .* written meanwhile"):
            _versions.publish(finished, tmp_path, 1)


EXPORTS = """
    import subprocess, sys, keras, keras_initx as initx
    from support import forked
    subprocess.Popen = forked.ForExports
    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(5)])
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range({times}):
        print(initx.export(model, {folder!r}).version, flush=True)
    """


def start(folder, times):
    code = textwrap.dedent(EXPORTS.format(folder=str(folder), times=times))
    return forked.Forked(["-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.integration
def test_two_processes_at_once_and_one_that_is_killed(tmp_path, model):
    """Two export at the same time; then one is killed while it writes."""
    pair = [start(tmp_path / "both", 3), start(tmp_path / "both", 10**6)]
    for process in pair:
        assert process.stdout.readline() == "ready\n"
    for process in pair:
        process.stdin.write("go\n")
        process.stdin.flush()
    first = [int(line) for line in pair[0].communicate()[0].split()]
    second = [int(pair[1].stdout.readline()) for _ in range(3)]
    assert len({*first, *second}) == 6
    deadline = time.monotonic() + 60
    while not list((tmp_path / "both").glob(".exporting-*/model/*")):
        assert time.monotonic() < deadline
    os.kill(pair[1].pid, signal.SIGKILL)
    pair[1].communicate()
    stale = [name for name in entries(tmp_path / "both") if not name.isdecimal()]
    assert all(name.startswith(".exporting-") for name in stale)
    folder = initx.saved_model.inspect(tmp_path / "both")
    assert not any(version.error for version in folder.versions)
    assert initx.export(model, tmp_path / "both", keep=1).version == folder.versions[0].version + 1
    assert [name for name in entries(tmp_path / "both") if not name.isdecimal()] == stale
