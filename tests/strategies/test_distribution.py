"""The same seed gives the same weights on one device, on several replicas, and in shards."""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_initx as initx

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
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model = build()
    model.compile("adam", "mse")
    if INSIDE:
        initx.initialize(model, "by_role", seed=7)
if not INSIDE:
    initx.initialize(model, "by_role", seed=7)
replicas = [[part.numpy() for part in v.value.values] for v in model.weights]
assert all(len(parts) == 2 for parts in replicas)
assert all((parts[0] == parts[1]).all() for parts in replicas)
model.fit(np.zeros((8, 16), "float32"), np.zeros((8, 8)), batch_size=4, verbose=0)
assert initx.initialize(model, "by_role", seed=7).optimizer_reset
again = [[part.numpy() for part in v.value.values] for v in model.weights]
assert all((a == b).all() for one, other in zip(replicas, again) for a, b in zip(one, other))
print(json.dumps(sums(parts[1] for parts in replicas)))
"""
SHARDED = """
mesh = keras.distribution.DeviceMesh((2, 2), ["batch", "model"], keras.distribution.list_devices())
layout = keras.distribution.LayoutMap(mesh)
layout[".*wide.*kernel"] = (None, "model")
data = keras.distribution.DataParallel(devices=keras.distribution.list_devices())
model_parallel = keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
keras.distribution.set_distribution(model_parallel if PARALLEL else data)
model = build()
before = [v.value.sharding for v in model.weights]
assert (not before[0].is_fully_replicated) == PARALLEL
report = initx.initialize(model, "by_role", seed=7)
assert [v.value.sharding for v in model.weights] == before
assert len(model.weights[0].value.addressable_shards) == 4
print(json.dumps(sums(v.value for v in model.weights)))
"""


def run(code, **environment):
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def alone():
    scope: dict = {}
    exec(BUILD, scope)
    model = scope["build"]()
    initx.initialize(model, "by_role", seed=7)
    return scope["sums"](keras.ops.convert_to_numpy(v) for v in model.weights)


@pytest.mark.tensorflow
@pytest.mark.parametrize("inside", [True, False])
def test_mirrored_replicas_are_equal_and_those_of_one_device(inside):
    np.testing.assert_allclose(run(f"INSIDE = {inside}\n{TWO_DEVICES}{BUILD}{MIRRORED}"), alone(), rtol=1e-6)


@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="JAX is not installed")
@pytest.mark.parametrize("parallel", [False, True], ids=["data", "model"])
def test_shards_keep_their_places_and_are_those_of_one_device(parallel):
    flags = {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    single = run(
        f"{BUILD}model = build(); initx.initialize(model, 'by_role', seed=7)\n"
        "print(json.dumps(sums(v.value for v in model.weights)))",
        KERAS_BACKEND="jax",
    )
    np.testing.assert_allclose(run(f"PARALLEL = {parallel}\n{BUILD}{SHARDED}", **flags), single, rtol=1e-6)
