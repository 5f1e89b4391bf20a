"""The text example: token numbers, resumption, export from every backend, and what it refuses."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import types

import keras
import numpy as np
import pytest

pytest.importorskip("tensorflow_datasets")
pytest.importorskip("matplotlib")

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
# A quick text set in place of the standard library's: even from odd numbers, by their words.
START = f"""
import json, os, sys
if os.environ["KERAS_BACKEND"] != "tensorflow":  # as if they were not installed
    sys.modules["tensorflow"] = sys.modules["tensorflow_datasets"] = None
sys.path.insert(0, {str(EXAMPLES)!r})
import text_classification as example, training
words = "zero one two three four five six seven eight nine".split()
rows = [(f"Is {{words[n % 10]}}, of the {{words[n // 10 % 10]}}!", n % 2) for n in range(150)]
example.read_texts = lambda name: (rows[:130], rows[130:], ("even", "odd"))
def run(*arguments):
    sys.argv = ["text_classification.py", "--length", "8", *arguments]
    example.main(example.parse_arguments()[1])
"""


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import text_classification
    import training

    monkeypatch.setattr(training, "gpu_names", lambda backend: [])  # it would change the process
    return text_classification


def python(code, cwd, backend="tensorflow"):
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", START + code], cwd=cwd, env=environment, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.tensorflow
@pytest.mark.parametrize("split", ["character", "whitespace"])
def test_the_plain_tokenizer_gives_the_ids_of_text_vectorization(split, example):
    import export_text

    texts = [
        "Hello, World! it's A-b c_d\tE\x0bF\x0cG\r\nH  \x1cI\u00a0J \u00c9COLE \u2028x",
        *(
            "",
            "   ",
            "[UNK] unk",
            "".join(map(chr, range(1, 128))),
            "\u0130stanbul \u2014 \u201cna\u00efve\u201d",
        ),
        *("a b c d e f g h i j k l m n o p", "a\u0000b \U0001f600"),
    ]
    known = example.learn_vocabulary(texts, split)[::2]
    vectorizer = export_text.vectorizer({"split": split, "vocabulary": known}, length=12)
    assert vectorizer.get_vocabulary() == ["", "[UNK]", *known]
    np.testing.assert_array_equal(vectorizer(texts), example.encode(texts, split, known, 12))


@pytest.mark.tensorflow
def test_an_interrupted_run_ends_with_the_weights_of_a_whole_one_and_takes_strings(tmp_path):
    code = """
arguments = ["--epochs", "2", "--initializer", "initx>LSUV", "--runs"]
run(*arguments, "whole")
end = training.Checkpoint.on_epoch_end
def stop(self, epoch, logs=None):
    if epoch == 1:
        raise InterruptedError  # before its checkpoint
    end(self, epoch, logs)
training.Checkpoint.on_epoch_end = stop
try:
    run(*arguments, "interrupted")
except InterruptedError:
    training.Checkpoint.on_epoch_end = end
run(*arguments, "interrupted")

import keras, numpy as np, pathlib
from keras_initx.summaries import last_step
one, other = (next(pathlib.Path(name).rglob("checkpoint.keras")) for name in ("whole", "interrupted"))
models = [keras.models.load_model(path) for path in (one, other)]
for a, b in zip(*(model.weights + model.optimizer.variables for model in models), strict=True):
    np.testing.assert_array_equal(a, b)
assert one.with_name("record.json").read_text() == other.with_name("record.json").read_text()
assert last_step(str(other.parent)) == 2

import tensorflow as tf
served = tf.saved_model.load("saved_models/pydoc-code/2").signatures["serving_default"]
texts = [text for text, _ in rows] + ["", "never seen"]
data = example.load_data("initx_pydoc/code", 8)
expected = keras.models.load_model("saved_models/pydoc-code.keras").predict(
    example.encode(texts, data.split, data.vocabulary, 8), verbose=0)
found = served(text=tf.constant(texts))["probabilities"]
np.testing.assert_allclose(found, expected, atol=1e-5)
"""
    assert "goes on after epoch 1" in python(code, tmp_path)


@pytest.mark.tensorflow
@pytest.mark.parametrize(("backend", "kind"), [("jax", "relu_rnn"), ("torch", "transformer")])
def test_what_another_backend_trained_without_tensorflow_is_exported_with_the_same_answers(
    backend, kind, tmp_path, monkeypatch
):
    if not importlib.util.find_spec(backend):
        pytest.skip(f"{backend} is not installed")
    code = f"""
