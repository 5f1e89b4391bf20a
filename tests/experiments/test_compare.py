"""Comparisons: what a trial is made of, what is concluded, what is kept, what is refused."""

import dataclasses
import json
import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import keras_initx as initx
from keras_initx.experiments import Sequential, Trial, TrialResult, compare
from keras_initx.experiments._batches import Shuffled
from keras_initx.experiments._summarize import summarize
from support import forked

QUIET = Sequential(progress=False)


# TensorFlow traces and compiles for seconds what runs for some steps.
EAGERLY = keras.backend.backend() == "tensorflow"


def build(rate=0.1, eagerly=EAGERLY, depth=2):
    model = keras.Sequential(
        [
            keras.layers.Input((8,)),
            *(keras.layers.Dense(16, "relu") for _ in range(depth)),
            keras.layers.Dense(2, "softmax"),
        ]
    )
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.9),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        run_eagerly=eagerly,
    )
    return model


def as_users_have_it():
    return build(eagerly=False)


def small():
    return build(depth=0)


def signs(rows, seed):
    x = np.random.default_rng(seed).normal(size=(rows, 8)).astype("float32")
    return x, (x.sum(axis=1) > 0).astype("int32")


TRAIN, VALIDATION = signs(256, 0), signs(100, 1)
FEW = signs(32, 0)


@pytest.fixture(scope="module")
def comparison():
    return compare(
        build,
        ["initx>HeScaled", "zeros", "initx>LSUV"],
        TRAIN,
        VALIDATION,
        seeds=3,
        epochs=3,
        batch_size=64,
        metric="accuracy",
        target=0.8,
        runner=QUIET,
    )


def test_it_tells_what_trains_from_what_does_not(comparison):
    assert comparison.rows[-1].initializer == "zeros"
    zeros = comparison.rows[-1]
    assert zeros.mean < 0.7 < comparison.rows[0].mean
    assert "variance" in zeros.verdicts or "no_gradient" in zeros.verdicts or "symmetry" in zeros.verdicts
    against_zeros = [pair for pair in comparison.differences if pair.second == "zeros"]
    assert len(against_zeros) == 2
    assert all(pair.mean > 0.1 for pair in against_zeros)
    assert [len(result.curves["val_accuracy"]) for result in comparison.results] == [3] * 9
    assert all(result.ended_well for result in comparison.results)


