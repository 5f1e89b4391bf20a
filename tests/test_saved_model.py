import os
import signal
import subprocess
import sys
import textwrap
import time

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx import saved_model

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def model():
    return keras.Sequential(
        [
            layers.Input((6,), name="features"),
            layers.Dense(5, "relu", kernel_initializer="initx>LSUV"),
            layers.Dense(3, kernel_initializer=initx.initializers.HeScaled(gain=1.0)),
        ]
    )


def python(code, **kwargs):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], text=True, capture_output=True, check=False, **kwargs
    )


def test_export_answers_in_a_process_that_never_imports_the_package(model, tmp_path, rng):
    exported = initx.export(model, tmp_path / "net")
    inputs = rng.standard_normal((4, 6)).astype("float32")
    np.save(tmp_path / "inputs.npy", inputs)
    result = python(
        f"""
        import sys
        sys.modules["keras_initx"] = None
        import numpy as np, tensorflow as tf
        predict = tf.saved_model.load({exported.path!r}).signatures["serving_default"]
        (outputs,) = predict(features=tf.constant(np.load({str(tmp_path / "inputs.npy")!r}))).values()
        np.save({str(tmp_path / "outputs.npy")!r}, outputs.numpy())
        """
    )
    assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), model.predict(inputs, verbose=0), atol=1e-6)


def test_versions_count_up_from_the_highest(model, tmp_path):
    assert [initx.export(model, tmp_path).version for _ in range(2)] == [1, 2]
    (tmp_path / "0007").mkdir()
    (tmp_path / "notes").mkdir()
    exported = initx.export(model, str(tmp_path))
    assert (exported.version, exported.path) == (8, str(tmp_path / "8"))
    assert exported.signatures == ("serve", "serving_default")
    assert str(exported) == f"{tmp_path / '8'} (version 8; signatures: serve, serving_default)"
    assert exported.to_dict()["version"] == 8


def test_nothing_but_whole_versions_is_ever_visible(model, tmp_path, monkeypatch):
    seen = []
    original = saved_model._rename_to_next_version

    def spy(folder, root):
        seen.append([entry.name for entry in root.iterdir()])
        return original(folder, root)

    monkeypatch.setattr(saved_model, "_rename_to_next_version", spy)
    initx.export(model, tmp_path)
    (names,) = seen
    assert all(name.startswith(".") for name in names)
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]
    assert (tmp_path / "1" / "saved_model.pb").exists()


def test_a_failed_export_leaves_nothing(model, tmp_path, monkeypatch):
    initx.export(model, tmp_path)

    def fail(*args, **kwargs):
        raise RuntimeError("disk full")

    monkeypatch.setattr(model, "export", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        initx.export(model, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]


def test_a_failed_first_export_leaves_no_folder(model, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("disk full")

    monkeypatch.setattr(model, "export", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        initx.export(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("path", [None, "", 3])
def test_what_is_no_path_is_refused(model, path):
    with pytest.raises(ValueError, match="`path` must be the model's folder. Received: path="):
        initx.export(model, path)


def test_a_number_that_another_export_took_meanwhile_is_passed_over(tmp_path):
    finished = tmp_path / ".exporting" / "model"
    finished.mkdir(parents=True)
    (finished / "saved_model.pb").touch()
    rename = type(finished).rename

    def racing(self, target):
        if target.name == "1":
            target.mkdir()
            (target / "saved_model.pb").touch()
        return rename(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(finished), "rename", racing)
        assert saved_model._rename_to_next_version(finished, tmp_path) == 2


def test_a_killed_export_leaves_no_version(tmp_path):
    code = f"""
        import keras, keras_initx as initx
        model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(5)])
        print("ready", flush=True)
        while True:
            initx.export(model, {str(tmp_path)!r})
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    deadline = time.monotonic() + 60
    while not (scratch := list(tmp_path.glob(".exporting-*/model/*"))):
        assert time.monotonic() < deadline
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert scratch
    import tensorflow as tf

    for version in (entry for entry in tmp_path.iterdir() if entry.name.isdecimal()):
        assert "serving_default" in tf.saved_model.load(str(version)).signatures


def test_unbuilt_models_other_things_and_files_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match="`model` must be built .* Call it on one batch first"):
        initx.export(keras.Sequential([layers.Dense(2)]), tmp_path / "new")
    with pytest.raises(ValueError, match="`model` must be a Keras model. Received: model of type Dense"):
        initx.export(model.layers[0], tmp_path / "new")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="`path` must be a folder or not exist yet. Received: path="):
        initx.export(model, tmp_path / "file")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_other_backends_are_told_the_way(model, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(
        ValueError, match="`export` needs the TensorFlow backend. Received: KERAS_BACKEND=jax"
    ):
        initx.export(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()
