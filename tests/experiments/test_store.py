"""The store: what a comparison wrote, or an error that names the file, the rule and the cure."""

import contextlib
import json
import resource

import keras
import numpy as np
import pytest

from keras_initx.experiments import Trial, TrialResult, compare
from keras_initx.experiments._store import Store
from keras_initx.strategies import ByRole

pytestmark = pytest.mark.tensorflow  # its code is the same on each backend
TRIALS = [Trial("zeros", seed, None, 1) for seed in range(2)]
INITIALIZERS = {"zeros": {"class_name": "Zeros"}}


def kept(folder, fingerprint="f", initializers=INITIALIZERS):
    store = Store(folder, fingerprint, initializers)
    return store, store.open(TRIALS)


@pytest.fixture
def folder(tmp_path):
    store, found = kept(tmp_path)
    assert not found
    for trial in TRIALS:
        store.write(TrialResult(trial, curves={"loss": [1.0, float("nan")]}, final=0.5, notes=("one",)))
    return tmp_path


def test_what_is_written_is_read(folder):
    _, found = kept(folder)
    assert [(result.trial, result.final, result.notes) for result in found] == [
        (trial, 0.5, ("one",)) for trial in TRIALS
    ]


def changed(**fields):
    return lambda text: json.dumps({**json.loads(text), **fields})


DAMAGES = {
    "empty": (lambda text: "", "is empty"),
    "cut off": (lambda text: text[: len(text) // 2], "is not a whole JSON document"),
    "a list": (lambda text: "[]", "is a JSON list"),
    "of a later version": (changed(later=1), r"has \['later'\], which this version does not know"),
}
FOREIGN = {
    "another program's": (lambda text: '{"name": 1}', "lacks"),
    "a result of another trial": (
        changed(trial={"initializer": "ones", "seed": 0, "learning_rate": None, "epochs": 1}),
        "is the result of another trial",
    ),
    "a text for a number": (changed(final="0.9"), "has a `final` that no trial has"),
    "a number for curves": (changed(curves={"loss": 1}), "has a `curves` that no trial has"),
}


@pytest.mark.parametrize("damage", [*DAMAGES.values(), *FOREIGN.values()], ids=[*DAMAGES, *FOREIGN])
def test_a_result_that_no_trial_wrote_is_refused_and_its_removal_is_the_cure(folder, damage):
    change, told = damage
    file = folder / f"{TRIALS[1].key}.json"
    file.write_text(change(file.read_text()))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match=rf"`store` must hold.*{file.name}', which {told}.*Remove the file"):
        kept(folder, initializers={**INITIALIZERS, "more": None})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    file.unlink()
    assert [result.trial for result in kept(folder)[1]] == TRIALS[:1]


@pytest.mark.parametrize(
    "damage", [*DAMAGES.values(), (lambda text: '{"initializers": {}}', "lacks")], ids=[*DAMAGES, "foreign"]
)
def test_a_manifest_that_no_comparison_wrote_is_refused(folder, damage):
    change, told = damage
    manifest = folder / "comparison.json"
    manifest.write_text(change(manifest.read_text()))
    with pytest.raises(ValueError, match=rf"comparison.json', which {told}.*Choose another folder"):
        kept(folder)


def test_bytes_a_folder_and_a_missing_manifest_are_told(folder):
    file = folder / f"{TRIALS[0].key}.json"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=rf"{file.name}', which is not text"):
        kept(folder)
    file.unlink()
    file.mkdir()
    with pytest.raises(ValueError, match=rf"{file.name}', which cannot be read: Is a directory"):
        kept(folder)
    file.rmdir()
    (folder / "comparison.json").unlink()
    with pytest.raises(
        ValueError, match=r"comparison.json', which does not exist, although there are results"
    ):
        kept(folder)


@contextlib.contextmanager
def room_for(size):
    """No file may grow beyond a size: the system refuses to write as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_no_part_of_a_file_and_names_the_folder(folder):
    store, _ = kept(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with (
        room_for(64),
        pytest.raises(ValueError, match=r"`store` must be a folder.*File too large.*goes on") as told,
    ):
        store.write(TrialResult(TRIALS[0], failure="x" * 1000))
    assert str(folder) in str(told.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    store.write(TrialResult(TRIALS[0], final=0.25))  # with room again
    assert kept(folder)[1][0].final == 0.25


class Mine:
    """A strategy of one's own, whose `repr` is an address."""

    def __init__(self, number):
        self.number = number

    def plan(self, sites, model=None):
        return ByRole().plan(sites)


def test_a_store_goes_on_with_a_strategy_and_a_function_of_ones_own(tmp_path):
    made = []

    class Counts:
        def run(self, problem, trials, keep):
            for trial in trials:
                made.append(trial)
                keep(TrialResult(trial, final=1.0))

    def build():
        model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    data = np.ones((4, 2), "float32"), np.ones((4, 1), "float32")

    def again(number=1, mode="auto", seeds=1):
        initializers = {
            "mine": Mine(number),
            "function": lambda shape, dtype=None: keras.ops.ones(shape, dtype),
        }
        given = {"seeds": seeds, "mode": mode, "runner": Counts(), "store": tmp_path}
        return compare(build, initializers, data, data, **given)

    again()
    again(seeds=2)  # other objects of the same kind and state
    assert len(made) == 4
    with pytest.raises(ValueError, match="another initializer of the label 'mine'"):
        again(number=2)
    with pytest.raises(ValueError, match="another metric, mode, target"):
        again(mode="max")
    assert len(made) == 4
