"""What the examples share: resumption, other backends, other data, and what they refuse."""

import importlib
import importlib.util
import json
import os
import pathlib
import sys
import types

import keras
import numpy as np
import pytest

from keras_initx import cli
from keras_initx.summaries import last_step
from support import forked, small_data

pytest.importorskip("tensorflow_datasets")
pytest.importorskip("matplotlib")

TESTS = pathlib.Path(__file__).parent
EXAMPLES = TESTS.parent / "examples"
NAMES = ["image_classification", "text_classification"]


@pytest.fixture
def load(monkeypatch):
    """Imports an example by its name."""
    monkeypatch.syspath_prepend(EXAMPLES)
    training = importlib.import_module("training")
    monkeypatch.setattr(training, "gpu_names", lambda backend: [])  # it would change the process
    return importlib.import_module


@pytest.mark.tensorflow
@pytest.mark.integration
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, load, monkeypatch, capsys):
    out = forked.run([TESTS / "support" / "killed_examples.py"], cwd=tmp_path, check=True).stdout
    assert out.count("goes on after epoch 1") == 2
    for example in ("digits", "pydoc"):
        whole, killed = (
            next(tmp_path.glob(f"{runs}/initx_{example}*/*/checkpoint.keras")) for runs in ("whole", "killed")
        )
        models = [keras.models.load_model(path) for path in (whole, killed)]
        for a, b in zip(*(model.weights + model.optimizer.variables for model in models), strict=True):
            np.testing.assert_array_equal(a, b)
        assert whole.with_name("record.json").read_text() == killed.with_name("record.json").read_text()
        assert last_step(str(killed.parent)) == 2

    monkeypatch.chdir(tmp_path)
    load("predict").main(pathlib.Path("saved_models/digits"))
    assert capsys.readouterr().out.count("predicted") == 8
    import tensorflow as tf

    example = load("text_classification")
    monkeypatch.setattr(
        example, "read_texts", lambda name: (small_data.TRAIN, small_data.TEST, ("even", "odd"))
    )
    data = example.load_data("initx_pydoc/code", 8)
    texts = [text for text, _ in small_data.ROWS] + ["", "never seen"]
    served = tf.saved_model.load("saved_models/pydoc-code/1").signatures["serving_default"]
    expected = keras.models.load_model("saved_models/pydoc-code.keras").predict(
        example.encode(texts, data.split, data.vocabulary, 8), verbose=0
    )
    np.testing.assert_allclose(served(text=tf.constant(texts))["probabilities"], expected, atol=1e-5)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("backend", "image", "text"), [("jax", "separable", "relu_rnn"), ("torch", "residual", "gru")]
)
@pytest.mark.integration
def test_what_another_backend_trained_without_tensorflow_is_exported_with_the_same_answers(
    backend, image, text, tmp_path, load, monkeypatch
):
    if not importlib.util.find_spec(backend):
        pytest.skip(f"{backend} is not installed")
    code = f"""
import sys
from importlib.machinery import PathFinder

class WithoutTensorFlow(PathFinder):
    @classmethod
    def find_spec(cls, name, *others):
        absent = name.partition(".")[0] in ("tensorflow", "tensorflow_datasets")
        return None if absent else super().find_spec(name, *others)

sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutTensorFlow
sys.path[:0] = [{str(EXAMPLES)!r}, {str(TESTS)!r}]
import keras, numpy as np, image_classification, text_classification
from support import small_data
small_data.use()
for example, *arguments in (
    [image_classification, "--model", {image!r}, "--initializer", "by_role"],
    [text_classification, "--model", {text!r}, "--length", "8", "--initializer", "initx>GlorotScaled"],
):
    sys.argv = [example.__name__, "--epochs", "1", *arguments]
    example.main(example.parse_arguments()[1])
images = image_classification.load_data("initx_digits")
texts = text_classification.load_data("initx_pydoc/code", 8)
assert "tensorflow" not in sys.modules
for name, inputs in (("digits", images.test[0]), ("pydoc-code", texts.test[0])):
    model = keras.models.load_model(f"saved_models/{{name}}.keras")
    np.save(f"{{name}}.npy", model.predict(inputs, verbose=0))
np.save("images.npy", images.test[0].astype("float32"))
"""
    out = forked.run(["-c", code], cwd=tmp_path, env=forked.backend(backend), check=True).stdout
    assert len(list(tmp_path.glob("runs/*/*/*/events.out.tfevents*"))) == 4  # train, validation of both
    monkeypatch.chdir(tmp_path)
    commands = [line.split() for line in out.splitlines() if line.startswith("    ")]
    (_, *export), (_, script, target) = (line for line in commands if line[0] != "export")
    assert cli.main([*export, "--warmup", "saved_models/digits.warmup.npy"]) == 0
    assert script == "examples/export_text.py"
    load("export_text").export(pathlib.Path(target))

    import tensorflow as tf

    texts = [text for text, _ in small_data.TEST]
    for name, inputs in (
        ("digits", {"image": np.load("images.npy")}),
        ("pydoc-code", {"text": tf.constant(texts)}),
    ):
        signatures = tf.saved_model.load(f"saved_models/{name}/1").signatures
        assert "classify" in signatures
        found = signatures["serving_default"](**inputs)["probabilities"]
        np.testing.assert_allclose(found, np.load(f"{name}.npy"), atol=1e-4)


