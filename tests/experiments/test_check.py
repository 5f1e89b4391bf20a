"""What is looked at before any trial: weights left trained, fixed batches, metrics of several numbers."""

import keras
import numpy as np
import pytest

from keras_initx.experiments import Sequential, TrialResult, compare
from keras_initx.experiments._run_trial import numbers_of

QUIET = Sequential(progress=False)
X = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
DATA = X, X[:, :1]


class Never:
    def run(self, problem, trials, keep):
        raise AssertionError("trained")


class Untrained:
    def run(self, problem, trials, keep):
        for trial in trials:
            keep(TrialResult(trial, final=0.0))


class Secretive(keras.layers.Layer):
    """Nothing tells how its weights begin: its argument is in no config and no attribute of its name."""

    def __init__(self, begin, **options):
        super().__init__(**options)
        self.hidden = begin

    def build(self, shape):
        self.mixing = self.add_weight(shape=(4,), initializer=self.hidden, name="mixing")
        self.zero = self.add_weight(shape=(4,), initializer="zeros", name="zero")

    def call(self, x):
        return x * self.mixing + self.zero

    def get_config(self):
        raise NotImplementedError


def built_from(begin):
    def build():
        model = keras.Sequential(
            [keras.layers.Input((4,)), Secretive(begin, name="own"), keras.layers.Dense(1)]
        )
        model.compile("sgd", "mse")
        return model

    return build


def trained(shape, dtype=None):
    return keras.ops.convert_to_tensor([0.3, -1.2, 0.7, 0.1], dtype)


def test_weights_that_start_trained_are_told_before_the_first_trial_and_in_the_table():
    with pytest.warns(UserWarning, match=r"own/mixing: not drawn anew"):
        found = compare(built_from(trained), ["zeros", "by_role"], DATA, DATA, seeds=1, runner=Untrained())
    assert [len(result.notes) for result in found.results] == [1, 1]
    assert "own/zero" not in found.results[0].notes[0]
    printed = str(found)
    assert printed.count("own/mixing: not drawn anew") == 1
    assert "Note: " in printed
    assert "pass a model that was not trained" in printed


@pytest.mark.filterwarnings("error:.*not drawn anew")
def test_what_a_build_draws_or_sets_to_one_number_is_no_trained_weight():
    for begin in (
        "glorot_uniform",
        "ones",
        keras.initializers.Constant(0.3),
    ):  # the cure, and two plain starts
        found = compare(built_from(begin), ["zeros"], DATA, DATA, seeds=1, runner=Untrained())
        assert not found.results[0].notes


@pytest.mark.filterwarnings("error:.*not drawn anew")
def test_frozen_weights_are_meant_to_stay():
    def build():
        model = built_from(trained)()
        model.get_layer("own").trainable = False
        model.compile("sgd", "mse")
        return model

    assert not compare(build, ["zeros"], DATA, DATA, seeds=1, runner=Untrained()).results[0].notes


def stateful():
    layers = [keras.layers.SimpleRNN(2, stateful=True), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input(batch_shape=(4, 3, 2)), *layers])
    model.compile("sgd", "mse")
    return model


SEQUENCES = np.random.default_rng(0).normal(size=(16, 3, 2)).astype("float32"), np.ones((16, 1), "float32")


def test_a_model_of_one_size_of_batch_is_compared_calibrated_and_diagnosed():
    found = compare(stateful, ["initx>LSUV"], SEQUENCES, SEQUENCES, seeds=1, batch_size=4, runner=QUIET)
    result = found.results[0]
    assert result.ended_well
    assert result.signal["loss"] > 0
    assert not result.notes


@pytest.mark.tensorflow  # its code is the same on each backend
@pytest.mark.parametrize(("size", "rows"), [(32, 16), (4, 14), (8, 16)])
def test_batches_of_another_size_are_refused_with_the_cure(size, rows):
    cut = tuple(leaf[:rows] for leaf in SEQUENCES)
    message = rf"`batch_size` must be 4.*Pass batch_size=4, and the first {rows - rows % 4} rows"
    with pytest.raises(ValueError, match=message):
        compare(stateful, ["zeros"], cut, SEQUENCES, seeds=1, batch_size=size, runner=Never())


def classes():
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2, "softmax")])
    metrics = ["accuracy", keras.metrics.F1Score(), keras.metrics.F1Score(average="macro", name="macro")]
    model.compile("sgd", "categorical_crossentropy", metrics=metrics)
    return model


LABELLED = X, np.eye(2, dtype="float32")[(X.sum(axis=1) > 0).astype(int)]


def test_a_metric_of_several_numbers_is_a_curve_for_each():
    found = compare(classes, ["zeros"], LABELLED, LABELLED, seeds=1, metric="macro", runner=QUIET)
    result = found.results[0]
    assert result.ended_well
    by_class = [result.curves[f"val_f1_score[{index}]"][0] for index in range(2)]
    assert np.mean(by_class) == pytest.approx(result.final)


def test_logs_are_numbers_whatever_holds_them():
    logs = {"loss": np.float32(0.5), "f1": keras.ops.convert_to_tensor([0.25, 1.0]), "accuracy": 1}
    assert numbers_of(logs) == {"loss": 0.5, "f1[0]": 0.25, "f1[1]": 1.0, "accuracy": 1.0}


@pytest.mark.tensorflow  # its code is the same on each backend
def test_a_metric_of_several_numbers_is_nothing_to_choose_by():
    with pytest.raises(
        ValueError, match=r"`metric` must be one number. Received: metric='f1_score', which is 2"
    ):
        compare(classes, ["zeros"], LABELLED, LABELLED, metric="f1_score", runner=Never())


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="needs JAX")
def test_all_of_it_holds_for_all_seeds_at_once():
    given = {"seeds": 2, "metric": "macro", "runner": "vectorized"}
    found = compare(classes, ["initx>LabelPrior"], LABELLED, LABELLED, **given)
    one = compare(classes, ["initx>LabelPrior"], LABELLED, LABELLED, **given | {"runner": QUIET})
    for result, other in zip(found.results, one.results, strict=True):
        assert result.curves.keys() == other.curves.keys()
        assert result.final == pytest.approx(other.final)
        assert (result.signal, result.notes) == (other.signal, other.notes)
