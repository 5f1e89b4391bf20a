"""`inspect`: what a folder holds, read without running it."""

import dataclasses
import json
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_initx as initx
from _initx_saved_model import _inspect
from keras_initx.saved_model import inspect
from support import exported_models

pytestmark = pytest.mark.tensorflow


def test_versions_signatures_sizes_and_writers(tmp_path):
    pytest.importorskip("tensorflow_serving")
    import tensorflow as tf

    model, rows = exported_models.dense()
    initx.export(model, tmp_path / "m")
    initx.export(model, tmp_path / "m", version=10, labels=["a", "b", "c"], warmup=rows["features"])
    folder = inspect(tmp_path / "m")
    assert [version.version for version in folder.versions] == [10, 1]
    newest = folder.versions[0]
    assert newest.warmup_records == 5
    assert newest.tensorflow == tf.__version__
    assert newest.bytes == sum(f.stat().st_size for f in (tmp_path / "m" / "10").rglob("*") if f.is_file())
    assert newest.signatures["classify"] == {
        "method": "classify",
        "inputs": {"inputs": "string[?]"},
        "outputs": {"classes": "string[?, 3]", "scores": "float32[?, 3]"},
    }
    lines = str(folder).splitlines()
    assert lines[0].startswith(f"version 10: {newest.bytes / 2**20:.1f} MiB in ")
    assert "  serving_default (predict): features float32[?, 6] -> pets float32[?, 3]" in lines
    assert lines[-1] == f"  {_inspect._serving(tf.__version__)}"
    assert json.loads(json.dumps(folder.to_dict()))["versions"][1]["version"] == 1


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("2.21.0", "Safe with TensorFlow Serving 2.21 and later 2.x: "),
        ("2.20.0-rc1", "Safe with TensorFlow Serving 2.20 and later 2.x: "),
        ("", "saved_model.pb does not name the TensorFlow that wrote it"),
        ("unknown", "saved_model.pb does not name the TensorFlow that wrote it"),
    ],
)
def test_the_rule_for_tensorflow_serving(written, sentence):
    assert _inspect._serving(written).startswith(sentence)


def test_what_cannot_be_read_is_told_beside_what_can(tmp_path):
    model, _ = exported_models.dense()
    initx.export(model, tmp_path)
    for version, content in ((2, b"\xff\xff no protobuf"), (3, b""), (4, None)):
        (tmp_path / str(version)).mkdir()
        if content is not None:
            (tmp_path / str(version) / "saved_model.pb").write_bytes(content)
    initx.export(model, tmp_path, version=5)
    (tmp_path / "5" / "assets.extra").mkdir(exist_ok=True)
    (tmp_path / "5" / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"\x09" + bytes(20))
    errors = {version.version: version.error for version in inspect(tmp_path).versions}
    assert errors[1] == ""
    assert all(errors[version] for version in (2, 3, 4, 5))
    assert "cannot be read: saved_model.pb holds no graph" in str(inspect(tmp_path))


