"""`initx initialize --from`: options that need a donor, and files that must not be lost."""

import re
import shlex

import keras
import numpy as np
import pytest

from _initx_command import main

pytestmark = pytest.mark.tensorflow


def run(capsys, *arguments):
    status = main([str(one) for one in arguments])
    return status, *capsys.readouterr()


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, width in (("old", 4), ("new", 8)):
        hidden = keras.layers.Dense(width, "relu", name="hidden")
        head = keras.layers.Dense(3, name="head")
        keras.Sequential([keras.layers.Input((4,)), hidden, head]).save(f"{name}.keras")
    return tmp_path


@pytest.mark.parametrize(
    ("option", "value"), [("--width", "clone"), ("--width", "select"), ("--depth", "first")]
)
def test_an_option_of_the_donor_without_a_donor_is_refused(capsys, files, option, value):
    status, _, error = run(capsys, "initialize", "new.keras", option, value, "--out", "start.keras")
    assert status == 2
    assert f"`{option}` needs `--from`" in error
    assert f"Received: {option} {value} without it" in error
    assert len(error.splitlines()) == 1
    assert not (files / "start.keras").exists()
    # The cures: a donor, or no such option.
    arguments = ["initialize", "new.keras", "--from", "old.keras", "--width", "clone", "--out", "start.keras"]
    assert main(arguments if option == "--width" else [*arguments, option, value]) == 0
    assert main(["initialize", "new.keras", "--out", "start.keras"]) == 0


@pytest.mark.parametrize("out", ["old.keras", "./old.keras", "link.keras"])
def test_the_donor_is_not_overwritten_and_the_printed_cure_runs(capsys, files, out):
    (files / "link.keras").symlink_to(files / "old.keras")
    before = (files / "old.keras").read_bytes()
    arguments = ("initialize", "new.keras", "--from", "old.keras", "--width", "clone")
    status, _, error = run(capsys, *arguments, "--out", out)
    assert status == 2
    assert "`--out` must not be the file of `--from`" in error
    assert (files / "old.keras").read_bytes() == before
    cure = shlex.split(re.search(r"such as (--out \S+?)\.$", error.strip())[1])
    assert run(capsys, *arguments, *cure)[0] == 0
    assert (files / cure[1]).exists()
    assert (files / "old.keras").read_bytes() == before


def test_the_initializer_draws_what_the_donor_does_not_have(capsys, files):
    wide = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(4, name="hidden")])
    wide.add(keras.layers.Dense(5, name="head"))
    wide.save("more.keras")
    arguments = ("initialize", "more.keras", "--from", "old.keras", "--initializer", "zeros")
    assert run(capsys, *arguments, "--out", "start.keras")[0] == 0
    model, donor = keras.saving.load_model("start.keras"), keras.saving.load_model("old.keras")
    values = [keras.ops.convert_to_numpy(net.get_layer("hidden").kernel) for net in (model, donor)]
    np.testing.assert_array_equal(*values)
    assert not keras.ops.convert_to_numpy(model.get_layer("head").kernel).any()


@pytest.mark.parametrize("verb", ["initialize", "calibrate"])
def test_a_start_of_adapters_is_refused_since_no_file_keeps_it(capsys, tmp_path, verb):
    head = keras.layers.Dense(3, name="head", lora_rank=2)
    keras.Sequential([keras.layers.Input((4,)), head]).save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(20, 4)).astype("float32"))
    out = tmp_path / "out.keras"
    law = ["PiSSA"] if verb == "initialize" else ["EVA", "--data", tmp_path / "x.npy"]
    status, _, error = run(capsys, verb, tmp_path / "model.keras", "--initializer", *law, "--out", out)
    assert status == 2
    assert "a file holds their sum with the base. Start them in Python" in error
    assert not out.exists()