def test_a_data_dependent_law_is_calibrated_on_the_training_data_of_each_trial(comparison):
    gains = {row.initializer: row.forward_gain for row in comparison.rows}
    assert gains["initx>LSUV"] == pytest.approx(1, abs=0.5)
    stds = []

    class Watch(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            stds.extend(initx.probe.preactivation_std(self.model, TRAIN[0]).values())

    compare(
        build, ["initx>LSUV"], TRAIN, VALIDATION, seeds=1, runner=QUIET, callbacks=lambda trial: [Watch()]
    )
    np.testing.assert_allclose(stds, 1, rtol=1e-3)


def test_a_trial_is_the_same_whenever_it_is_made(comparison):
    """Unnamed layers are numbered by process, and streams of random numbers come from names."""
    keras.layers.Dense(1)
    before = keras.layers.Dense(1).name
    options = {"epochs": 3, "batch_size": 64, "metric": "accuracy", "runner": QUIET}
    again = compare(build, ["initx>HeScaled"], TRAIN, VALIDATION, seeds=[2], **options)
    (first,) = (r for r in comparison.results if (r.trial.initializer, r.trial.seed) == ("initx>HeScaled", 2))
    for name, curve in again.results[0].curves.items():
        np.testing.assert_allclose(curve, first.curves[name], rtol=1e-5)
    number = int(before.rpartition("_")[2])
    assert keras.layers.Dense(1).name == f"dense_{number + 1}"  # the process goes on where it was


def test_all_initializers_of_a_seed_see_the_same_batches_and_each_epoch_others():
    batches = Shuffled((np.arange(10), np.arange(10)), 4, seed=3)
    first = np.concatenate([batches[i][0] for i in range(len(batches))])
    batches.go_to(1)
    second = np.concatenate([batches[i][0] for i in range(len(batches))])
    assert sorted(first) == sorted(second) == list(range(10))
    assert not np.array_equal(first, second)
    same = Shuffled((np.arange(10), np.arange(10)), 4, seed=3)
    np.testing.assert_array_equal(np.concatenate([same[i][0] for i in range(3)]), first)


@pytest.mark.tensorflow
def test_tensorflow_is_given_the_same_batches_without_a_call_of_python_for_each():
    batches = Shuffled((np.arange(10.0), {"named": np.arange(10)}), 4, seed=3)
    given = batches.to_fit(2)
    found = list(given["x"].as_numpy_iterator())
    assert (len(found), given["steps_per_epoch"]) == (6, 3)
    for epoch in range(2):
        batches.go_to(epoch)
        for index in range(3):
            (x, y), (expected, named) = found[3 * epoch + index], batches[index]
            np.testing.assert_array_equal(x, expected)
            np.testing.assert_array_equal(y["named"], named["named"])


def test_each_epoch_of_fit_takes_its_own_order():
    """Keras calls `on_epoch_end` a different number of times on each backend."""
    seen = []

    class Watched(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append(None)

    orders = []
    original = Shuffled.go_to

    def spy(self, epoch):
        orders.append(epoch)
        original(self, epoch)

    Shuffled.go_to = spy
    try:
        compare(
            as_users_have_it,
            ["initx>HeScaled"],
            TRAIN,
            VALIDATION,
            seeds=1,
            epochs=3,
            runner=QUIET,
            callbacks=lambda trial: [Watched()],
        )
    finally:
        Shuffled.go_to = original
    assert len(seen) == 3
    assert orders == [0, 0, 1, 2]


def result(initializer, seed, final, rate=None, **more):
    return TrialResult(Trial(initializer, seed, rate, 1), final=final, best=final, **more)


def test_a_learning_rate_is_chosen_on_validation_and_reported_on_test():
    results = [
        result("a", seed, final, rate, test=test)
        for seed in range(3)
        for rate, final, test in ((0.1, 0.9, 0.2), (0.01, 0.8, 0.7))
    ]
    found = summarize(results, "accuracy", minimize=False, reported="test")
    assert (found.rows[0].learning_rate, found.rows[0].mean) == (0.1, pytest.approx(0.2))
    assert "chosen on the validation data" not in found.summary
    found = summarize(results, "accuracy", minimize=False, reported="validation")
    assert (found.rows[0].learning_rate, found.rows[0].mean) == (0.1, pytest.approx(0.9))
    assert "chosen on the validation data" in found.summary
    found = summarize(results, "error", minimize=True, reported="test")
    assert found.rows[0].learning_rate == 0.01


def test_divergence_is_counted_and_not_averaged():
    results = [result("a", seed, 0.9 + seed / 100) for seed in range(5)]
    results += [result("b", seed, 0.95 + seed / 99) for seed in range(3)]
    results += [result("b", seed, None, diverged=True) for seed in (3, 4)]
    results += [result("c", seed, None, diverged=True) for seed in range(4)]
    results += [result("c", 4, None, failure="MemoryError: full")]
    found = summarize(results, "accuracy", minimize=False, reported="validation")
    assert [(row.initializer, row.diverged, row.failed) for row in found.rows] == [
        ("b", 2, 0),
        ("a", 0, 0),
        ("c", 4, 1),
    ]
    assert found.rows[0].mean == pytest.approx(0.95 + 1 / 99)
    assert found.rows[2].mean is None
    pairs = {(pair.first, pair.second, pair.kind): pair for pair in found.differences}
    assert pairs["b", "a", "values"].seeds == 3
    assert pairs["a", "b", "endings"].p == pytest.approx(4 / 9)  # both lost ones of ten are b's, or both a's
    assert pairs["a", "c", "endings"].p == pytest.approx(1 / 126)  # of nine: what ran out of memory is none
    assert pairs["a", "c", "endings"].real
    assert "Of 5 seeds b diverged in 2. Its mean is over the other 3." in found.summary
    assert "MemoryError: full" in str(found)
    json.loads(found.to_json())


def test_it_recommends_one_initializer_or_says_that_there_is_no_difference():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.001, (3, 8))
    results = [
        result(name, seed, mean + noise[number][seed])
        for number, (name, mean) in enumerate((("a", 0.9), ("b", 0.8), ("c", 0.7)))
        for seed in range(8)
    ]
    found = summarize(results, "accuracy", minimize=False, reported="validation")
    assert found.recommendation == "a"
    assert "a beats b" in found.summary
    assert summarize(results, "loss", minimize=True, reported="validation").recommendation == "c"
    noise = [result(name, seed, rng.normal()) for name in "ab" for seed in range(8)]
    found = summarize(noise, "accuracy", minimize=False, reported="validation")
    assert found.recommendation is None
    assert "no difference was found" in found.summary
    nothing = [result("a", 0, None, diverged=True)]
    assert "No initializer ended well" in summarize(nothing, "accuracy", False, "validation").summary


def test_what_diverges_and_what_raises_are_rows(tmp_path):
    def fail(trial):
        if trial.initializer == "zeros":
            raise RuntimeError("no room")
        return []

    found = compare(
        build,
        ["initx>HeScaled", "zeros"],
        TRAIN,
        VALIDATION,
        seeds=2,
        learning_rates=[1e30],
        epochs=2,
        metric="accuracy",
        runner=QUIET,
        callbacks=fail,
        store=tmp_path,
    )
    rows = {row.initializer: row for row in found.rows}
    assert rows["initx>HeScaled"].diverged == 2
    assert rows["zeros"].failures == ("RuntimeError: no room",)
    assert len(found.results[0].curves["loss"]) == 1  # training ended there
    assert len(list(tmp_path.glob("*.json"))) == 5


@pytest.mark.tensorflow  # its code is the same on each backend
def test_a_store_repeats_nothing_and_can_be_added_to(tmp_path):
    made = []

    class Counted:
        def run(self, problem, trials, keep):
            made.extend(trials)
            QUIET.run(problem, trials, keep)

    arguments = {"metric": "accuracy", "runner": Counted(), "store": tmp_path / "store"}
    first = compare(small, ["initx>HeScaled"], FEW, FEW, seeds=2, **arguments)
    again = compare(small, ["initx>HeScaled"], FEW, FEW, seeds=2, **arguments)
    assert len(made) == 2
    assert again == first
    compare(small, ["initx>HeScaled", "zeros"], FEW, FEW, seeds=3, **arguments)
    assert len(made) == 6
    with pytest.raises(ValueError, match="`store` must be empty, or hold results of the same comparison"):
        compare(small, ["initx>HeScaled"], VALIDATION, FEW, seeds=2, **arguments)
    with pytest.raises(ValueError, match="another initializer of the label 'initx>HeScaled'"):
        compare(small, {"initx>HeScaled": "zeros"}, FEW, FEW, seeds=2, **arguments)
    for factor in (
        0.5,
        2.0,
    ):  # a callback changes what the training comes to, by its code or by what it holds

        def scheduled(trial, factor=factor):
            return [keras.callbacks.LearningRateScheduler(lambda _, rate: factor * rate)]

        other = arguments | {"store": tmp_path / "scheduled", "callbacks": scheduled}
        if factor == 0.5:
            compare(small, ["zeros"], FEW, FEW, seeds=1, **other)
            compare(small, ["zeros"], FEW, FEW, seeds=1, **other)
            assert len(made) == 7
    for callbacks in (scheduled, None, lambda trial: []):
        with pytest.raises(ValueError, match="or hold results of the same comparison"):
            compare(small, ["zeros"], FEW, FEW, seeds=1, **other | {"callbacks": callbacks})
    assert len(made) == 7


@pytest.mark.tensorflow  # its code is the same on each backend
def test_a_store_knows_callbacks_by_their_code_and_by_the_numbers_that_they_hold(tmp_path):
    seen = []

    def scheduled(factor):
        def callbacks(trial):
            seen.append(trial)  # what a callback gathers does not make it another one
            return [keras.callbacks.LearningRateScheduler(lambda _, rate: factor * rate)]

        return callbacks

    def run(callbacks):
        options = {"metric": "accuracy", "runner": QUIET, "store": tmp_path / "store"}
        compare(small, ["zeros"], FEW, FEW, seeds=1, callbacks=callbacks, **options)

    run(scheduled(0.5))
    run(scheduled(0.5))
    assert len(seen) == 1
    for other in (scheduled(2.0), None, lambda trial: []):
        with pytest.raises(ValueError, match="or hold results of the same comparison"):
            run(other)


@pytest.mark.tensorflow  # its code is the same on each backend
@pytest.mark.integration
def test_after_kill_9_the_same_command_makes_only_what_is_missing(tmp_path):
    code = f"""
import sys
sys.path[:0] = {[str(folder) for folder in pathlib.Path(__file__).parents[:2]]!r}
from test_compare import *
def log(trial):
    with open({str(tmp_path / "made")!r}, "a") as file:
        file.write(trial.key + "\\n")
    return []
print(compare(small, ["initx>HeScaled", "zeros"], FEW, FEW, seeds=4, metric="accuracy",
    runner=QUIET, callbacks=log, store={str(tmp_path / "store")!r}).to_json())
"""
    process = forked.Forked(["-c", code], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("store/????????????????.json"))) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = {path.stem for path in tmp_path.glob("store/????????????????.json")}
    (tmp_path / "made").unlink()
    done = forked.run(["-c", code], check=True)
    made = (tmp_path / "made").read_text().split()
    assert len(kept) + len(made) == 8
    assert not kept & set(made)
    assert len(json.loads(done.stdout)["results"]) == 8


