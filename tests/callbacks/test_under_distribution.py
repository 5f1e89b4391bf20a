"""Callbacks write and decide on several devices what they do on one, however Keras distributes.

Devices are counted when a framework starts, so each backend has a process of its own. It prints what each
callback found, by the name of the distribution, as one line of JSON.
"""

import importlib.util
import json

import numpy as np
import pytest

from support import forked

# Each is to start its process in one suite of the three.
pytestmark = pytest.mark.tensorflow

COMMON = """
import contextlib, json, pathlib, sys, tempfile
import keras, numpy as np
from keras import layers
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util import tensor_util
import keras_initx as initx

rng = np.random.default_rng(0)
x = rng.normal(1, 2, (32, 6)).astype("float32")
y = rng.normal(size=(32, 1)).astype("float32")

def build(**options):
    keras.utils.set_random_seed(0)
    stack = [layers.Dense(8, "relu", name="hidden"), layers.LayerNormalization(name="norm")]
    model = keras.Sequential([layers.Input((6,)), *stack, layers.Dense(1, name="head")])
    optimizer = options.pop("optimizer", None) or keras.optimizers.SGD(0.01, momentum=0.9)
    model.compile(optimizer, "mse", **options)
    return model

def read(folder):
    return {
        f"{value.tag}@{event.step}": tensor_util.make_ndarray(value.tensor).tolist()
        for path in pathlib.Path(folder).rglob("*.initx")
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
        if "custom_scalars" not in value.tag
    }

def fit(building=contextlib.nullcontext, fitting=contextlib.nullcontext, **options):
    with building():
        model = build(**options)
    with tempfile.TemporaryDirectory() as folder:
        kinds = {"gradients": True, "activations": True, "update_ratio": True, "bins": 3}
        calibrate = initx.callbacks.Calibrate(x, redraw=True, seed=1)
        histograms = initx.callbacks.WeightHistograms(folder, data=(x, y), every=1, **kinds)
        monitor = initx.callbacks.SignalMonitor(folder, (x, y), every=1, images=False)
        with fitting():
            for number in range(2):  # the second goes on, and is not calibrated
                model.fit(x, y, 32, verbose=0, callbacks=[calibrate, histograms, monitor])
        written = read(folder)
    weights = np.concatenate([np.ravel(weight) for weight in model.get_weights()]).tolist()
    return written | {"weights": weights, "calibrated": [row.scale for row in calibrate.report.rows]}
"""
TENSORFLOW = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
#COMMON
mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
second = tf.distribute.OneDeviceStrategy("CPU:1")
worker = tf.distribute.MultiWorkerMirroredStrategy()
with mirrored.scope():
    scaled = {"optimizer": keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01, momentum=0.9))}
found = {
    "alone": fit(),
    "mirrored": fit(mirrored.scope),
    "mirrored, fit in the scope": fit(mirrored.scope, mirrored.scope, run_eagerly=True, **scaled),
    "one device of two": fit(second.scope),
    "one worker": fit(worker.scope),
}
print(json.dumps(found))
"""
JAX = """
devices = keras.distribution.list_devices()
mesh = keras.distribution.DeviceMesh((2, 2), ["batch", "model"], devices)
layout = keras.distribution.LayoutMap(mesh)
layout["hidden/kernel"] = (None, "model")
layout["hidden/bias"] = ("model",)
data = keras.distribution.DataParallel(devices=devices[:2])
sharded = keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
found = {
    "alone": fit(),
    "data parallel": fit(data.scope, data.scope),
    "model parallel": fit(sharded.scope, sharded.scope),
}
print(json.dumps(found))
"""


def run(code, backend="tensorflow", **environment):
    done = forked.run(["-c", code], env=forked.backend(backend, **environment), check=True)
    return json.loads(done.stdout.splitlines()[-1])


def assert_each_is_as_alone(found):
    alone = found.pop("alone")
    steps = {int(tag.partition("@")[2]) for tag in alone if "@" in tag}
    assert steps == {0, 1, 2}
    kinds = {tag.partition("/")[0] for tag in alone if "@" in tag}
    assert {"weights", "gradients", "activations", "update_ratio", "backward_gain", "model"} <= kinds
    assert found
    for name, values in found.items():
        assert set(values) == set(alone), name
        for tag, expected in alone.items():
            np.testing.assert_allclose(values[tag], expected, rtol=1e-3, atol=1e-4, err_msg=f"{name}: {tag}")


@pytest.mark.integration
def test_under_strategies_of_tensorflow():
    assert_each_is_as_alone(run(TENSORFLOW.replace("#COMMON", COMMON)))


@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="JAX is not installed")
@pytest.mark.integration
def test_under_distributions_of_jax():
    flags = "--xla_force_host_platform_device_count=4"
    assert_each_is_as_alone(run(COMMON + JAX, "jax", XLA_FLAGS=flags))
