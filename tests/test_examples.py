"""The examples, run as a user runs them."""

import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import keras_initx  # noqa: F401  registers what the checkpoints name

pytestmark = pytest.mark.tensorflow
EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


def command(name, *arguments):
    return [sys.executable, str(EXAMPLES / name), *arguments]


def run(name, *arguments, cwd):
    return subprocess.run(command(name, *arguments), cwd=cwd, text=True, capture_output=True, check=False)


def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path):
    arguments = ["--initializer", "initx>LSUV", "--epochs", "4", "--seed", "3"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    result = run("image_classification.py", *arguments, "--runs", str(whole), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (reference,) = whole.rglob("checkpoint.keras")
    checkpoint = killed / reference.relative_to(whole)

    kills = 0
    for wanted in (1, 3):
        arguments_here = command("image_classification.py", *arguments, "--runs", str(killed))
        process = subprocess.Popen(
            arguments_here, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + 120
        while process.poll() is None and epochs_of(checkpoint) < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills == 2

    result = run("image_classification.py", *arguments, "--runs", str(killed), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "goes on after epoch" in result.stdout
    first, second = (keras.models.load_model(path) for path in (reference, checkpoint))
    for a, b in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (reference.parent / "record.json").read_text() == (checkpoint.parent / "record.json").read_text()

    prediction = run("predict.py", "saved_models/digits", cwd=tmp_path)
    assert prediction.returncode == 0, prediction.stderr
    assert prediction.stdout.count("predicted") == 8


def epochs_of(checkpoint):
    """Finished epochs whose checkpoint is in place: its record is always at least as new."""
    import json

    record = checkpoint.with_name("record.json")
    if not checkpoint.exists():
        return 0
    return len(json.loads(record.read_text())["epochs"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs must be at least 1. Received: 0."),
        (["--dataset", "mnits"], "Nearest known: 'mnist'"),
        (["--initializer", "initx>HeScald"], "Nearest known: 'initx>HeScaled'"),
    ],
)
def test_bad_arguments_end_with_one_line_and_code_2(arguments, message, tmp_path):
    result = run("image_classification.py", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_other_tfds_sets_take_the_same_path(name, tmp_path):
    """With tfds' own mock, which gives random images of the set's shape: nothing can be learned from them."""
    code = f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
sys.argv = ["image_classification.py", "--dataset", {name!r}, "--epochs", "1", "--initializer", "he_normal"]
import requests, tensorflow_datasets as tfds
import image_classification
requests.head = lambda *args, **kwargs: None
with tfds.testing.mock_data(num_examples=70):
    image_classification.main(image_classification.parse_arguments()[1])
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "saved_models" / name / "1" / "saved_model.pb").exists()
    assert (tmp_path / "saved_models" / f"{name}.keras").exists()


def test_the_readmes_example_runs(tmp_path, monkeypatch):
    text = (EXAMPLES.parent / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    assert len(code.strip().splitlines()) == 5
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "saved_models" / "mlp" / "1" / "saved_model.pb").exists()


def test_predict_without_an_export_says_what_to_run(tmp_path):
    result = run("predict.py", str(tmp_path), cwd=tmp_path)
    assert result.returncode == 1
    assert "run examples/image_classification.py first" in result.stderr