def test_it_is_a_verb_of_the_package_and_its_report_is_the_json_of_the_command(tmp_path, capsys):
    from keras_initx.cli import main

    model, _ = exported_models.dense()
    initx.export(model, tmp_path / "m", labels=["a", "b", "c"])
    assert initx.inspect is inspect
    report = initx.inspect(tmp_path / "m")
    assert isinstance(report, initx.saved_model.SavedModelFolder)
    assert report == initx.inspect(str(tmp_path / "m"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.path = "another"
    assert json.loads(report.to_json()) == json.loads(json.dumps(report.to_dict()))
    assert json.loads(report.versions[0].to_json()) == json.loads(report.to_json())["versions"][0]
    assert main(["inspect", str(tmp_path / "m"), "--json"]) == 0
    assert capsys.readouterr().out == f"{report.to_json()}\n"
    assert main(["inspect", str(tmp_path / "m")]) == 0
    assert capsys.readouterr().out == f"{report}\n"


def test_a_wrong_path_is_told_with_the_rule_and_the_cure(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    cure = "Pass the folder that `export` wrote to, such as 'saved_models/digits'."
    for path, received in (
        (None, "path=None"),
        ("", "path=''"),
        (3, "path=3"),
        (tmp_path / "none", f"path='{tmp_path}/none', which does not exist"),
        (tmp_path / "file", f"path='{tmp_path}/file', a file"),
    ):
        with pytest.raises(ValueError, match="^`path` must be a model's folder. ") as caught:
            initx.inspect(path)
        assert str(caught.value) == f"`path` must be a model's folder. Received: {received}. {cure}"
    with pytest.raises(ValueError, match="^`path` must hold versions: ") as caught:
        initx.inspect(tmp_path / "empty")
    assert str(caught.value) == (
        "`path` must hold versions: folders with whole numbers as names. "
        f"Received: path='{tmp_path}/empty', which holds none. {cure}"
    )
    with pytest.raises(
        ValueError, match="on this machine. Received: path='gs://a/b'. Copy the model's folder"
    ):
        initx.inspect("gs://a/b")


def test_what_is_no_folder_of_versions_tells_where_one_is(tmp_path):
    model, _ = exported_models.dense()
    initx.export(model, tmp_path / "digits")
    with pytest.raises(ValueError, match=r"It holds the models \['digits'\]: name one of them"):
        inspect(tmp_path)
    with pytest.raises(ValueError, match=r"It is a version: pass '.*digits'"):
        inspect(tmp_path / "digits" / "1")


@pytest.mark.parametrize("where", ["", "my model"])  # the folder itself, and the one above it
def test_a_saved_model_without_a_version_folder_gets_one_by_the_command_that_is_told(tmp_path, where):
    (tmp_path / "my model").mkdir()
    (tmp_path / "my model" / "saved_model.pb").write_bytes(b"\x08\x01")
    with pytest.raises(ValueError, match="a SavedModel without a version folder: `mv ") as caught:
        inspect(tmp_path / where)
    command, path = re.search("`(mv .*)`, and inspect '(.*)'", str(caught.value)).groups()
    subprocess.run(command, shell=True, check=True)
    assert [version.version for version in inspect(path).versions] == [1]


def test_dtypes_have_the_names_that_tensorflow_gives_them():
    import tensorflow as tf
    from tensorflow.core.framework.types_pb2 import DataType

    known = [number for name, number in DataType.items() if name != "DT_INVALID"]
    for number in known:
        expected = tf.as_dtype(number).name if number < 100 else f"{tf.as_dtype(number - 100).name}_ref"
        assert _inspect._dtype(number) == expected
    assert _inspect._dtype(max(known) + 1).startswith("DataType(")


def test_the_folder_of_a_saved_model_is_read_without_keras_or_tensorflow(tmp_path):
    """In a process of its own, on a SavedModel that TensorFlow wrote here."""
    model, _ = exported_models.dense()
    initx.export(model, tmp_path)
    code = (
        "import sys; from _initx_saved_model import inspect\n"
        f"print(inspect({str(tmp_path)!r}))\n"
        "assert not {'keras', 'keras_initx', 'numpy', 'tensorflow'} & set(sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == f"{inspect(tmp_path)}\n"


def test_it_runs_nothing(tmp_path, monkeypatch):
    import tensorflow as tf

    model, _ = exported_models.dense()
    initx.export(model, tmp_path)
    for module, name in (
        (tf.saved_model, "load"),
        (tf.compat.v1.saved_model, "load"),
        (keras.saving, "load_model"),
    ):
        monkeypatch.setattr(module, name, lambda *_: 1 / 0)
    assert inspect(tmp_path).versions[0].signatures


def test_the_command_exports_and_inspects_as_a_user_would(tmp_path, capsys):
    """In one process, wrong ways included."""
    pytest.importorskip("tensorflow_serving")
    from keras_initx.cli import main

    model, rows = exported_models.several()
    model.save(tmp_path / "m.keras")
    (tmp_path / "labels.txt").write_text("nein\nja\n\n", "utf-8")
    np.savez(tmp_path / "rows.npz", **rows)
    file, root = str(tmp_path / "m.keras"), tmp_path / "saved" / "m"
    more = ["--labels", str(tmp_path / "labels.txt"), "--warmup", str(tmp_path / "rows.npz"), "--portable"]
    assert main(["export", file, str(root)]) == 0
    assert capsys.readouterr().out.startswith(f"{root}/1 (version 1; signatures: serve, serving_default; ")
    assert main(["export", file, str(root), "--version", "7", "--keep", "1", "--json", *more]) == 0
    exported = json.loads(capsys.readouterr().out)
    assert exported["version"] == 7
    assert exported["signatures"] == ["classify", "serve", "serving_default"]
    assert exported["warmup_records"] == 5
    assert sorted(entry.name for entry in root.iterdir()) == ["7", "7.keras"]
    assert main(["inspect", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["versions"][0]["warmup_records"] == 5
    assert main(["inspect", str(root)]) == 0
    assert "  classify (classify): inputs string[?] -> " in capsys.readouterr().out
    (root / "8").mkdir()
    assert main(["inspect", str(root)]) == 1
    assert "versions that cannot be read: 8" in capsys.readouterr().err
    (root / "8").rmdir()
    (tmp_path / "file").touch()
    wrong = {
        ("export", file, root, "--version", "7"): "`version` must be a new one",
        ("export", file, root, "--keep", "0"): "`keep` must be None or a positive int",
        ("export", file, str(tmp_path / "file")): "`path` must be a folder or not exist yet",
        ("export", file, str(tmp_path / "file" / "m")): "`path` must be a folder that can be written",
        ("export", str(tmp_path / "no.keras"), root): "`model` must be a .keras file",
        ("export", file, root, "--labels", "no.txt"): "`--labels` must be a text file",
        ("export", file, root, "--labels", file): "`--labels` must be a text file",
        ("export", file, root, "--warmup", "digits"): "`--warmup` must be an .npy or .npz file",
        ("export", file, root, "--warmup", "no.npy"): "`--warmup` must be a file of numbers",
        ("inspect", str(tmp_path / "saved")): "`path` must hold versions",
        ("inspect", str(tmp_path / "none")): "`path` must be a model's folder",
    }
    for arguments, message in wrong.items():
        assert main(list(map(str, arguments))) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"initx: {message}"), error
        assert error.count("\n") == 1
    assert sorted(entry.name for entry in root.iterdir()) == ["7", "7.keras"]
