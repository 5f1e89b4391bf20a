"""The committed models: served without keras_initx, loaded with it, and their predictions as stored."""

import json
import pathlib
import shutil
import sys

import keras
import numpy as np
import pytest

import keras_initx as initx
from support import forked

pytestmark = pytest.mark.tensorflow
FOLDER = pathlib.Path(__file__).parents[1] / "saved_models"
NAMES = ["digit-images", "prose-or-code"]
STORED = json.loads((FOLDER / "predictions.json").read_text())
WITHOUT = f"""
import json, sys
sys.path[:] = [path for path in sys.path if path]  # not the clone itself
for name in ("keras_initx", "keras"):
    sys.modules[name] = None  # importing it fails
import numpy as np, tensorflow as tf
answers = {{}}
for name, stored in json.load(open({str(FOLDER / "predictions.json")!r})).items():
    model = tf.saved_model.load(f"{FOLDER}/{{name}}/1")
    predict, classify = (model.signatures[key] for key in ("serving_default", "classify"))
    (key, spec), = predict.structured_input_signature[1].items()
    answered = predict(**{{key: tf.constant(stored["instances"], spec.dtype)}})
    answers[name] = answered["probabilities"].numpy().tolist()
    assert set(classify.structured_outputs) == {{"classes", "scores"}}
json.dump(answers, sys.stdout)
"""


def test_without_keras_initx_they_answer_as_stored(tmp_path):
    result = forked.run(["-c", WITHOUT], cwd=tmp_path, preload="tensorflow", check=True)
    answers = json.loads(result.stdout)
    assert sorted(answers) == sorted(STORED) == NAMES
    for name, stored in STORED.items():
        np.testing.assert_allclose(answers[name], stored["probabilities"], atol=1e-5)


def inputs_of(name):
    if name == "digit-images":
        return np.array(STORED[name]["instances"], "float32")
    sys.path.insert(0, str(FOLDER.parent / "examples"))
    import text_classification

    sys.path.pop(0)
    tokens = json.loads((FOLDER / f"{name}.json").read_text())
    return text_classification.encode(STORED[name]["instances"], tokens["split"], tokens["vocabulary"], 64)


@pytest.mark.parametrize("name", NAMES)
def test_the_keras_files_load_with_keras_initx_and_answer_as_stored(name):
    model = keras.models.load_model(FOLDER / f"{name}.keras")
    answers = model.predict(inputs_of(name), verbose=0)
    np.testing.assert_allclose(answers, STORED[name]["probabilities"], atol=1e-5)


def test_without_keras_initx_a_keras_file_names_what_it_lacks(tmp_path):
    code = f"import keras; keras.models.load_model({str(FOLDER / 'digit-images.keras')!r})"
    result = forked.run(["-c", code], cwd=tmp_path, preload="keras")
    assert result.returncode == 1
    assert "initx>LSUV" in result.stderr


@pytest.mark.parametrize("name", NAMES)
def test_they_are_small_and_served_with_labels_and_warm_up(name):
    files = [
        path
        for path in FOLDER.rglob("*")
        if path.is_file() and path.relative_to(FOLDER).parts[0].startswith(name)
    ]
    assert sum(path.stat().st_size for path in files) <= 1_000_000
    assert FOLDER / name / "1" / "assets.extra" / "tf_serving_warmup_requests" in files
    assert {path.name for path in FOLDER.glob(f"{name}.*")} >= {f"{name}.keras", f"{name}.md"}
    found = initx.saved_model.inspect(FOLDER / name)
    assert f"{name}" in str(found)
    assert "probabilities" in str(found)


@pytest.mark.parametrize("name", NAMES)
def test_those_of_numbers_are_proven_to_be_row_wise_so_that_a_server_may_batch_them(name, tmp_path):
    version = initx.saved_model.inspect(FOLDER / name).versions[0]
    proven = ("serve", "serving_default") if name == "digit-images" else ()
    assert version.row_wise == proven
    assert set(version.alone.values()) == {"it takes strings"}
    copied = shutil.copytree(version.path, tmp_path / "1")
    (copied / "assets.extra" / "initx_row_wise.json").unlink()
    assert initx.saved_model.prove_row_wise(copied) == version.row_wise


@pytest.mark.parametrize("name", NAMES)
def test_their_cards_tell_what_they_are_and_most_stored_rows_are_right(name):
    card = (FOLDER / f"{name}.md").read_text()
    for word in ("Data:", "Scheme:", "Command:", "Accuracy:", "Versions:"):
        assert word in card
    labels = STORED[name]["labels"]
    right = np.argmax(STORED[name]["probabilities"], axis=1) == labels
    assert right.mean() > 0.8
