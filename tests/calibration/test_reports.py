"""What a user is told: which arguments are refused, what was ranked, what was left and why."""

import re

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx.initializers import BetweenLayer, GradInit, ModelLaw


def mlp(**options):
    hidden = [layers.Dense(6, "relu", name=f"hidden_{n}", **options) for n in range(4)]
    model = keras.Sequential([layers.Input((8,)), *hidden, layers.Dense(3, name="head", **options)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.fixture
def pair(rng):
    return rng.normal(size=(60, 8)).astype("float32"), rng.integers(0, 3, 60)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"redraw": "no"}, "`redraw` must be True or False. Received: redraw='no'"),
        ({"frozen": "False"}, "`frozen` must be True or False"),
        ({"training": None}, "`training` must be True or False"),
        ({"include": 5}, "`include` must hold roles, or patterns.* Received: 5"),
        ({"exclude": 0}, "`exclude` must hold roles, or patterns"),
        ({"initializer": 5}, "`initializer` must be a data-dependent law.* Received: 5"),
        ({"initializer": ["initx>LSUV"]}, "`initializer` must be a data-dependent law"),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused_by_name(options, message, pair):
    with pytest.raises(ValueError, match=message):
        initx.calibrate(mlp(), pair, **options)


def test_a_model_without_weights_is_not_asked_to_be_built():
    model = keras.Sequential([layers.Input((8,)), layers.ReLU()])
    with pytest.raises(ValueError, match="built=True. None of its layers has a weight"):
        initx.calibrate(model, None)


def test_the_report_tells_what_the_search_ranked(pair):
    report = initx.calibrate(mlp(), pair, GradInit(steps=3, max_norm=1e-3))
    assert list(report.ranked) == ["norm beyond its bound", "loss after a step"]
    assert report.ranked["loss after a step"] == report.objective
    start, end = report.ranked["norm beyond its bound"]
    assert 0 < end < start
    assert f"objective (norm beyond its bound, then loss after a step) {start:.4g}, " in str(report)
    report = initx.calibrate(mlp(), pair, BetweenLayer(steps=2))
    assert report.ranked == {"objective": report.objective}
    assert re.search(r"\nobjective [\d.e-]+ to [\d.e-]+ in 2 steps$", str(report))


def test_values_that_a_law_has_no_names_for_are_numbered(pair):
    class Unnamed(ModelLaw):
        needs = frozenset({"gradients", "inputs"})

        def search(self, task):
            yield np.ones(len(task.weights)), (1.0, 2.0)

    assert initx.calibrate(mlp(), pair, Unnamed()).ranked == {"0": (1.0, 1.0), "1": (2.0, 2.0)}


def test_kernels_of_one_reason_are_told_of_together(pair):
    with pytest.warns(UserWarning, match="may be off their target") as caught:
        report = initx.calibrate(mlp(use_bias=False), pair, "initx>WithinLayer")
    [warning] = [str(w.message) for w in caught if "off their target" in str(w.message)]
    assert report.calibrated == 5
    assert "`hidden_0`, `hidden_1`, `hidden_2` and 2 more: it has no bias" in warning
    assert warning.startswith("5 of 5 kernels were left as they are or may be off")


class Untouched(ModelLaw):
    needs = frozenset({"gradients", "inputs"})

    def search(self, task):
        raise AssertionError("ran in vain")


@pytest.mark.parametrize("law", ["initx>LSUV", Untouched()])
def test_a_model_that_is_frozen_as_a_whole_is_told_of(law, pair):
    model = mlp()
    model.trainable = False
    with pytest.warns(UserWarning, match="5 of 5 kernels were left as they are .*: frozen"):
        report = initx.calibrate(model, pair, law)
    assert report.calibrated == 0


@pytest.mark.parametrize("law", ["initx>LSUV", "initx>BetweenLayer"])
@pytest.mark.parametrize(("size", "note"), [(0.0, "constant on this data"), (1e-30, "too small")])
def test_data_without_a_variance_is_told_of_by_every_law(law, size, note, pair):
    x = size * pair[0]
    with pytest.warns(UserWarning, match=note):
        report = initx.calibrate(mlp(), x, law)
    assert report.calibrated == 0


def test_data_whose_variance_overflows_is_to_be_scaled(pair):
    with pytest.raises(ValueError, match="`data` must keep every pre-activation finite.*Scale `data`"):
        initx.calibrate(mlp(), 1e30 * pair[0])


def test_the_report_says_first_what_it_could_not_calibrate(pair):
    model = mlp()
    model.layers[0].trainable = False  # on purpose, so it does not count
    whole = initx.calibrate(model, pair)
    assert (whole.unseen, whole.seen) == ((), 1.0)
    assert not str(whole).startswith("saw")
    model.layers[1].kernel.assign(np.zeros((6, 6)))
    with pytest.warns(UserWarning, match="kernels were left"):
        report = initx.calibrate(model, pair)
    # All that comes after a constant is constant.
    assert report.unseen == ("hidden_1", "hidden_2", "hidden_3", "head")
    assert report.seen == pytest.approx(48 / (48 + 3 * 36 + 18))
    told = "saw 1 of 5 kernels, 27 % of their parameters; not hidden_1, hidden_2, hidden_3 and 1 more\n"
    assert str(report).startswith(told)
    assert report.to_dict()["unseen"] == list(report.unseen)