def test_a_keras_file_is_a_model_and_data_may_be_functions(tmp_path):
    small().save(tmp_path / "model.keras")
    found = compare(
        tmp_path / "model.keras",
        {"mine": initx.initializers.HeScaled(gain=0.5), "built": None},
        lambda: FEW,
        lambda: FEW,
        test=FEW,
        seeds=2,
        learning_rates=[0.01],
        runner=QUIET,
    )
    assert [row.seeds for row in found.rows] == [2, 2]
    assert found.reported == "test"
    for result in found.results:
        assert result.test == pytest.approx(result.final, rel=1e-5)


def test_the_optimizer_of_a_trained_file_starts_anew(tmp_path):
    model = small()
    adam = keras.optimizers.Adam(0.01)
    model.compile(adam, "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=EAGERLY)
    model.save(tmp_path / "fresh.keras")
    model.fit(*FEW, verbose=0)
    model.save(tmp_path / "trained.keras")
    arguments = (["he_normal"], FEW, FEW)
    fresh, trained = (
        compare(tmp_path / f"{name}.keras", *arguments, seeds=2, runner=QUIET).results
        for name in ("fresh", "trained")
    )
    assert [one.curves for one in fresh] == [other.curves for other in trained]


REGISTERED = """
import keras

@keras.saving.register_keras_serializable("mine_alone")
class Thrice(keras.layers.Layer):
    def call(self, x):
        return 3 * x
"""


@pytest.mark.tensorflow  # its code is the same on each backend
def test_a_file_of_a_users_classes_is_built_in_a_process_that_has_not_imported_them(tmp_path):
    (tmp_path / "their_thrice.py").write_text(REGISTERED)
    made = (
        "import sys, pathlib, pickle, keras; sys.path.append('.')\n"
        "from their_thrice import Thrice\n"
        "from keras_initx.experiments._problem import FileModel\n"
        "keras.Sequential([keras.layers.Input((4,)), Thrice(), keras.layers.Dense(1)]).save('m.keras')\n"
        "found = FileModel.read(pathlib.Path('m.keras'))\n"
        "assert list(found.classes) == ['mine_alone>Thrice']\n"
        "pickle.dump(found, open('problem', 'wb'))\n"
    )
    read = (
        "import sys, pickle; sys.path.append('.')\n"
        "print(type(pickle.load(open('problem', 'rb'))().layers[0]).__name__)\n"
    )
    for code in (made, read):
        found = forked.run(["-c", code], cwd=tmp_path, check=True)
    assert found.stdout.splitlines()[-1] == "Thrice"


def test_reports_can_be_read_by_programs(comparison):
    assert json.loads(comparison.to_json())["rows"][0]["initializer"] == comparison.rows[0].initializer
    result = comparison.results[0]
    assert TrialResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    markdown = comparison.to_markdown()
    assert markdown.count("\n| ") == 4  # dashes and three rows
    assert "95 % interval" in str(comparison)
    assert dataclasses.is_dataclass(comparison)
    keys = {result.trial.key for result in comparison.results}
    assert len(keys) == 9


def test_a_data_frame_has_a_row_for_each_trial(comparison):
    table = comparison.to_dataframe("trials")
    assert len(table) == 9
    assert set(table["initializer"]) == {"initx>HeScaled", "zeros", "initx>LSUV"}


def test_without_pandas_the_error_names_the_extra(comparison, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"needs pandas\..*pip install 'keras-initx\[dataframe\]'"):
        comparison.to_dataframe()


def scheduled():
    return build(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5))


