"""What `diagnose` saw of a model, and what it says of the rest."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.diagnostics import SignalError
from keras_initx.gradients import to_numpy, value_and_gradients
from support.zoo import ZOO, Cell, Convolutions, SwiGLU, batch_of, model_of


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


@pytest.mark.parametrize("name", ["attention", "fused", "swiglu", "backend", "low rank", "convolutions"])
def test_the_gradient_at_each_kernel_is_that_of_an_offset_from_outside(name):
    model, batch = model_of(ZOO[name]), batch_of(ZOO[name])
    own = model.layers[-1]
    initx.initialize(model, "by_role", seed=1)
    own.notes = {}
    outputs = to_numpy(model(batch))
    shapes = {key: value.shape for key, value in own.notes.items()}
    own.notes = None
    targets = ops.convert_to_tensor(np.random.default_rng(1).standard_normal(outputs.shape), "float32")
    report = initx.diagnose(model, batch, to_numpy(targets), "mse", training=False, try_cures=False)

    def loss(offsets):
        own.offsets = dict(zip(shapes, offsets, strict=True))
        return ops.mean(ops.square(model(batch) - targets))

    zeros = [ops.zeros(shape) for shape in shapes.values()]
    value, gradients = value_and_gradients(loss, zeros, nested=False)
    assert report.loss == pytest.approx(float(to_numpy(value)))
    seen = {row.path.rpartition("/")[2]: row.signal_gradient for row in report.rows}
    noted = {key: seen[key] for key in shapes if key in ZOO[name][2] and not ZOO[name][2][key][3]}
    assert noted == pytest.approx(
        {key: np.linalg.norm(to_numpy(g)) for key, g in zip(shapes, gradients, strict=True) if key in noted},
        rel=1e-4,
    )
    assert noted


def twin(own, shape):
    """The same layer, made of layers of Keras."""
    inputs = layers.Input(shape)
    made = {}

    def layer(kind, name, *args, **options):
        made[name] = kind(*args, name=name, use_bias=name == "plain", **options)
        return made[name]

    if isinstance(own, SwiGLU):
        gate = layer(layers.Dense, "gate", 48, activation="silu")(inputs)
        up = layer(layers.Dense, "up", 48)(inputs)
        outputs = inputs + layer(layers.Dense, "down", shape[-1])(layers.multiply([gate, up]))
    else:
        x = layer(layers.Conv2D, "plain", 8, 3, padding="same", activation="relu")(inputs)
        x = layer(layers.DepthwiseConv2D, "deep", 3, depth_multiplier=2, padding="same")(x)
        outputs = layer(layers.Conv2DTranspose, "back", 5, 3, strides=2, padding="same")(x)
    model = keras.Model(inputs, outputs)
    for name, one in made.items():
        one.kernel.assign(getattr(own, name).value)
    return model


@pytest.mark.parametrize(("kind", "shape"), [(SwiGLU, (6, 32)), (Convolutions, (8, 8, 4))])
def test_a_layer_by_hand_has_the_rows_of_the_same_layer_of_keras(kind, shape):
    own = kind(name="own")
    model = keras.Sequential([layers.Input(shape), own])
    initx.initialize(model, "by_role", seed=1)
    batch = np.random.default_rng(0).standard_normal((32, *shape)).astype("float32")
    reports = [
        initx.diagnose(one, batch, seed=1, training=False, try_cures=False)
        for one in (model, twin(own, shape))
    ]
    columns = (
        "forward_gain", "backward_gain", "signal_gradient", "gradient_std", "chi", "preactivation_std",
        "activation_std", "dead", "units",
    )  # fmt: skip
    rows = [
        {
            row.path.rpartition("/")[2]: {
                name: value for name in columns if (value := getattr(row, name)) is not None
            }
            for row in report.rows
        }
        for report in reports
    ]
    said = [[(row.path.rpartition("/")[2], row.role, row.note) for row in report.rows] for report in reports]
    assert said[0] == said[1]
    for name in rows[0]:
        assert rows[0][name] == pytest.approx(rows[1][name], rel=1e-3), name
    totals = [{"forward": r.forward_gain, "backward": r.backward_gain, "loss": r.loss} for r in reports]
    known = [{name: value for name, value in one.items() if value is not None} for one in totals]
    assert known[0] == pytest.approx(known[1], rel=1e-3)


class Stopped(SwiGLU):
    """Nothing differentiates its weights."""

    def call(self, x):
        gate, up, down = map(ops.stop_gradient, (self.gate, self.up, self.down))
        return (ops.silu(x @ gate) * (x @ up)) @ down


@pytest.mark.parametrize("frozen", [False, True])
def test_a_gradient_behind_stopped_or_frozen_weights_is_measured(frozen):
    own = SwiGLU(name="own", trainable=False) if frozen else Stopped(name="own")
    model = keras.Sequential([layers.Input((6, 32)), own])
    initx.initialize(model, "by_role", seed=1)
    batch = np.random.default_rng(0).standard_normal((32, 6, 32)).astype("float32")
    report = initx.diagnose(model, batch, np.zeros((32, 6, 32), "float32"), "mse", try_cures=False)
    # The gradient of the mean square at the output is 2 / size of the output times the output.
    outputs = to_numpy(model(batch))
    rows = {row.path: row for row in report.rows}
    length = 2 * np.linalg.norm(outputs) / outputs.size
    assert rows["own/down"].signal_gradient == pytest.approx(length, rel=1e-4)
    assert rows["own/gate"].signal_gradient > 0
    if not frozen:
        assert {row.gradient_std for row in report.rows} == {0.0}
        assert "no_gradient" in {verdict.kind for verdict in report.verdicts}


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
