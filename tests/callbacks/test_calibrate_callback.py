import inspect

import keras
import numpy as np
import pytest

from keras_initx.calibration import calibrate
from keras_initx.callbacks import Calibrate


def small():
    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model


def test_calibrate_runs_once_at_the_start_and_never_on_a_trained_model(rng):
    x = rng.normal(3, 2, size=(32, 6)).astype("float32")
    y = np.zeros((32, 1), "float32")
    model, callback = small(), Calibrate(x, "initx>LSUV")
    expected = small()
    expected.set_weights(model.get_weights())
    calibrate(expected, x, "initx>LSUV")
    model.fit(x, y, verbose=0, callbacks=[callback])  # a learning rate of 0 leaves what it found
    for one, other in zip(expected.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    report = callback.report
    assert report.forward_passes == 1
    model.layers[0].kernel.assign(model.layers[0].kernel * 2)
    doubled = model.get_weights()
    model.fit(x, y, verbose=0, callbacks=[callback])
    resumed = Calibrate(x)
    with pytest.warns(UserWarning, match="`Calibrate` left .* its optimizer has made 2 steps"):
        model.fit(x, y, verbose=0, callbacks=[resumed])
    assert callback.report is report
    assert resumed.report is None
    for one, other in zip(doubled, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_bad_data_for_calibrate_stops_fit_before_it_trains(rng):
    x = rng.normal(size=(32, 6)).astype("float32")
    model = small()
    before = model.get_weights()
    with pytest.raises(ValueError, match="`data` must have the structure"):
        model.fit(x, np.zeros((32, 1)), verbose=0, callbacks=[Calibrate(x[:, :3])])
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_its_options_are_those_of_calibrate(rng):
    expected = inspect.signature(calibrate).parameters
    own = inspect.signature(Calibrate).parameters
    assert list(own) == [name for name in expected if name != "model"]
    assert all(own[name].default == expected[name].default for name in own)
    x = rng.normal(size=(32, 6)).astype("float32")
    model, callback = small(), Calibrate(x, "initx>LSUV", samples=8, include="dense", seed=1)
    model.fit(x, np.zeros((32, 1)), verbose=0, callbacks=[callback])
    assert callback.report.samples == 8
    with pytest.raises(TypeError, match="sample"):
        Calibrate(x, sample=8)