BAD = [
    ({"build_fn": build()}, "`build_fn` must be a function"),
    ({"build_fn": "model.h5"}, "or the path of a .keras file"),
    ({"build_fn": lambda: keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(2)])}, "compiled"),
    ({"initializers": []}, "at least one"),
    ({"initializers": "he_normal"}, "must be a list"),
    ({"initializers": ["initx>HeScald"]}, "initx>HeScaled"),
    ({"initializers": ["zeros", "zeros"]}, "must have different labels"),
    ({"train": None}, "`train` must be data"),
    ({"train": (TRAIN[0], TRAIN[1][:5])}, "`train` must hold arrays of one length"),
    ({"train": TRAIN[0]}, "`train` must have targets"),
    ({"train": (TRAIN[0].tolist(), TRAIN[1].tolist())}, "`train` must hold arrays, as `fit` takes them"),
    ({"train": (np.full_like(TRAIN[0], np.nan), TRAIN[1])}, "`train` must be finite"),
    ({"validation": (np.zeros((5, 3), "float32"), np.zeros(5))}, "`validation`"),
    ({"seeds": 0}, "`seeds`"),
    ({"seeds": [1, 1]}, "`seeds`"),
    ({"seeds": -1}, "`seeds`"),
    ({"learning_rates": []}, "`learning_rates`"),
    ({"learning_rates": [0.1, -1]}, "`learning_rates`"),
    ({"learning_rates": [0.1], "build_fn": scheduled}, "constant learning rate"),
    ({"epochs": 0}, "`epochs`"),
    ({"batch_size": True}, "`batch_size`"),
    ({"metric": "acuracy"}, "`metric` must be one of"),
    ({"mode": "up"}, "`mode`"),
    ({"runner": "slurm"}, "`runner` must be one of"),
    ({"runner": Sequential}, "`runner` must be one of"),
]


@pytest.mark.tensorflow  # its code is the same on each backend
@pytest.mark.parametrize(("changed", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_refused_before_anything_is_trained(changed, message, tmp_path):
    class Never:
        def run(self, problem, trials, keep):
            raise AssertionError("trained")

    arguments = {
        "build_fn": build,
        "initializers": ["zeros"],
        "train": TRAIN,
        "validation": VALIDATION,
        "metric": "accuracy",
        "runner": Never(),
        "store": tmp_path / "store",
        **changed,
    }
    with pytest.raises(ValueError, match=message):
        compare(**arguments)
    assert not (tmp_path / "store").exists()


@pytest.mark.tensorflow  # its code is the same on each backend
def test_a_store_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="`store` must be a folder that can be written"):
        compare(build, ["zeros"], TRAIN, VALIDATION, runner=QUIET, store=tmp_path / "file")


@pytest.mark.tensorflow  # its code is the same on each backend
def test_progress_is_a_line_on_stderr(capsys):
    compare(small, ["zeros"], FEW, FEW, seeds=2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "2 of 2 trials, 0 s left" in err
    assert "no estimate yet  zeros, seed 0" in err
