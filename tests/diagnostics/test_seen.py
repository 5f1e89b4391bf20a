"""What `diagnose` saw of a model, and what it says of the rest."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx.diagnostics import SignalError
from support.zoo import Cell, SwiGLU


def model_with(own):
    return keras.Sequential([layers.Input((6, 32)), own, layers.Dense(4, name="head")])


def test_the_signal_of_layers_by_hand_is_that_of_a_probe_from_outside():
    own = SwiGLU(name="own")
    model = model_with(own)
    batch = np.random.default_rng(0).standard_normal((64, 6, 32)).astype("float32")
    initx.initialize(model, "by_role", seed=1)
    report = initx.diagnose(model, batch, seed=1, training=False)
    own.notes = {}
    model(batch)
    rows = {row.path: row for row in report.rows}
    for name in ("gate", "up", "down"):
        row = rows[f"own/{name}"]
        noted = np.sqrt((own.notes[name] ** 2).mean())
        assert row.forward_gain * row.expected_std == pytest.approx(noted, rel=1e-3)
    assert (report.seen, report.unseen) == (1.0, ())
    report.check(max_gain=3.0)


def test_nothing_changes_in_a_model_with_noise_and_layers_by_hand():
    inputs = layers.Input((6, 32))
    x = layers.BatchNormalization()(SwiGLU(name="own")(layers.Dropout(0.3, seed=1)(inputs)))
    model = keras.Model(inputs, layers.Dense(4)(layers.Dropout(0.3, seed=2)(x)))
    before = [np.array(keras.ops.convert_to_numpy(v.value)) for v in model.variables]
    reports = [initx.diagnose(model, seed=1) for _ in range(2)]
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable.value), value, variable.path)
    assert [row.forward_gain for row in reports[0].rows] == [row.forward_gain for row in reports[1].rows]


def test_what_was_not_seen_is_said_and_fails_the_check():
    model = model_with(layers.RNN(Cell(32), return_sequences=True, name="own"))
    batch = np.random.default_rng(0).standard_normal((64, 6, 32)).astype("float32")
    initx.initialize(model, "by_role", seed=1)
    report = initx.diagnose(model, batch, seed=1)
    assert sorted(path.rpartition("/")[2] for path in report.unseen) == ["back", "inner"]
    assert report.seen == pytest.approx(128 / (128 + 2 * 1024))
    assert "saw 1 of 3 kernels, 5 % of their parameters; not own/" in str(report)
    with pytest.raises(SignalError, match=r"saw 1 of 3 kernels.* min_seen=0.05 to allow it"):
        report.check(max_gain=None, max_verdicts=None)
    report.check(max_gain=None, max_verdicts=None, min_seen=0.05)
    for wrong in (-0.1, 1.5, None, "all"):
        with pytest.raises(ValueError, match="`min_seen` must be a number from 0 to 1. Received"):
            report.check(min_seen=wrong)
