"""The same seed gives the same weights on one device, on several replicas, and in shards."""

import importlib.util
import json

import keras
import numpy as np
import pytest

import keras_initx as initx
from support import forked

BUILD = """
import json, numpy as np, keras
from keras import layers
import keras_initx as initx

def build():
    stack = [layers.Input((16,)), layers.Dense(64, "relu", name="wide"), layers.Dense(8, name="head")]
    return keras.Sequential(stack)

def sums(values):
    return [float(np.abs(np.asarray(value, "float64")).sum()) for value in values]
"""
TWO_DEVICES = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
"""
MIRRORED = """
def mirrored(inside):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = build()
        model.compile("adam", "mse")
        if inside:
            initx.initialize(model, "by_role", seed=7)
    if not inside:
        initx.initialize(model, "by_role", seed=7)
    replicas = [[part.numpy() for part in v.value.values] for v in model.weights]
    assert all(len(parts) == 2 for parts in replicas)
    assert all((parts[0] == parts[1]).all() for parts in replicas)
    model.fit(np.zeros((8, 16), "float32"), np.zeros((8, 8)), batch_size=4, verbose=0)
    assert initx.initialize(model, "by_role", seed=7).optimizer_reset
    again = [[part.numpy() for part in v.value.values] for v in model.weights]
    assert all((a == b).all() for one, other in zip(replicas, again) for a, b in zip(one, other))
    return sums(parts[1] for parts in replicas)

print(json.dumps([mirrored(inside=True), mirrored(inside=False)]))
"""
SHARDED = """
def sharded(distribution, parallel):
    keras.distribution.set_distribution(distribution)
    model = build()
    before = [v.value.sharding for v in model.weights]
    assert (not before[0].is_fully_replicated) == parallel
    report = initx.initialize(model, "by_role", seed=7)
    assert [v.value.sharding for v in model.weights] == before
    assert len(model.weights[0].value.addressable_shards) == 4
    return sums(v.value for v in model.weights)

single = build()
initx.initialize(single, "by_role", seed=7)
devices = keras.distribution.list_devices()
layout = keras.distribution.LayoutMap(keras.distribution.DeviceMesh((2, 2), ["batch", "model"], devices))
layout[".*wide.*kernel"] = (None, "model")
data = keras.distribution.DataParallel(devices=devices)
model_parallel = keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
found = [sums(v.value for v in single.weights), sharded(data, False), sharded(model_parallel, True)]
print(json.dumps(found))
"""


def run(code, backend="tensorflow", **environment):
    result = forked.run(["-c", code], env=forked.backend(backend, **environment), check=True)
    return json.loads(result.stdout.splitlines()[-1])


def alone():
    scope: dict = {}
    exec(BUILD, scope)
    model = scope["build"]()
    initx.initialize(model, "by_role", seed=7)
    return scope["sums"](keras.ops.convert_to_numpy(v) for v in model.weights)


@pytest.mark.tensorflow
def test_mirrored_replicas_are_equal_and_those_of_one_device():
    for found in run(TWO_DEVICES + BUILD + MIRRORED):
        np.testing.assert_allclose(found, alone(), rtol=1e-6)


@pytest.mark.tensorflow  # not for its backend, but to start this process in one suite of the three
@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="JAX is not installed")
def test_shards_keep_their_places_and_are_those_of_one_device():
    flags = "--xla_force_host_platform_device_count=4"
    single, *shards = run(BUILD + SHARDED, "jax", XLA_FLAGS=flags)
    for found in shards:
        np.testing.assert_allclose(found, single, rtol=1e-6)
