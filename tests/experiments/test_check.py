"""What is looked at before any trial: weights left trained, fixed batches, metrics of several numbers."""

import keras
import numpy as np
import pytest

from keras_initx.experiments import Sequential, TrialResult, compare
from keras_initx.experiments._run_trial import numbers_of

QUIET = Sequential(progress=False)
EAGERLY = keras.backend.backend() == "tensorflow"  # which is faster for a few steps
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
    """Nothing tells how its weights begin: they are made from tensors, and it has no config.

    Args:
        begin: Returns a tensor of a shape.
    """

    def __init__(self, begin, shape, **options):
        super().__init__(**options)
        self.mixing = keras.Variable(begin(shape), name="mixing")
        self.zero = keras.Variable(keras.ops.zeros((4,)), name="zero")

    def call(self, x):
        return (x * self.mixing if len(self.mixing.shape) == 1 else x @ self.mixing) + self.zero

    def get_config(self):
        raise NotImplementedError


def built_from(begin, shape=(4,)):
    def build():
        own = Secretive(begin, shape, name="own")
        model = keras.Sequential([keras.layers.Input((4,)), own, keras.layers.Dense(1, name="head")])
        model.compile("sgd", "mse")
        return model

    return build


def trained(shape):
    return keras.random.normal(shape, seed=1)


def test_a_scale_that_starts_trained_is_told_before_the_first_trial_and_in_the_table():
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
    for begin in (keras.random.normal, keras.ops.ones, lambda shape: keras.ops.full(shape, 0.3)):
        found = compare(built_from(begin), ["zeros"], DATA, DATA, seeds=1, runner=Untrained())
        assert not found.results[0].notes


def test_kernels_that_start_trained_are_refused_with_the_cure():
    message = (
        r"`build_fn` must return a model whose kernels can be drawn anew, or are frozen. Received: "
        r"own/mixing \(80% of the parameters of all kernels\), which as built would leave with values.*"
        r"`add_weight\(initializer=...\)`, or freeze the layer"
    )
    with pytest.raises(ValueError, match=message), pytest.warns(UserWarning, match="left 2 of 4 weights"):
        compare(built_from(trained, (4, 4)), ["by_role", None], DATA, DATA, runner=Never())
    # `by_role` knows the fans of a product by hand, and draws it. So does a build that draws.
    with pytest.warns(UserWarning, match="left 1 of 4 weights"):
        compare(built_from(trained, (4, 4)), ["by_role"], DATA, DATA, seeds=1, runner=Untrained())
    with pytest.warns(UserWarning, match="left 2 of 4 weights"):
        compare(built_from(keras.random.normal, (4, 4)), [None], DATA, DATA, seeds=1, runner=Untrained())


@keras.saving.register_keras_serializable("tests")
class Remembering(keras.layers.Layer):
    """Its config holds what it has learned, so that its file does, too."""

    def __init__(self, values, **options):
        super().__init__(**options)
        self.mixing = keras.Variable(np.asarray(values, "float32"), name="mixing")

    def call(self, x):
        return x @ self.mixing

    def get_config(self):
        return super().get_config() | {"values": keras.ops.convert_to_numpy(self.mixing.value).tolist()}


def test_a_file_is_refused_if_its_config_holds_trained_kernels(tmp_path):
    own = Remembering(np.eye(4), name="own")
    model = keras.Sequential([keras.layers.Input((4,)), own, keras.layers.Dense(1, name="head")])
    model.compile("sgd", "mse", run_eagerly=EAGERLY)
    model.fit(*DATA, verbose=0)
    path = tmp_path / "trained.keras"
    model.save(path)
    # After `by_role` the config differs from the weight: the second initializer must not take it for a draw.
    with (
        pytest.warns(UserWarning, match="left 1 of 3"),
        pytest.raises(ValueError, match=r"own/mixing \(80%"),
    ):
        compare(path, ["by_role", None], DATA, DATA, runner=Never())
    own.trainable = False  # a frozen backbone is meant to stay
    model.compile("sgd", "mse")
    model.save(path)
    found = compare(path, ["by_role", None], DATA, DATA, seeds=1, runner=Untrained())
    assert not found.results[0].notes
    first, *_ = str(found).splitlines()
    assert first == "drawn by by_role, as built: 1 of 2 kernels, 20 % of their parameters; not own/mixing"
    assert found.drawn["by_role"].share == pytest.approx(0.2)


@keras.saving.register_keras_serializable("tests")
class ByHand(keras.layers.Layer):
    def build(self, shape):
        self.mixing = self.add_weight(shape=(shape[-1], shape[-1]), name="mixing")

    def call(self, x):
        return x @ self.mixing


def test_trials_of_a_trained_file_start_where_trials_of_a_fresh_model_start(tmp_path):
    def build():
        own = ByHand(name="own")
        model = keras.Sequential([keras.layers.Input((4,)), own, keras.layers.Dense(1, name="head")])
        model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=EAGERLY)
        return model

    path = tmp_path / "trained.keras"
    model = build()
    model.fit(*DATA, epochs=5, verbose=0)
    model.save(path)
    given = {"seeds": 2, "runner": QUIET}
    fresh, loaded = (compare(one, ["by_role", None], DATA, DATA, **given) for one in (build, path))
    for one, other in zip(fresh.results, loaded.results, strict=True):
        assert one.final == pytest.approx(other.final, rel=1e-5)


@pytest.mark.tensorflow  # its code is the same on each backend
def test_it_says_first_how_much_each_initializer_draws(capsys):
    compare(classes, ["zeros", "by_role"], LABELLED, LABELLED, seeds=1, metric="macro")
    told = capsys.readouterr().err.split("\n")
    assert told[0] == "drawn by zeros, by_role: 1 of 1 kernels, 100 % of their parameters"
    assert "trials" in told[1]
    found = compare(classes, ["zeros"], LABELLED, LABELLED, seeds=1, metric="macro", runner=QUIET)
    assert capsys.readouterr().err == ""
    assert not str(found).startswith("drawn")


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
    model.compile("sgd", "categorical_crossentropy", metrics=metrics, run_eagerly=EAGERLY)
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
