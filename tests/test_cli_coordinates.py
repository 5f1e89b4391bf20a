"""`initx coordinates`: what it reads, prints and refuses."""

import json

import keras
import numpy as np
import pytest

import keras_initx as initx
from keras_initx.cli import main

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites

BUILD = """
import keras

def build(width):
    return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(width, "relu", name="in"),
        keras.layers.Dense(width, "relu", name="hidden"), keras.layers.Dense(1, name="out")])

def fixed(width):
    return build(8)

number = 3
"""
OPTIONS = ("--widths", "64,128,256", "--data", "train.npz", "--loss", "mse", "--steps", "1", "--seeds", "2")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets_by_width.py").write_text(BUILD)
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    np.savez("train.npz", x=x, y=x.sum(axis=1, keepdims=True))
    np.save("x.npy", x)
    np.save("y.npy", x.sum(axis=1, keepdims=True))


def run(capsys, *arguments):
    status = main(["coordinates", *arguments])
    return status, *capsys.readouterr()


def test_a_plain_start_fails_the_check_and_is_drawn(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    options = (*OPTIONS, "--initializer", "by_role", "--optimizer", "adam", "--learning-rate", "0.002")
    status, out, error = run(capsys, "nets_by_width:build", *options, "--check", "--json", "--plot", "c.png")
    assert status == 1
    report = json.loads(out)
    assert report["optimizer"] == "Adam with the learning rate 0.002"
    assert {one["path"] for one in report["findings"]} == {"hidden", "out"}
    assert "the coordinates break a limit (max_slope=0.1, max_fall=0.4)" in error
    assert (tmp_path / "c.png").read_bytes()[1:4] == b"PNG"
    status, _, _ = run(capsys, "nets_by_width:build", *options, "--check", "max_slope=3,max_fall=none")
    assert status == 0
    status, _, _ = run(capsys, "nets_by_width:build", *options, "--check", "--allow", "grows")
    assert status == 0


def test_mup_is_the_default_and_targets_may_have_a_file(capsys):
    split = ("--widths", "64,128,256", "--data", "x.npy", "--targets", "y.npy", "--loss", "mse", "--check")
    status, out, _ = run(capsys, "nets_by_width:build", *split)
    assert status == 0
    assert "no findings" in out
    x, y = np.load("x.npy"), np.load("y.npy")
    import nets_by_width

    report = initx.coordinates(nets_by_width.build, [64, 128, 256], "MuP", (x, y), loss="mse")
    assert str(report).splitlines()[:4] == out.splitlines()[:4]


@pytest.mark.parametrize(
    ("build", "change", "message"),
    [
        ("nets_by_width", [], "`build` must be module:function"),
        ("no_such_module:build", [], "cannot be imported: No module named"),
        ("nets_by_width:missing", [], "cannot be imported"),
        ("nets_by_width:number", [], "which is int"),
        ("nets_by_width:fixed", [], "`build` must use its width"),
        (
            "nets_by_width:build",
            ["--widths", "64,32"],
            "`--widths` must be two or more different positive ints",
        ),
        ("nets_by_width:build", ["--widths", "a,b"], "`--widths` must be ints"),
        ("nets_by_width:build", ["--data", "x.npy"], "`--data` must have targets"),
        ("nets_by_width:build", ["--data", "none"], "`--data` must hold data with targets"),
        ("nets_by_width:build", ["--optimizer", "nothing"], "`--optimizer` must be a Keras optimizer"),
        ("nets_by_width:build", ["--learning-rate", "0.1"], "`--learning-rate` must stand beside"),
        ("nets_by_width:build", ["--check", "max_gain=2"], "`--check` must be limits and numbers"),
        ("nets_by_width:build", ["--allow", "grows"], "`--allow` must stand beside `--check`"),
        ("nets_by_width:build", ["--initializer", "nothing"], "nothing"),
    ],
)
def test_what_it_refuses(capsys, build, change, message):
    status, out, error = run(capsys, build, *OPTIONS, *change)
    assert status == 2
    assert out == ""
    assert message in error


def test_the_picture_has_a_line_for_each_layer_at_the_means_over_the_seeds():
    pytest.importorskip("matplotlib")

    def build(width):
        return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(width, name="a")])

    x = np.load("x.npy")
    # The only layer has outputs of the width, so it needs targets of any: a loss of the outputs alone.
    report = initx.coordinates(build, [8, 16], "MuP", (x, np.zeros((32, 1))), loss="mse", steps=2)
    figure = initx.plots.plot_coordinates(report)
    assert [axes.get_title() for axes in figure.axes][-1] == "changes, step 2"
    [line] = figure.axes[-1].get_lines()
    for width, drawn in zip(*line.get_data(), strict=True):
        rows = [row.change for row in report.rows if (row.width, row.step) == (width, 2)]
        assert drawn == pytest.approx(np.mean(rows))
    with pytest.raises(ValueError, match="`report` must be a report of `coordinates`. Received: int"):
        initx.plots.plot_coordinates(3)
