"""A trial's start: every law is applied, and a diagnosis that fails is a missing one."""

import keras
import numpy as np
import pytest

import keras_initx as initx
from keras_initx.calibration import is_law
from keras_initx.experiments import Sequential, TrialResult, compare
from keras_initx.experiments._prepare import prepare
from keras_initx.experiments._problem import build_model
from keras_initx.initializers import LSUV, LabelPrior, PCAFilters
from keras_initx.strategies import ByRole, Draw

QUIET = Sequential(progress=False)
DATA = np.random.default_rng(0).normal(size=(64, 6)).astype("float32"), np.arange(64, dtype="int32") % 4 // 3
METHODS = {"filters", "means", "rescale", "search", "solve"}  # by which a law turns data into weights
LAWS = [name for name in initx.initializers.names() if METHODS & set(dir(initx.initializers.get(name)))]


def build(hidden="glorot_uniform", bias="zeros"):
    layers = [
        keras.layers.Dense(5, "tanh", kernel_initializer=hidden, name="first"),
        keras.layers.Dense(4, "tanh", kernel_initializer=hidden, name="second"),
        keras.layers.Dense(2, "softmax", bias_initializer=bias, name="head"),
    ]
    model = keras.Sequential([keras.layers.Input((6,)), *layers])
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    return model


class Starts:
    """Prepares the trials and keeps their weights; it trains none."""

    def run(self, problem, trials, keep):
        self.problem, self.weights = problem, {}
        for trial in trials:
            ready = prepare(problem, trial)
            self.weights[trial.initializer] = ready.model.get_weights()
            keep(TrialResult(trial, final=0.0, signal=ready.findings.signal, notes=ready.findings.notes))


def starts(initializers, build_fn=build):
    runner = Starts()
    found = compare(build_fn, initializers, DATA, DATA, seeds=[3], runner=runner)
    return runner, {result.trial.initializer: result for result in found.results}


def by_hand(problem, initializer, *laws):
    """The weights of the model that a user initializes and calibrates without `compare`."""
    model = build_model(problem, 3)
    initx.initialize(model, initializer, seed=3)
    drawn = model.get_weights()
    for law in laws:
        initx.calibrate(model, DATA, law, seed=3)
    return model.get_weights(), drawn


def short(name):
    """The law, with a search of few steps."""
    law = initx.initializers.get(name)
    config = law.get_config()
    return law.from_config(config | {"steps": 3}) if "steps" in config else law


def assert_equal(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def apart(one, other):
    return max(np.abs(a - b).max() for a, b in zip(one, other, strict=True))


def test_what_needs_data_is_told_by_one_function():
    assert len(LAWS) >= 9
    laws = [name for name in initx.initializers.names() if is_law(initx.initializers.get(name))]
    adapters = ["initx>EVA", "initx>LoRAGA"]  # which this model does not have
    assert [name for name in laws if name not in adapters] == LAWS
    with pytest.raises(ValueError, match="must be a data-dependent law") as refused:
        initx.calibrate(build(), DATA, "he_normal")
    assert all(f"'{name}'" in str(refused.value) for name in LAWS)


def test_every_registered_law_is_applied_to_the_model_of_a_trial():
    runner, results = starts({name: short(name) for name in LAWS})
    for name in LAWS:
        for_heads = name in ("initx>ClassMeans", "initx>LabelPrior", "initx>LinearProbe")
        base = None if for_heads else short(name)
        wanted, drawn = by_hand(runner.problem, base, short(name))
        assert_equal(runner.weights[name], wanted)
        assert apart(runner.weights[name], drawn) > 1e-3, name
        assert not results[name].notes
        assert not results[name].failure


def test_a_prior_of_labels_leaves_kernels_to_their_layers_and_predicts_the_frequencies():
    runner, _ = starts(["initx>LabelPrior"])
    weights = runner.weights["initx>LabelPrior"]
    assert all(np.abs(kernel).max() > 0.1 for kernel in weights[::2])
    model = build()
    model.set_weights(weights)
    means = keras.ops.convert_to_numpy(
        keras.ops.softmax(np.mean(np.log(keras.ops.convert_to_numpy(model(DATA[0]))), axis=0))
    )
    # 16 of 64 rows are of class 1, and one example of each is added
    np.testing.assert_allclose(means[1], 17 / 66, atol=0.01)


class Mixed:
    """A strategy that has a law for one kernel, and no word for the head."""

    def plan(self, sites, model=None):
        first, second = (next(site for site in sites if site.path == path) for path in ("first", "second"))
        return {first: Draw(PCAFilters()), second: ByRole().plan(sites)[second]}


@pytest.mark.tensorflow  # its code is the same on each backend
def test_laws_that_a_strategy_or_a_layer_names_are_applied_and_no_others():
    def with_laws():
        return build(LSUV(), LabelPrior())

    runner, results = starts(
        {
            "own": None,
            "he": "he_normal",
            "mixed": Mixed(),
            "filters": {"class_name": "initx>PCAFilters", "config": {}},
        },
        with_laws,
    )
    own, drawn = by_hand(runner.problem, None, None)
    assert_equal(runner.weights["own"], own)
    assert apart(own, drawn) > 1e-3
    he, drawn = by_hand(runner.problem, "he_normal")
    assert_equal(runner.weights["he"][:5], he[:5])  # kernels are those of the initializer, uncalibrated
    assert not drawn[5].any()
    assert runner.weights["he"][5].any()  # the bias is the layer's own, with its prior
    filters = runner.weights["filters"]
    assert_equal(runner.weights["mixed"][:1], filters[:1])
    assert apart(runner.weights["mixed"][2:3], filters[2:3]) > 1e-3
    assert filters[5].any()
    assert not any(result.notes for result in results.values())


@pytest.mark.tensorflow  # its code is the same on each backend
def test_a_kernel_that_a_law_cannot_be_applied_to_is_told():
    def looked_up():
        layers = [keras.layers.Embedding(9, 4, name="words"), keras.layers.Flatten(), keras.layers.Dense(2)]
        model = keras.Sequential([keras.layers.Input((6,)), *layers])
        model.compile("sgd", "mse")
        return model

    data = np.arange(192).reshape(32, 6) % 9, np.zeros((32, 2), "float32")
    found = compare(looked_up, ["initx>PCAFilters"], data, data, seeds=1, runner=Starts())
    (note,) = found.results[0].notes
    assert note.startswith("not calibrated: words/embeddings (filters are for dense layers")
    assert f"Note: {note}" in str(found)
    assert note in found.to_markdown()


def test_a_diagnosis_that_fails_is_missing_and_the_trial_goes_on(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("a view is modified in place")

    monkeypatch.setattr("keras_initx.experiments._prepare.diagnose", fail)
    found = compare(build, ["zeros"], DATA, DATA, seeds=2, runner=QUIET)
    assert all(result.ended_well and result.signal is None for result in found.results)
    reason = "not diagnosed: RuntimeError: a view is modified in place"
    assert [result.notes for result in found.results] == [(reason,)] * 2
    assert str(found).count(reason) == 1
    assert found.rows[0].failed == 0


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="needs torch")
def test_a_model_that_changes_an_activation_in_place_is_compared():
    class Added(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = keras.layers.Dense(6)

        def call(self, x):
            y = self.inner(x)
            y += x
            return y

    def in_place():
        model = keras.Sequential([keras.layers.Input((6,)), Added(), keras.layers.Dense(2, "softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    found = compare(in_place, ["he_normal"], DATA, DATA, seeds=1, runner=QUIET)
    assert found.results[0].ended_well