run("--epochs", "1", "--model", {kind!r}, "--initializer", "initx>GlorotScaled", "--dataset", "tiny")
import keras, numpy as np
data = example.load_data("tiny", 8)
np.save("answers.npy", keras.models.load_model("saved_models/tiny.keras").predict(data.test[0], verbose=0))
json.dump([text for text, _ in rows[130:]], open("texts.json", "w"))
"""
    out = python(code, tmp_path, backend)
    assert len(list(tmp_path.glob("runs/*/*/*/events.out.tfevents*"))) == 2  # train, validation
    assert "export KERAS_BACKEND=tensorflow\n    python examples/export_text.py saved_models/tiny" in out
    import tensorflow as tf

    monkeypatch.syspath_prepend(EXAMPLES)
    import export_text

    export_text.export(tmp_path / "saved_models/tiny")
    served = tf.saved_model.load(str(tmp_path / "saved_models/tiny/1")).signatures["serving_default"]
    texts = json.loads((tmp_path / "texts.json").read_text())
    np.testing.assert_allclose(
        served(text=tf.constant(texts))["probabilities"], np.load(tmp_path / "answers.npy"), atol=1e-4
    )


@pytest.mark.parametrize("kind", ["relu_rnn", "gru", "lstm", "transformer"])
def test_each_model_learns_from_its_first_step(kind, example):
    rows = [("left " * n, 0) for n in range(1, 5)] + [("right " * n, 1) for n in range(1, 5)]
    ids = example.encode([text for text, _ in rows], "whitespace", ["left", "right"], 6)
    labels = np.array([label for _, label in rows])
    data = example.Data((ids, labels), (ids, labels), ("l", "r"), "whitespace", ["left", "right"], [])
    model = example.build_model(data, kind, "initx>GlorotScaled")
    losses = model.fit(ids, labels, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    longer = np.pad(ids[:, :4], ((0, 0), (0, 2)))[[0, 4]]  # padding is not read
    answers = [model.predict(rows, verbose=0) for rows in (longer, ids[[0, 4]])]
    np.testing.assert_allclose(*answers, atol=1e-6)


def test_batches_of_an_epoch_do_not_depend_on_where_training_began(example):
    data = example.Data((np.arange(150)[:, None], np.arange(150)), None, (), "", [], [])
    whole = [labels for _, labels in example.batches(data, 1, 0, 3)]
    later = [labels for _, labels in example.batches(data, 1, 2, 3)]
    assert len(whole) == 3 * data.steps
    for a, b in zip(whole[2 * data.steps :], later, strict=True):
        np.testing.assert_array_equal(a, b)
    assert sorted(np.concatenate(later)) == list(range(150))
    assert not np.array_equal(whole[0], later[0])


@pytest.mark.tensorflow
def test_other_tfds_sets_take_the_same_path(example, monkeypatch):
    import requests
    import tensorflow_datasets as tfds

    monkeypatch.setattr(requests, "head", lambda *args, **kwargs: None)
    with tfds.testing.mock_data(num_examples=20):
        data = example.load_data("imdb_reviews", 8)
    assert data.train[0].shape == (20, 8)
    assert (list(data.labels), data.split) == (["neg", "pos"], "whitespace")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs must be at least 1. Received: 0."),
        (["--length", "0"], "--length must be at least 1. Received: 0."),
        (["--dataset", "imdb_review"], "Nearest known: 'imdb_reviews'"),
        (["--dataset", "initx_pydoc/words"], "must be one of ['code', 'families']"),
        (["--dataset", "initx_digits"], "--dataset must hold labelled texts. Received: initx_digits"),
        (["--dataset", "wiki40b"], "must have labels"),
        (["--dataset", "ag_news_subset"], "cannot be reached to download it. Connect to a network"),
        (["--initializer", "initx>HeScald"], "Nearest known: 'initx>HeScaled'"),
        (["--runs", "file"], "--runs must be a folder that can be written. Received: file. Choose another."),
        (["--saved-models", "file/below"], "--saved-models must be a folder that can be written."),
        (["--runs", "full"], "--runs needs 200 MB of free space. Received: full. Make room"),
        (["--runs", "foreign"], "holds a checkpoint of another architecture or data set. Choose another"),
    ],
)
def test_what_cannot_work_ends_with_one_line_and_code_2(
    arguments, message, example, monkeypatch, tmp_path, capsys
):
    import requests

    import training

    def unreachable(*args, **kwargs):
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(requests, "head", unreachable)
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    if "full" in arguments:
        monkeypatch.setattr(training.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=0))
    if "foreign" in arguments:
        monkeypatch.setattr(example, "read_texts", lambda name: ([("a b", 0), ("c", 1)],) * 2 + (("x", "y"),))
        run = tmp_path / "foreign/initx_pydoc-code-relu_rnn-float32-seed1/initx-GlorotScaled"
        run.mkdir(parents=True)
        other = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
        other.compile("sgd", "mse")
        other.save(run / "checkpoint.keras")
        (run / "record.json").write_text("{}")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if "tfds" not in path.parts}
    monkeypatch.setattr(sys, "argv", ["text_classification.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        parser, parsed = example.parse_arguments()
        training.run(parser, lambda: example.main(parsed))
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if "tfds" not in path.parts}
    assert after == before
