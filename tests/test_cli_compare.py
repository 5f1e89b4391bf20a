"""`initx compare`: what it reads, prints, keeps and refuses."""

import json
import re

import keras
import numpy as np
import pytest

from keras_initx.cli import main

PICTURES = ["curves.png", "finals.png", "rates.png"]
NAMES = "he_normal,LSUV,none"


def run(capsys, *arguments):
    status = main(["compare", *arguments])
    return status, *capsys.readouterr()


def build(units=1):
    layers = [keras.layers.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(units)]
    model = keras.Sequential(layers)
    eagerly = keras.backend.backend() == "tensorflow"  # which is faster for a few steps
    model.compile(keras.optimizers.SGD(0.01), "mse", metrics=["mae"], run_eagerly=eagerly)
    return model


def rows(count, seed):
    x = np.random.default_rng(seed).normal(size=(count, 4)).astype("float32")
    return {"x": x, "y": x.sum(axis=1, keepdims=True)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build().save("model.keras")
    np.savez("train.npz", **rows(100, 0))
    np.savez("validation.npz", **rows(40, 1))
    np.save("x.npy", rows(100, 0)["x"])
    np.save("y.npy", rows(100, 0)["y"])
    np.save("few.npy", rows(100, 0)["y"][:60])
    np.savez("other.npz", a=np.zeros(3), b=np.zeros(3))
    keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)]).save("uncompiled.keras")
    (tmp_path / "nets_of_a_user.py").write_text(
        "import keras\n"
        "def build():\n"
        "    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])\n"
        f"    model.compile('sgd', 'mse', run_eagerly={keras.backend.backend() == 'tensorflow'})\n"
        "    return model\n"
        "def explode():\n"
        "    model = build()\n"
        "    model.compile(keras.optimizers.SGD(1e30), 'mse')\n"
        "    return model\n"
    )
    return tmp_path


def test_it_prints_the_table_and_the_summary_and_holds_out_a_fifth(capsys, folder):
    arguments = ("--data", "train.npz", "--initializers", NAMES, "--seeds", "2", "--epochs", "1")
    status, out, err = run(capsys, "model.keras", *arguments, "--plots", "pictures")
    assert status == 0
    assert sorted(path.name for path in folder.glob("pictures/*.png")) == PICTURES
    assert out.startswith("initializer ")
    assert all(name in out for name in ("he_normal", "LSUV", "none", "validation loss"))
    assert "6 of 6 trials" in err
    _, parted, _ = run(capsys, "model.keras", "--data", "x.npy", "--targets", "y.npy", *arguments[2:])
    assert without_clocks(parted) == without_clocks(out)


def without_clocks(table):
    """The lines of a table without the seconds, which end a line or stand before a note."""
    return [re.sub(r"\S+(\s+at chance)?$", r"\1", line).split() for line in table.splitlines()]


@pytest.mark.tensorflow
def test_json_and_a_store_that_goes_on(capsys, folder):
    data = ("--data", "train.npz", "--validation", "validation.npz", "--test", "validation.npz")
    chosen = ("--initializers", "he_normal,zeros", "--learning-rates", "0.01,0.1")
    arguments = ("nets_of_a_user:build", *data, *chosen, "--epochs", "1", "--store", "kept", "--json")
    status, _, err = run(capsys, *arguments, "--seeds", "1")
    assert (status, "4 of 4 trials" in err) == (0, True)
    status, out, err = run(capsys, *arguments, "--seeds", "2")
    assert (status, "4 of 4 trials" in err) == (0, True)
    found = json.loads(out)
    assert found["reported"] == "test"
    assert {row["learning_rate"] for row in found["grid"]} == {0.01, 0.1}
    assert len(found["results"]) == 8


@pytest.mark.tensorflow
def test_a_comparison_without_a_good_trial_is_status_1_and_valid_json(capsys, folder):
    arguments = ("--data", "train.npz", "--initializers", "he_normal", "--seeds", "1", "--json")
    status, out, err = run(capsys, "nets_of_a_user:explode", *arguments)
    assert status == 1
    assert "no trial ended well" in err
    assert json.loads(out, parse_constant=pytest.fail)["rows"][0]["diverged"] == 1


@pytest.mark.tensorflow
def test_a_data_set_is_reported_on_its_own_test_split(capsys, folder):
    flat = [keras.layers.Input((8, 8, 1)), keras.layers.Rescaling(1 / 16), keras.layers.Flatten()]
    model = keras.Sequential([*flat, keras.layers.Dense(10, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.save("digits.keras")
    chosen = ("--initializers", "he_normal", "--seeds", "1", "--epochs", "2", "--metric", "accuracy")
    status, out, _ = run(capsys, "digits.keras", "--data", "initx_digits", *chosen)
    assert status == 0
    assert "test accuracy" in out


@pytest.mark.tensorflow
def test_an_interrupted_comparison_says_where_it_goes_on(capsys, folder, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_initx.experiments._sequential.run_trial", interrupted)
    arguments = ("model.keras", "--data", "train.npz", "--initializers", "zeros")
    status, _, err = run(capsys, *arguments, "--store", "kept")
    assert (status, "continues from the results in kept" in err) == (130, True)
    assert "nothing was written" in run(capsys, *arguments)[2]


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model": "none.keras"}, "Received: 'none.keras', which is not a file"),
        ({"model": "uncompiled.keras"}, "`model` must return a compiled Keras model"),
        ({"model": "nets_of_a_user:other"}, "has no attribute 'other'"),
        ({"--data": "other.npz"}, "`--data` must be an .npz file of the arrays x and y"),
        ({"--data": "x.npy"}, "which holds one array. Or name a file of labels by `--targets`"),
        ({"--data": "x.npy", "--targets": "few.npy"}, "as many rows in each array"),
        ({"--data": "none.npz"}, "Received: 'none.npz'"),
        ({"--data": "none"}, "`--data` must have labels. Received: none"),
        ({"--validation": "other.npz"}, "`--validation` must be an .npz file of the arrays x and y"),
        ({"--initializers": "he_narmal"}, "he_narmal"),
        ({"--initializers": "zeros,zeros"}, "`--initializers` must differ. Received: zeros more than once"),
        ({"--initializers": ","}, "`--initializers` must be"),
        ({"--learning-rates": "0.1;0.2"}, "`--learning-rates` must be numbers. Received: '0.1;0.2'"),
        ({"--learning-rates": "-1"}, "`--learning-rates` must be different positive numbers"),
        ({"--seeds": "0"}, "`--seeds` must be a positive int"),
        ({"--epochs": "0"}, "`--epochs` must be an int of at least 1"),
        ({"--batch-size": "0"}, "`--batch-size` must be an int of at least 1"),
        ({"--metric": "accuracy"}, "`--metric` must be one of ['loss', 'mae']"),
        ({"--plots": "x.npy"}, "`--plots` must be a folder that can be written"),
        ({"--store": "x.npy"}, "`--store` must be a folder that can be written"),
    ],
)
def test_it_refuses_in_one_line_and_trains_nothing(capsys, folder, monkeypatch, change, match):
    monkeypatch.setattr("keras_initx.experiments._sequential.run_trial", pytest.fail)
    options = {"model": "model.keras", "--data": "train.npz", "--initializers": "he_normal"} | change
    model = options.pop("model")
    status, out, err = run(capsys, model, *(f"{name}={value}" for name, value in options.items()))
    assert (status, out) == (2, "")
    assert match in err
    assert err.startswith("initx: ")
    assert err.count("\n") == 1
