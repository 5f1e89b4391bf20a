"""Recurrent layers within models: each gate at the law's std, confirmed by runs of the calibrated model."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx import probe, recurrence
from keras_initx.initializers import LSUV

SHAPES = {"sequence": (6, 5), "video": (4, 6, 6, 2)}


def owners(model):
    return [layer for layer in model._flatten_layers() if hasattr(layer, "cell")]


def gate_stds(model, inputs):
    """The stds of the gates of each recurrent layer, on what reaches it in the calibrated model."""
    found = {}

    def before(layer, x, initial_state=None, mask=None, training=None):
        cells, x = getattr(layer.cell, "cells", [layer.cell]), ops.convert_to_tensor(x)
        if len(cells) == 1:
            found[layer.name] = recurrence.gate_stds(cells[0], x, go_backwards=layer.go_backwards, mask=mask)[
                1
            ]

    hooks = [(layer, lambda *a, layer=layer, **k: before(layer, *a, **k)) for layer in owners(model)]
    probe.run(model, inputs, [], None, before=hooks)
    return found


def model_of(kind, make):
    x = inputs = layers.Input(SHAPES[kind])
    if kind == "sequence":
        x = layers.Dense(7, "relu", name="first")(x)
    x = make(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(x)))


MODELS = {
    "rnn": ("sequence", lambda x: layers.SimpleRNN(8, return_sequences=True)(x)),
    "relu": ("sequence", lambda x: layers.SimpleRNN(8, activation="relu")(x)),
    "lstm": ("sequence", lambda x: layers.LSTM(8)(layers.LSTM(9, return_sequences=True)(x))),
    "gru": ("sequence", lambda x: layers.GRU(8)(x)),
    "gru before": ("sequence", lambda x: layers.GRU(8, reset_after=False, go_backwards=True)(x)),
    "cell": ("sequence", lambda x: layers.RNN(layers.LSTMCell(8))(x)),
    "both ways": ("sequence", lambda x: layers.Bidirectional(layers.GRU(8))(x)),
    "convolutional": ("video", lambda x: layers.ConvLSTM2D(4, 3, padding="same")(x)),
}


# The draw knows no backend: elsewhere than on TensorFlow each is calibrated as it is, and one is redrawn.
@pytest.mark.parametrize(
    ("name", "redraw"),
    [
        *((name, False) for name in MODELS),
        *(pytest.param(n, True, marks=() if n == "rnn" else pytest.mark.tensorflow) for n in MODELS),
    ],
)
def test_each_gate_is_within_the_tolerance_and_all_else_is_exact(name, redraw, rng):
    model = model_of(*MODELS[name])
    x = rng.normal(1, 2, size=(24, *model.input_shape[1:])).astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        report = initx.calibrate(model, x, LSUV(), redraw=redraw, seed=1, tolerance=0.05)
    found = gate_stds(model, x)
    assert len(found) == len(owners(model)) > 0
    for layer, stds in found.items():
        np.testing.assert_allclose(stds, 1, rtol=0.05, err_msg=layer)
    exact = probe.preactivation_std(model, x)
    assert exact == pytest.approx(dict.fromkeys(exact, 1), rel=2e-3)
    rows = [row for row in report.rows if row.role in ("gates", "dense", "recurrent") and "cell" in row.path]
    assert len(rows) == 2 * len(found)
    for row in rows:
        assert row.std_after == pytest.approx(1, rel=0.05)
        assert row.iterations >= 1
        assert row.note == ""
    assert report.forward_passes == 1
    assert np.isfinite(ops.convert_to_numpy(model(x))).all()


def test_the_kernels_of_a_gate_and_its_bias_have_one_factor(rng):
    model = model_of("sequence", lambda x: layers.GRU(8, bias_initializer="random_normal", name="g")(x))
    cell = model.get_layer("g").cell
    before = [ops.convert_to_numpy(v).copy() for v in (cell.kernel, cell.recurrent_kernel, cell.bias)]
    initx.calibrate(model, rng.normal(1, 2, size=(24, 6, 5)).astype("float32"), tolerance=0.05)
    after = [ops.convert_to_numpy(v) for v in (cell.kernel, cell.recurrent_kernel, cell.bias)]
    ratios = [(new / old).reshape(-1, 3, 8) for new, old in zip(after, before, strict=True)]
    for gate in range(3):
        factors = np.concatenate([ratio[:, gate].ravel() for ratio in ratios])
        np.testing.assert_allclose(factors, factors[0], rtol=1e-4)


def test_stacked_cells_each_on_its_predecessor(rng):
    cells = [layers.LSTMCell(8), layers.GRUCell(7)]
    model = model_of("sequence", lambda x: layers.RNN(cells, name="stack")(x))
    x = rng.normal(1, 2, size=(24, 6, 5)).astype("float32")
    report = initx.calibrate(model, x, tolerance=0.05)
    steps = ops.convert_to_numpy(model.get_layer("first")(x))
    np.testing.assert_allclose(recurrence.gate_stds(cells[0], steps)[1], 1, rtol=0.05)
    inner = layers.RNN(cells[0], return_sequences=True)(steps)
    np.testing.assert_allclose(recurrence.gate_stds(cells[1], inner)[1], 1, rtol=0.05)
    assert len({row.path for row in report.rows}) == 6


def test_masked_steps_do_not_count(rng):
    tokens = rng.integers(1, 20, size=(24, 8))
    tokens[:, 5:] = 0
    x = inputs = layers.Input((8,), dtype="int32")
    x = layers.Embedding(20, 6, mask_zero=True, name="embed")(x)
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.GRU(5, name="gru")(x)))
    initx.calibrate(model, tokens, tolerance=0.05)
    embedded = model.get_layer("embed")(tokens)
    stds = recurrence.gate_stds(model.get_layer("gru").cell, embedded, mask=tokens > 0)[1]
    np.testing.assert_allclose(stds, 1, rtol=0.05)


def test_what_is_left_of_recurrent_layers_is_said(rng):
    class Own(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.state_size = 4

        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")

        def call(self, inputs, states, training=None):
            return (inputs @ self.kernel + states[0],) * 2

    x = inputs = layers.Input((6, 5))
    x = layers.RNN(Own(name="own"), return_sequences=True)(x)
    x = layers.LSTM(4, return_sequences=True, trainable=False, name="frozen")(x)
    x = layers.LSTM(4, return_sequences=True, name="half")(x)
    x = layers.LSTM(4, name="whole")(x)
    model = keras.Model(inputs, x)
    data = rng.normal(size=(16, 6, 5)).astype("float32")
    before = [ops.convert_to_numpy(v).copy() for v in model.get_layer("half").weights]
    with pytest.warns(UserWarning, match="the kernels of a cell are scaled together: choose both"):
        report = initx.calibrate(model, data, exclude="half/*/recurrent_kernel")
    notes = {row.path.split("/")[0]: row.note for row in report.rows}
    assert notes["frozen"] == "frozen: left as it is"
    assert notes["whole"] == ""
    assert any("recurrent loop" in row.note for row in report.rows if "own" in row.path)
    for old, variable in zip(before, model.get_layer("half").weights, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), old)
    with pytest.warns(UserWarning, match="gates take laws of one mean and std"):
        initx.calibrate(model, data, "initx>WithinLayer", include="whole")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_after_a_recurrent_layer_leaves_the_weights_as_they_were(error, rng, monkeypatch):
    model = model_of(*MODELS["lstm"])
    before = model.get_weights()
    measure = probe.mean_and_variance

    def failing(tensor):
        if tensor.shape[-1] == 3:
            raise error
        return measure(tensor)

    monkeypatch.setattr(probe, "mean_and_variance", failing)
    with pytest.raises(error):
        initx.calibrate(model, rng.normal(size=(24, 6, 5)).astype("float32"), redraw=True)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
