"""An export leaves every variable as it found it, and the version starts from there."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx.saved_model import _export
from keras_initx.saved_model._worker import load
from support.exported_models import floats
from support.row_wise_models import Counter, InTraining, of

pytestmark = pytest.mark.tensorflow


def recurrent(kind):
    inputs = layers.Input(batch_shape=(2, 4, 3), name="x")
    return keras.Model(inputs, kind(3, stateful=True)(inputs))


def composed():
    """Compiled, with metrics, an optimizer that has taken a step, and a state in a layer in a layer."""
    model = of(InTraining(layers.BatchNormalization()), Counter(), layers.Dense(1), shape=(3,))
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(floats(4, 3), floats(4, 1), verbose=0)
    return model


MODELS = {
    "lstm": lambda: recurrent(layers.LSTM),
    "gru": lambda: recurrent(layers.GRU),
    "counter, moving averages, optimizer": composed,
    "seeds": lambda: of(InTraining(layers.Dropout(0.5)), shape=(3,)),
}


def variables(model):
    """All that Keras lists, and the states that a recurrent layer does not."""
    optimizer = getattr(model, "optimizer", None)
    found = [*model.variables, *(optimizer.variables if optimizer else [])]
    for layer in model._flatten_layers():
        found += keras.tree.flatten(getattr(layer, "states", None) or [])
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in found]


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("kind", [layers.SimpleRNN, layers.LSTM, layers.GRU])
def test_a_state_has_the_rows_that_the_model_was_built_for(tmp_path, kind, size):
    inputs = layers.Input(batch_shape=(size, 4, 3), name="x")
    initx.export(keras.Model(inputs, kind(3, stateful=True)(inputs)), tmp_path)
    signature = initx.saved_model.inspect(tmp_path).versions[0].signatures["serving_default"]
    assert signature["inputs"] == {"x": f"float32[{size}, 4, 3]"}


@pytest.mark.parametrize("name", MODELS)
def test_variables_are_left_and_the_first_answer_goes_on_from_them(tmp_path, name, monkeypatch):
    model = MODELS[name]()
    rows = floats(2, 4, 3) if len(model.inputs[0].shape) == 3 else floats(9, 3)
    model.predict(rows, verbose=0)  # no longer in the states that it was built with
    before = variables(model)
    exported = initx.export(model, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(_export, "write_proof", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            initx.export(model, tmp_path)
    for value, variable in zip(before, variables(model), strict=True):
        assert value.tobytes() == variable.tobytes()
    assert exported.difference < 1e-5
    assert exported.row_wise == ()
    with load(exported.path) as call:
        served = [next(iter(call("serving_default", {"x": rows}).values())) for _ in range(2)]
    expected = [model.predict(rows, verbose=0) for _ in range(2)]
    np.testing.assert_allclose(served, expected, rtol=1e-5, atol=1e-6)
    assert np.ptp(served, axis=0).max() > 1e-4
    assert any(value.tobytes() != now.tobytes() for value, now in zip(before, variables(model), strict=True))


def test_warm_up_is_not_replayed_into_a_state(tmp_path):
    pytest.importorskip("tensorflow_serving")
    model = recurrent(layers.GRU)
    with pytest.warns(UserWarning, match="`warmup`: no requests were written, .*'gru.*rnn_state'"):
        assert initx.export(model, tmp_path, warmup=floats(2, 4, 3)).warmup_records == 0