def test_batches_of_an_epoch_do_not_depend_on_where_training_began(load):
    training, augment = load("training"), load("image_classification").augment
    images, labels = np.random.default_rng(0).random((150, 4, 4, 1)), np.arange(150)
    whole = list(training.batches(images, labels, 1, 0, 3, augment))
    later = list(training.batches(images, labels, 1, 2, 3, augment))
    assert len(whole) == 3 * len(later) == 9
    for ours, theirs in zip(whole[6:], later, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    assert sorted(np.concatenate([labels for _, labels in later])) == list(range(150))
    assert not np.array_equal(whole[0][1], later[0][1])


def test_steps_that_float16_skips_count_as_trained(load, tmp_path, capsys):
    """The first overflow until the loss scale has come down; the optimizer does not count them."""
    training = load("training")
    x = 10 * np.random.default_rng(0).standard_normal((100, 3)).astype("float32")
    data = types.SimpleNamespace(train=(x, x[:, :1] > 0), test=(x, x[:, :1] > 0))

    def build(initializer):
        model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1, "sigmoid")], name="one")
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=2.0**127)
        model.compile(optimizer, "binary_crossentropy", metrics=["accuracy"])
        return model

    for epochs in (2, 3):
        arguments = types.SimpleNamespace(initializer=["he_normal"], seed=1, epochs=epochs)
        models, records = training.compare(arguments, tmp_path, data, build)
    assert int(models["he_normal"].optimizer.iterations) < 6
    assert "goes on after epoch 2" in capsys.readouterr().out
    assert list(records["he_normal"]["epochs"]) == ["1", "2", "3"]


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("example", "name", "shape", "labels", "other", "refusal"),
    [
        ("image_classification", "mnist", (20, 28, 28, 1), list("0123456789"), "imdb_reviews", "images"),
        ("text_classification", "imdb_reviews", (20, 8), ["neg", "pos"], "mnist", "texts"),
    ],
)
def test_other_tfds_sets_take_the_same_path(example, name, shape, labels, other, refusal, load, monkeypatch):
    """With tfds' own mock, which gives random rows of the set's shape: nothing can be learned from them."""
    import requests
    import tensorflow_datasets as tfds

    monkeypatch.setattr(requests, "head", lambda *args, **kwargs: None)
    length = (8,) if example == "text_classification" else ()
    with tfds.testing.mock_data(num_examples=20):
        data = load(example).load_data(name, *length)
        assert data.train[0].shape == data.test[0].shape == shape
        assert list(data.labels) == labels
        with pytest.raises(
            ValueError, match=f"labelled {refusal}. Received: {other}, .*, for example {name}."
        ):
            load(example).load_data(other, *length)


@pytest.mark.tensorflow
def test_images_of_several_sizes_are_refused(load, monkeypatch):
    rows = [(np.zeros((size, 8, 1), "uint8"), 0) for size in (8, 9)]
    example = load("image_classification")
    monkeypatch.setattr(load("training"), "read_tfds", lambda name, feature: (rows, rows[:1], ["a"]))
    with pytest.raises(ValueError, match=r"one size. Received: cats_vs_dogs with 2 sizes, from \(8, 8, 1\)"):
        example.load_data("cats_vs_dogs")


