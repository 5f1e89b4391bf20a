"""Where a model's folder may be: on this machine, and not within a version."""

import pathlib
import re

import keras
import pytest
from keras import layers

import keras_initx as initx
from _initx_saved_model import _paths

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def model():
    return keras.Sequential([layers.Input((1,)), layers.Dense(1)])


@pytest.mark.parametrize(
    "path",
    [
        "gs://bucket/models/m",
        "s3://bucket/m",
        "hdfs://host/m",
        "memory://m",
        pathlib.Path("gs://bucket/m"),
        "dbfs:/m",
    ],
)
def test_a_remote_store_is_refused_and_nothing_is_written(model, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    cures = {
        "saved_model.pb last": lambda: initx.export(model, path),
        "inspect the copy": lambda: initx.inspect(path),
        "prove the copy": lambda: initx.saved_model.prove_row_wise(path),
    }
    for cure, verb in cures.items():
        with pytest.raises(ValueError, match=f"`path` must be a folder on this machine. .* {cure}"):
            verb()
    assert list(tmp_path.iterdir()) == []


def test_the_way_to_a_remote_store_that_the_error_tells(model, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    exported = initx.export(model, tmp_path / "m")
    store, version = fsspec.filesystem("memory"), pathlib.Path(exported.path)
    files = sorted(
        (file for file in version.rglob("*") if file.is_file()),
        key=lambda file: file.name == "saved_model.pb",
    )
    for file in files:
        store.put(str(file), f"/bucket/m/1/{file.relative_to(version)}")
    assert files[-1].name == "saved_model.pb"
    store.get("/bucket/m", str(tmp_path / "back"), recursive=True)
    assert initx.saved_model.inspect(tmp_path / "back").versions[0].row_wise == ("serve", "serving_default")


@pytest.mark.parametrize("path", ["C:/models/m", "C:\\models\\m", "models/m", "a:b/m", "/m", "gs:"])
def test_a_drive_and_a_colon_are_local(path):
    assert _paths.local(path, "") == pathlib.Path(path)


@pytest.mark.parametrize(("path", "version"), [("m/1", 1), ("m/0007", 7), ("m/20261128/", 20261128)])
def test_a_version_in_the_path_is_refused_and_its_cure_works(model, tmp_path, monkeypatch, path, version):
    monkeypatch.chdir(tmp_path)
    cure = f"Pass path={str(tmp_path / 'm')!r}, version={version}."
    with pytest.raises(ValueError, match=f"the folder of a version. {re.escape(cure)}"):
        initx.export(model, path)
    assert list(tmp_path.iterdir()) == []
    given = eval(f"dict({cure.removeprefix('Pass ').removesuffix('.')})")
    assert initx.export(model, **given).version == version


def test_a_path_in_a_version_is_refused(model, tmp_path, monkeypatch):
    exported = initx.export(model, tmp_path / "m")
    cure = re.escape(f"Pass path={str(tmp_path / 'm')!r}")
    for path in (exported.path, f"{exported.path}/more", f"{exported.path}/more/5"):
        with pytest.raises(ValueError, match=f"in the SavedModel '.*m/1'. {cure}"):
            initx.export(model, path)
    assert initx.export(model, f"{exported.path}/../../other").version == 1
    (tmp_path / "current").symlink_to(tmp_path / "other")
    assert initx.export(model, tmp_path / "current").path == str(tmp_path / "current" / "2")
    monkeypatch.chdir(exported.path)
    with pytest.raises(ValueError, match=cure):
        initx.export(model, ".")
    (tmp_path / "m" / "1").rename(tmp_path / "plain")
    with pytest.raises(ValueError, match="in the SavedModel '.*plain'. Pass another folder"):
        initx.export(model, tmp_path / "plain")
    with pytest.raises(ValueError, match="the folder of a version. Pass another folder"):
        initx.export(model, tmp_path / "0")
    assert not (tmp_path / "plain" / "1").exists()
