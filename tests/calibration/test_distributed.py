"""Several devices and processes: statistics of the global batch, and equal weights on every replica.

Devices are counted when a framework starts, so each test runs processes of its own, which print what they
find as one line of JSON.
"""

import importlib.util
import json
import subprocess
import textwrap

import numpy as np
import pytest

from keras_initx.summaries import last_step
from support import forked

needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")

COMMON = """
import json, sys
import keras, numpy as np
from keras import layers
import keras_initx as initx


def build():
    keras.utils.set_random_seed(0)
    inputs = layers.Input((4, 5), name="x")
    x = layers.LSTM(6, name="lstm")(inputs)
    x = layers.Dense(7, "relu", bias_initializer="ones", name="dense")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x))

def rows(start, stop):
    return (2 + 3 * np.random.default_rng(1).standard_normal((60, 4, 5))).astype("float32")[start:stop]

def calibrate(model, data):
    initx.calibrate(model, data, redraw=True, seed=3, tolerance=1e-4, max_iterations=30)
    return initx.calibrate(model, data, "initx>WithinLayer", include="head")

def stds(model, data):
    weights = {w.path: np.asarray(w.value, "float64") for w in model.weights}
    state = np.asarray(model.get_layer("lstm")(data), "float64")
    pre = state @ weights["dense/kernel"] + weights["dense/bias"]
    post = np.maximum(pre, 0) @ weights["head/kernel"] + weights["head/bias"]
    gates = initx.recurrence.gate_stds(model.get_layer("lstm").cell, data)[1]
    return [*gates, pre.std(), *post.std(0)]

def plain(values):
    return [np.asarray(value, "float64").tolist() for value in values]
"""


