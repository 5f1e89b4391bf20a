"""`portable`: a `.keras` file that loads where the package is not installed."""

import json
import textwrap
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx.saved_model import _portable
from support import forked

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def model():
    inputs = layers.Input((4, 6), name="x")
    hidden = layers.Dense(6, kernel_initializer=initx.initializers.HeScaled(gain=2.0, seed=3))(inputs)
    hidden = layers.MultiHeadAttention(2, 3, kernel_initializer="initx>IdentityScaled")(hidden, hidden)
    hidden = layers.Conv1D(6, 3, kernel_initializer="initx>Dirac", padding="same")(hidden)
    hidden = layers.LSTM(
        5,
        recurrent_initializer="initx>GatewiseOrthogonal",
        bias_initializer="initx>ChronoBias",
        unit_forget_bias=False,
    )(hidden)
    outputs = layers.Dense(
        3, kernel_initializer="initx>LSUV", bias_initializer=initx.initializers.PriorBias(0.1)
    )(hidden)
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(), "mse")
    return model


def test_it_loads_and_predicts_where_the_package_cannot_be_imported(model, tmp_path, rng):
    inputs = rng.standard_normal((2, 4, 6)).astype("float32")
    model.fit(inputs, np.zeros((2, 3)), verbose=0)
    before = json.dumps(model.get_config(), default=str)
    exported = initx.export(model, tmp_path, portable=True)
    assert exported.portable == str(tmp_path / "1.keras")
    assert json.dumps(model.get_config(), default=str) == before
    np.save(tmp_path / "inputs.npy", inputs)
    code = f"""
        import sys
        sys.modules["keras_initx"] = None
        import keras, numpy as np
        model = keras.saving.load_model({exported.portable!r})
        assert model.optimizer.iterations == 1
        np.save({str(tmp_path / "outputs.npy")!r}, model.predict(np.load({str(tmp_path / "inputs.npy")!r})))
        np.savez({str(tmp_path / "weights.npz")!r}, *model.get_weights())
        """
    forked.run(["-c", textwrap.dedent(code)], preload="keras", check=True)
    np.testing.assert_allclose(
        np.load(tmp_path / "outputs.npy"), model.predict(inputs, verbose=0), rtol=1e-5, atol=1e-6
    )
    for weight, loaded in zip(model.get_weights(), np.load(tmp_path / "weights.npz").values(), strict=True):
        np.testing.assert_array_equal(weight, loaded)


def test_nothing_of_the_package_is_left_in_the_file(model, tmp_path):
    initx.export(model, tmp_path, portable=True)
    config = zipfile.ZipFile(tmp_path / "1.keras").read("config.json").decode()
    assert "initx" not in config
    assert '"class_name": "VarianceScaling"' in config


@pytest.mark.parametrize("name", initx.initializers.names())
def test_every_initializer_has_a_built_in_one_that_draws_its_shapes(name):
    initializer = initx.initializers.get(name)
    for replace in (_portable._nearest, _portable._variance):
        built_in = replace(initializer)
        assert type(built_in).__module__.startswith("keras.src.initializers")
        restored = keras.initializers.deserialize(keras.initializers.serialize(built_in))
        shapes = [(8,)] if name in ("initx>ChronoBias", "initx>UniformGateBias") else [(8, 4), (3, 3, 8, 8)]
        for shape in shapes:
            if len(shape) == 2 or not isinstance(built_in, keras.initializers.Identity):
                assert restored(shape).shape == shape


@pytest.mark.parametrize(
    ("initializer", "config"),
    [
        (initx.initializers.ConstantFill(0.3), {"value": 0.3}),
        (initx.initializers.PriorBias(0.5), {"value": 0.0}),
        (initx.initializers.OrthogonalScaled(gain=2.0, seed=5), {"gain": 2.0, "seed": 5}),
        (
            initx.initializers.GlorotScaled(seed=1),
            {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform", "seed": 1},
        ),
        (
            initx.initializers.HeScaled(),
            {"scale": pytest.approx(2.0), "mode": "fan_in", "distribution": "untruncated_normal"},
        ),
        (initx.initializers.ICNR(2, keras.initializers.Ones()), {}),
    ],
)
def test_the_nearest_has_the_same_law_where_keras_has_it(initializer, config):
    found = _portable._nearest(initializer).get_config()
    assert {name: found[name] for name in config} == config


def test_weights_that_cannot_be_orthogonal_fall_back_to_variance_scaling(tmp_path):
    inputs = layers.Input((4,), dtype="bfloat16")
    dense = layers.Dense(4, dtype="bfloat16", kernel_initializer="initx>LSUV")
    initx.export(keras.Model(inputs, dense(inputs)), tmp_path, portable=True)
    assert "VarianceScaling" in zipfile.ZipFile(tmp_path / "1.keras").read("config.json").decode()


def test_a_layer_of_the_package_has_no_like(tmp_path):
    inputs = layers.Input((4,))
    model = keras.Model(inputs, initx.layers.ResidualScale(name="scale")(layers.Dense(4)(inputs)))
    with pytest.raises(
        ValueError, match="`portable` needs a model of Keras' own layers. Received: ResidualScale"
    ):
        initx.export(model, tmp_path / "new", portable=True)
    assert list(tmp_path.iterdir()) == []
