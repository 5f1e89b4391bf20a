"""What a report says and how: table, JSON, HTML, limits."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx.diagnostics import SignalError

X = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")


@pytest.fixture(scope="module")
def report():
    model = keras.Sequential(
        [layers.Input((8,)), layers.Dense(8, "relu", name="a<b"), layers.Dense(1, name="head")]
    )
    initx.initialize(model, "by_role", seed=1)
    return initx.diagnose(model, X, seed=0, jacobian=True)


@pytest.mark.tensorflow
def test_the_table_has_a_line_for_each_kernel(report):
    lines = str(report).splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["path", "a<b", "head"]
    assert "2 kernels on 16 rows" in str(report)
    assert "no verdicts" in str(report)


@pytest.mark.tensorflow
def test_json_and_dict_hold_everything(report):
    found = json.loads(report.to_json())
    assert [row["path"] for row in found["rows"]] == ["a<b", "head"]
    assert found["jacobian"]["outputs"] == 1
    assert set(report.to_dict()) == set(report.__dataclass_fields__)


@pytest.mark.tensorflow
def test_html_is_escaped(report):
    page = report._repr_html_()
    assert "a&lt;b" in page
    assert "a<b" not in page


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "limit", ["max_gain", "max_dead", "max_saturated", "max_update_ratio", "max_verdicts"]
)
def test_limits_must_be_numbers(report, limit):
    with pytest.raises(ValueError, match=f"`{limit}` must be"):
        report.check(**{limit: "2"})
    with pytest.raises(ValueError, match=f"`{limit}` must be"):
        report.check(**{limit: -1})


def test_a_report_without_faults_passes(report):
    report.check()
    report.check(max_verdicts=0)


def stalled():
    """Glorot's law on ReLU: each layer halves the variance, which is no fault of any one."""
    model = keras.Sequential(
        [layers.Input((8,)), *(layers.Dense(64, "relu", name=f"h{n}") for n in range(30))]
    )
    initx.initialize(model, "glorot_normal", seed=0)
    return initx.diagnose(model, X, seed=0, try_cures=False)


@pytest.mark.tensorflow
def test_a_verdict_fails_the_check_unless_it_is_allowed():
    report, rows = stalled(), {"max_gain": None, "max_dead": None}
    assert [verdict.kind for verdict in report.verdicts] == ["forward", "backward"]
    with pytest.raises(SignalError, match="the signal shrinks by"):
        report.check()
    with pytest.raises(SignalError, match="the gradient shrinks by") as caught:
        report.check(**rows, allow="forward")
    assert caught.value.rows == ()
    with pytest.raises(SignalError, match="max_verdicts=1"):
        report.check(**rows, max_verdicts=1)
    for allowed in ({"allow": ("backward", "forward")}, {"max_verdicts": 2}, {"max_verdicts": None}):
        report.check(**rows, **allowed)
    with pytest.raises(
        ValueError,
        match=r"`allow` must hold kinds of verdicts, from \['adapter', 'backward', .*allow='small'",
    ):
        report.check(allow="small")


@pytest.mark.tensorflow
def test_equal_kernels_break_any_limit_unless_they_are_allowed():
    model = keras.Sequential([layers.Input((8,)), layers.Dense(8), layers.Dense(8)])
    initx.initialize(model, "by_role", seed=1)
    model.layers[1].kernel.assign(model.layers[0].kernel.value)
    report = initx.diagnose(model, X, seed=0)
    with pytest.raises(SignalError, match="perfectly correlated"):
        report.check(max_gain=None, max_verdicts=None)
    report.check(max_gain=None, allow="duplicate")


@pytest.mark.tensorflow
def test_no_verdicts_promises_nothing_of_the_learning_rate(report):
    assert str(report).splitlines()[-1].startswith("no verdicts; nothing is known of the learning rate")
    model = keras.Sequential([layers.Input((8,)), layers.Dense(8, "relu"), layers.Dense(8)])
    initx.initialize(model, "by_role", seed=1)
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    *_, totals, last = str(initx.diagnose(model, X, np.ones((16, 8)), seed=0)).splitlines()
    kept = int(totals.split("a step keeps ")[1].split("%")[0])
    assert 90 <= kept <= 101  # nearly all, at so small a rate
    assert last == "no verdicts; the learning rate is known to suit the first step only"


def test_limits_that_are_broken_name_the_rows():
    model = keras.Sequential([layers.Input((8,)), *(layers.Dense(64, name=f"h{n}") for n in range(3))])
    initx.initialize(model, "by_role", seed=1)
    model.get_layer("h1").kernel.assign(4 * model.get_layer("h1").kernel.value)
    report = initx.diagnose(model, X, seed=0)
    with pytest.raises(SignalError, match="h1: forward_gain") as caught:
        report.check(max_gain=2.0)
    assert [row.path for row in caught.value.rows] == ["h1"]
    # Four times too large is no verdict by itself: sixteen is.
    report.check(max_gain=8.0)
    report.check(max_gain=None)