def run(code, *processes, backend="tensorflow", flags=""):
    """Runs the code once for each tuple of arguments, at the same time; returns what each prints last."""
    environment = forked.backend(backend, XLA_FLAGS=flags)
    command = ["-c", COMMON + textwrap.dedent(code)]
    if "import tensorflow" in code:  # devices are set before Keras starts
        command[1] = textwrap.dedent(code).replace("#COMMON", COMMON)
    started = [
        forked.Forked(
            [*command, *map(str, arguments)],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for arguments in processes or [()]
    ]
    try:
        outputs = [process.communicate(timeout=600) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, errors) in zip(started, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [json.loads(output.splitlines()[-1]) for output, _ in outputs]


def assert_equal(weights, others, **tolerance):
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_allclose(one, other, **(tolerance or {"rtol": 0}))


@pytest.mark.tensorflow
def test_mirrored_replicas_are_equal_to_each_other_and_to_one_device():
    (found,) = run(
        """
        import tensorflow as tf
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        #COMMON
        strategy, data = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), rows(0, 60)
        alone = build()
        calibrate(alone, data)
        found = {"alone": plain(alone.weights), "stds": stds(alone, data), "replicas": []}
        with strategy.scope():
            outside, inside = build(), build()
            calibrate(inside, data)
        calibrate(outside, data)
        for model in (outside, inside):
            for number in range(2):
                found["replicas"].append(plain(w.value.values[number] for w in model.weights))

        def search(law):
            model = keras.Sequential([layers.Input((5,)), layers.Dense(4, "relu"), layers.Dense(1)])
            model.set_weights([np.linspace(-1, 1, w.size).reshape(w.shape) for w in model.get_weights()])
            report = initx.calibrate(model, (data[:, 0], data[:, 0, :1]), law, loss="mse", seed=1)
            return [report.objective[1], *np.hstack([w.ravel() for w in model.get_weights()]).tolist()]

        laws = [initx.initializers.GradInit(steps=3), initx.initializers.MetaInit(steps=3)]
        found["searched"] = [search(law) for law in laws]
        with strategy.scope():
            found["searched in the scope"] = [search(law) for law in laws]
        print(json.dumps(found))
        """
    )
    np.testing.assert_allclose(found["stds"], 1, rtol=1e-3)
    np.testing.assert_allclose(found["searched in the scope"][0], found["searched"][0], rtol=1e-4)
    np.testing.assert_allclose(found["searched in the scope"][1], found["searched"][1], rtol=1e-4)
    assert len(found["replicas"]) == 4
    for replica in found["replicas"]:
        assert_equal(replica, found["alone"])


@pytest.fixture(scope="module")
def one_process():
    """On one device, then on two; and on one with the rows of both processes of the next test."""
    (found,) = run(
        """
        data, alone = rows(0, 60), build()
        calibrate(alone, data)
        union, model = rows(0, 60), build()
        union[:20] *= 3
        calibrate(model, union)
        on_union = {"weights": plain(model.get_weights()), "stds": stds(model, union)}
        keras.distribution.set_distribution(keras.distribution.DataParallel())
        model = build()
        calibrate(model, data)
        devices = [plain(w.value.addressable_shards[n].data for w in model.weights) for n in range(2)]
        found = {"alone": plain(alone.get_weights()), "devices": devices, "stds": stds(model, data)}
        print(json.dumps(found | {"union": on_union}))
        """,
        backend="jax",
        flags="--xla_force_host_platform_device_count=2",
    )
    return found


@needs_jax
@pytest.mark.tensorflow  # not for its backend, but to start these processes in one suite of the three
@pytest.mark.integration
def test_data_parallel_devices_are_equal_to_each_other_and_to_one_device(one_process):
    found = one_process
    np.testing.assert_allclose(found["stds"], 1, rtol=1e-3)
    assert_equal(*found["devices"])
    assert_equal(found["devices"][0], found["alone"], rtol=1e-3, atol=1e-4)


@needs_jax
@pytest.mark.tensorflow  # not for its backend, but to start these processes in one suite of the three
@pytest.mark.integration
def test_two_processes_measure_on_the_union_of_their_rows_fail_and_stop_together(
    unused_port, one_process, tmp_path
):
    """Their shards differ in length and in scale: neither the mean of two stds nor one's own will do."""
    found = run(
        """
        import jax
        process, port, folder = int(sys.argv[1]), int(sys.argv[2]), f"{sys.argv[3]}/{sys.argv[1]}"
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        keras.distribution.initialize(f"127.0.0.1:{port}", 2, process)
        keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
        union = rows(0, 60)
        union[:20] *= 3
        own = union[:20] if process == 0 else union[20:]
        model = build()
        report = calibrate(model, own)
        weights = plain(model.get_weights())
        errors = []
        def refused(data, **options):
            try:
                initx.calibrate(model, data, **options)
            except ValueError as error:
                errors.append(str(error))
        refused(np.where(process == 1, np.nan, own).astype("float32"))
        refused(own, redraw=True)
        unchanged = plain(model.get_weights()) == weights
        found = {"weights": weights, "samples": report.samples, "errors": errors, "unchanged": unchanged}

        unit = layers.Dense(1, "relu", kernel_initializer="ones", name="unit")
        model = keras.Sequential([layers.Input((5,)), unit])
        model.compile(keras.optimizers.SGD(0.0), "mse")
        x = np.abs(own[:20, 0]) * (1 - 2 * process)  # dead on the rows of the second process alone
        pair = x, np.ones((20, 1))
        options = {"limits": {"max_dead": 0.5}, "on_break": "stop", "images": False}
        watch = initx.callbacks.SignalMonitor(folder, pair, **options)
        histograms = initx.callbacks.WeightHistograms(folder, gradients=True, activations=True, data=pair)
        fits = [model.fit(*pair, epochs=3, verbose=0, callbacks=[watch, histograms]) for _ in range(2)]
        found |= {"epochs": [len(fit.epoch) for fit in fits], "steps": sorted(watch.reports)}
        print(json.dumps(found))
        """,
        (0, unused_port, tmp_path),
        (1, unused_port, tmp_path),
        backend="jax",
    )
    alone = one_process["union"]
    np.testing.assert_allclose(alone["stds"], 1, rtol=1e-3)
    assert [one["samples"] for one in found] == [60, 60]
    assert_equal(found[0]["weights"], found[1]["weights"])
    assert_equal(found[0]["weights"], alone["weights"], rtol=1e-3, atol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
    assert last_step(str(tmp_path / "0")) == last_step(str(tmp_path / "0/signal")) == 2
    for one in found:
        assert one["epochs"] == [1, 1]
        assert one["steps"] == [0, 1, 2]
        assert one["unchanged"]
        assert "`data` must be finite" in one["errors"][0]
        assert "`seed` must be an int where several processes draw" in one["errors"][1]
    assert "an error in process 1 of 2, ValueError: `data`" in found[0]["errors"][0]


@pytest.mark.tensorflow
def test_workers_of_tensorflow_are_refused(monkeypatch):
    """Keras 3 cannot `fit` under them; to start two would take as long as all else here."""
    import keras
    import tensorflow as tf

    import keras_initx as initx

    cluster = {"worker": ["a:1", "b:1"]}
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(tf.train.ClusterSpec(cluster))
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    monkeypatch.setattr(strategy.extended, "_cluster_resolver", resolver, raising=False)
    with strategy.scope():
        model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    before = model.get_weights()
    with pytest.raises(ValueError, match="must not be built under a strategy of several workers.* of 2"):
        initx.calibrate(model, np.eye(3))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
