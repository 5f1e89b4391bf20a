"""The default signature answers as `model.predict`, whatever the model's class does there."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx.saved_model._worker import load
from support.exported_models import floats

pytestmark = pytest.mark.tensorflow


class Decoding(keras.Model):
    """Answers with classes, as detectors answer with boxes."""

    def predict_step(self, data):
        inputs, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        scores = self(inputs, training=False)
        return {"best": keras.ops.argmax(scores, -1), "scores": scores}


class Reshaped(keras.Model):
    def predict_step(self, data):
        return super().predict_step(data)[:, :2]


class Shifted(keras.Model):
    def predict(self, x, **options):
        return super().predict(x, **options) + 1


class Tokenizing(keras.Model):
    """As keras_hub's tasks: its `predict` takes what comes before the model's inputs."""

    def predict(self, x, **options):
        return super().predict(np.array([[len(text.split())] * 3 for text in x], "float32"), **options)


def build(cls):
    inputs = layers.Input((3,), name="x")
    return cls(inputs, layers.Dense(4, name="logits")(inputs))


@pytest.mark.parametrize(
    ("cls", "names"), [(Decoding, ["best", "scores"]), (Reshaped, ["output_0"]), (keras.Model, ["logits"])]
)
def test_a_predict_step_is_what_is_served(tmp_path, cls, names):
    model, rows = build(cls), floats(5, 3)
    exported = initx.export(model, tmp_path, signatures={"again": build(cls)})
    with load(exported.path) as call:
        served = call("serving_default", {"x": rows})
        assert sorted(call("again", {"x": rows})) == names
    assert sorted(served) == names
    for got, want in zip(
        (served[name] for name in names), keras.tree.flatten(model.predict(rows, verbose=0)), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert exported.difference < 1e-5
    assert "serving_default" in exported.row_wise


def test_a_predict_of_its_own_is_refused_and_its_cure_works(tmp_path):
    with pytest.raises(
        ValueError, match="must answer as before .* differs by .* into `predict_step`, which is exported"
    ):
        initx.export(build(Shifted), tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    assert initx.export(build(Reshaped), tmp_path).version == 1


def test_a_predict_that_takes_other_input_is_not_compared(tmp_path):
    assert initx.export(build(Tokenizing), tmp_path).difference < 1e-5


def test_the_model_predicts_afterwards_as_it_did(tmp_path):
    model = build(keras.Model)
    model.compile("sgd", "mse", jit_compile=False)
    rows = floats(2, 3)
    before = model.predict(rows, verbose=0)
    function = model.predict_function
    initx.export(model, tmp_path)
    assert model.predict_function is function
    assert model.jit_compile is False
    np.testing.assert_array_equal(model.predict(rows, verbose=0), before)
