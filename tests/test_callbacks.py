import json
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import keras
import numpy as np
import pytest
from keras import layers, ops
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util import tensor_util

from keras_initx.calibration import calibrate
from keras_initx.callbacks import Calibrate, WeightHistograms
from keras_initx.summaries import buckets

INPUTS = np.random.default_rng(0).standard_normal((32, 4)).astype("float32")
TARGETS = INPUTS[:, :1] * 2


def model_of(name="net"):
    inner = keras.Sequential([layers.Input((4,)), layers.Dense(5, name="d")], name="inner")
    model = keras.Sequential(
        [layers.Input((4,)), inner, layers.BatchNormalization(name="bn"), layers.Dense(1, name="head")],
        name=name,
    )
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model


def written(folder):
    """{(tag, step): table} over the event files of a folder, later files last."""
    return {
        (value.tag, event.step): tensor_util.make_ndarray(value.tensor)
        for path in sorted(folder.glob("*.initx"))
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    }


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
    with pytest.warns(UserWarning, match="Calibrate left .* as it is: its optimizer has made 2 steps"):
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


def test_step_zero_is_the_initialization_and_step_e_the_state_after_e_epochs(tmp_path):
    model = model_of()
    states = [[ops.convert_to_numpy(v).copy() for v in model.weights]]
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: states.append(
            [ops.convert_to_numpy(v).copy() for v in model.weights]
        )
    )
    model.fit(INPUTS, TARGETS, epochs=2, verbose=0, callbacks=[WeightHistograms(tmp_path), keep])
    read = written(tmp_path)
    assert sorted({step for _, step in read}) == [0, 1, 2]
    tags = [tag for tag, step in read if step == 0]
    assert tags == [
        "weights/0_inner/d/kernel",
        "weights/1_inner/d/bias",
        "weights/2_bn/gamma",
        "weights/3_bn/beta",
        "weights/4_bn/moving_mean",
        "weights/5_bn/moving_variance",
        "weights/6_head/kernel",
        "weights/7_head/bias",
    ]
    for step, weights in enumerate(states):
        for tag, weight in zip(tags, weights, strict=True):
            np.testing.assert_array_equal(read[tag, step], buckets(weight)[0])
    assert abs(states[0][0] - states[2][0]).max() > 0


def test_a_resumed_run_goes_on_from_its_epoch_in_a_file_of_its_own(tmp_path):
    model = model_of()
    model.fit(INPUTS, TARGETS, epochs=2, verbose=0, callbacks=[WeightHistograms(tmp_path)])
    model.fit(INPUTS, TARGETS, initial_epoch=2, epochs=3, verbose=0, callbacks=[WeightHistograms(tmp_path)])
    assert len(list(tmp_path.glob("*.initx"))) == 2
    assert sorted({step for _, step in written(tmp_path)}) == [0, 1, 2, 3]


def test_a_callback_used_again_after_an_interrupted_fit_starts_at_step_zero(tmp_path):
    callback = WeightHistograms(tmp_path)

    def interrupt(epoch, logs):
        raise KeyboardInterrupt

    stop = keras.callbacks.LambdaCallback(on_epoch_end=interrupt)
    with pytest.raises(KeyboardInterrupt):
        model_of().fit(INPUTS, TARGETS, epochs=2, verbose=0, callbacks=[callback, stop])
    model_of().fit(INPUTS, TARGETS, epochs=1, verbose=0, callbacks=[callback])
    latest = sorted(tmp_path.glob("*.initx"))[-1]
    steps = {e.step for e in EventFileLoader(str(latest)).Load() if e.summary.value}
    assert len(list(tmp_path.glob("*.initx"))) == 2
    assert steps == {0, 1}


def test_nan_weights_are_counted_not_drawn(tmp_path):
    model = model_of()
    model.get_layer("head").kernel.assign(ops.full((5, 1), float("nan")))
    model.fit(INPUTS, TARGETS, epochs=1, verbose=0, callbacks=[WeightHistograms(tmp_path)])
    read = written(tmp_path)
    assert read["nonfinite_fraction/weights/6_head/kernel", 0] == 1
    assert read["weights/6_head/kernel", 0][:, 2].sum() == 0


def test_a_subclassed_model_is_logged_without_its_own_name_and_must_be_built(tmp_path):
    class Model(keras.Model):
        def __init__(self):
            super().__init__(name="root")
            self.dense = layers.Dense(1, name="dense")

        def call(self, inputs):
            return self.dense(inputs)

    model = Model()
    model.compile(keras.optimizers.SGD(0.01), "mse")
    # TensorFlow builds it in the first step only, JAX and torch before the first epoch.
    if keras.backend.backend() == "tensorflow":
        with pytest.raises(ValueError, match="`model` must be built before `fit` .* Call it on one batch"):
            model.fit(INPUTS, TARGETS, verbose=0, callbacks=[WeightHistograms(tmp_path)])
        assert not list(tmp_path.iterdir())
        model(INPUTS)
    model.fit(INPUTS, TARGETS, epochs=1, verbose=0, callbacks=[WeightHistograms(tmp_path)])
    tags = sorted(tag for tag, step in written(tmp_path) if step == 0)
    assert [tag.rpartition("/")[2] for tag in tags] == ["kernel", "bias"]
    assert not any("root" in tag for tag in tags)


@pytest.mark.parametrize("wrong", [None, 3, ["runs"]])
def test_log_dir_must_be_a_path(wrong):
    with pytest.raises(TypeError, match="`log_dir` must be a path. Received: log_dir="):
        WeightHistograms(wrong)


def poll(url, seconds=90):
    """TensorBoard takes up to 15 s to start where TensorFlow is installed: ask until it answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                answer = json.load(response)
            if answer:
                return answer
        except OSError:
            pass
        assert time.monotonic() < deadline, f"no answer from {url}"
        time.sleep(0.3)


@pytest.mark.tensorflow
def test_tensorboard_shows_ours_and_keras_own_from_one_folder(tmp_path, unused_port):
    model = model_of()
    callbacks = [WeightHistograms(tmp_path), keras.callbacks.TensorBoard(tmp_path, histogram_freq=1)]
    model.fit(INPUTS, TARGETS, epochs=2, verbose=0, callbacks=callbacks)
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(tmp_path),
        "--port",
        str(unused_port),
    ]
    server = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ)
    )
    try:
        root = f"http://127.0.0.1:{unused_port}/data/plugin/histograms"
        tags = poll(f"{root}/tags")
        assert sorted(tags) == [".", "train"]
        query = urllib.parse.urlencode({"run": ".", "tag": "weights/6_head/kernel"})
        series = poll(f"{root}/histograms?{query}")
        assert [step for _, step, _ in series] == [0, 1, 2]
        query = urllib.parse.urlencode({"run": "train", "tag": "net/head/kernel/histogram"})
        theirs = poll(f"{root}/histograms?{query}")
        # Keras' step e is the state after epoch e + 1, which is our step e + 1.
        assert [step for _, step, _ in theirs] == [0, 1]
        np.testing.assert_allclose(theirs[0][2], series[1][2], rtol=1e-6)
    finally:
        server.terminate()
        server.wait()