BOTH = [
    (["--epochs", "0"], "--epochs must be at least 1. Received: 0."),
    (["--dataset", "imdb_review"], "Nearest known: 'imdb_reviews'"),
    (["--dataset", "wiki40b"], "must have labels"),
    (["--dataset", "ag_news_subset"], "cannot be reached to download it. Connect to a network"),
    (["--initializer", "HeScald"], "Nearest: 'HeScaled'"),
    (["--initializer", "ReZero"], "ReZero"),
    (["--runs", "file"], "--runs must be a folder that can be written. Received: file. Choose another."),
    (["--saved-models", "file/below"], "--saved-models must be a folder that can be written."),
    (["--runs", "full"], "--runs needs 200 MB of free space. Received: full. Make room"),
    (["--runs", "foreign"], "holds a checkpoint of another architecture or data set. Choose another"),
    (["--runs", "damaged"], "holds a checkpoint that cannot be read. Delete this folder to start over, or"),
]
OWN = {
    "image_classification": [
        (["--dataset", "mnits"], "Nearest known: 'mnist'"),
        (["--model", "residual", "--initializer", "by_role", "MuP"], "MuP"),
    ],
    "text_classification": [
        (["--length", "0"], "--length must be at least 1. Received: 0."),
        (["--dataset", "initx_pydoc/words"], "must be one of ['code', 'families']"),
        (["--dataset", "initx_digits"], "--dataset must hold labelled texts. Received: initx_digits, Image"),
        (["--dataset", "initx_pysource"], "needs --dataset initx_pysource, which fits no other model. Rec"),
        (["--model", "decoder"], "Received: --model decoder --dataset initx_pydoc/code."),
        (
            ["--model", "decoder", "--dataset", "initx_pysource", "--width", "50"],
            "`width` must be a multiple of the width of a head, 16. Received: width=50.",
        ),
    ],
}


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "arguments", "message"), [(name, *row) for name in NAMES for row in BOTH + OWN[name]]
)
def test_what_cannot_work_ends_with_one_line_and_code_2(
    name, arguments, message, load, monkeypatch, tmp_path, capsys
):
    import requests

    def unreachable(*args, **kwargs):
        raise requests.ConnectionError("Name or service not known")

    example, training = load(name), load("training")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(requests, "head", unreachable)
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    if "full" in arguments:
        monkeypatch.setattr(training.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=0))
    if name == "text_classification" and arguments[0] in ("--runs", "--initializer"):
        monkeypatch.setattr(example, "read_texts", lambda name: ([("a b", 0), ("c", 1)],) * 2 + (("x", "y"),))
    for kind in {"foreign", "damaged"} & set(arguments):
        leave_checkpoint(tmp_path / kind, damaged=kind == "damaged")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if "tfds" not in path.parts}
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        parser, parsed = example.parse_arguments()
        training.run(parser, lambda: example.main(parsed))
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if "tfds" not in path.parts}
    assert after == before


def leave_checkpoint(runs, damaged):
    """Where the first run of each example would leave it: of another model, or cut off."""
    other = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    other.compile("sgd", "mse")
    for run in ("initx_digits-plain", "initx_pydoc-code-relu_rnn"):
        folder = runs / f"{run}-float32-seed1" / "initx-GlorotScaled"
        folder.mkdir(parents=True)
        other.save(folder / "checkpoint.keras")
        (folder / "record.json").write_text(json.dumps({"signal": {}, "epochs": {}}))
        if damaged:
            os.truncate(folder / "checkpoint.keras", 1000)


@pytest.mark.tensorflow
def test_the_readmes_example_runs(tmp_path, monkeypatch):
    text = (EXAMPLES.parent / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    assert len(code.strip().splitlines()) == 5
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "saved_models" / "mlp" / "1" / "saved_model.pb").exists()


@pytest.mark.tensorflow
def test_predict_without_an_export_says_what_to_run(tmp_path, load):
    with pytest.raises(SystemExit, match="run examples/image_classification.py first"):
        load("predict").main(tmp_path)
