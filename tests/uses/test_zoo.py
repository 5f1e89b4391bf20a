"""Layers as people write them: every kernel is found, with its fans, and calibrated where it can be."""

import math

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.gains import compute_gain
from keras_initx.walk import iter_kernels
from support.zoo import ZOO, Cell, batch_of, model_of
from support.zoo_more import MORE

TABLE = ZOO | MORE


@pytest.fixture(params=TABLE)
def name(request):
    return request.param


def test_each_kernel_is_found_with_the_fans_of_the_table(name):
    table = TABLE[name][2]
    sites = {site.kernel.name: site for site in iter_kernels(model_of(TABLE[name]))}
    assert {key: (s.role, s.fans.fan_in, s.fans.fan_out) for key, s in sites.items()} == {
        key: row[:3] for key, row in table.items()
    }
    for key, (*_, reason) in table.items():
        assert reason in sites[key].obstacle
        assert bool(reason) == bool(sites[key].obstacle)


def test_by_role_draws_each_with_the_variance_of_its_fans(name):
    model, table = model_of(TABLE[name]), TABLE[name][2]
    sites = {site.kernel.name: site for site in iter_kernels(model)}
    moments = {key: [] for key in table}
    for seed in range(8):
        initx.initialize(model, "by_role", seed=seed)
        for key, site in sites.items():
            moments[key].append(float(ops.convert_to_numpy(site.kernel.value).var()))
    for key, site in sites.items():
        # Shares of a softmax have no gain.
        plain = site.activation is None or "softmax" in getattr(site.activation, "name", "")
        gain = 1 if plain else compute_gain(site.activation)
        count = 8 * math.prod(site.kernel.shape)
        # The sample variance of n normal numbers scatters by sqrt(2 / n), that of truncated ones by less.
        share = np.mean(moments[key]) * table[key][1] / gain**2
        assert share == pytest.approx(1, abs=4 * math.sqrt(2 / count))


def test_calibrate_agrees_with_a_probe_from_outside(name):
    model, table = model_of(TABLE[name]), TABLE[name][2]
    batch = batch_of(TABLE[name])
    report = initx.calibrate(model, batch, "LSUV", seed=1, tolerance=1e-3)
    layer = model.layers[-1]
    layer.notes = {}
    model(batch)
    scaled = [key for key, (*_, reason) in table.items() if not reason]
    rows = {row.path.rpartition("/")[2]: row for row in report.rows}
    assert {key for key, row in rows.items() if row.iterations} == set(scaled)
    for key in scaled:
        if key in layer.notes:
            assert layer.notes[key].std() == pytest.approx(1, abs=1e-3)
        assert np.mean(rows[key].std_after) == pytest.approx(1, abs=1e-3)


def test_the_kernels_of_a_cell_by_hand_are_found_inside_the_loop():
    model = keras.Sequential([layers.Input((5, 3)), layers.RNN(Cell(4), name="loop")])
    found = {site.kernel.name: site for site in iter_kernels(model)}
    assert {name: (s.role, s.fans.fan_in, s.fans.fan_out) for name, s in found.items()} == {
        "inner": ("dense", 3, 4),
        "back": ("dense", 4, 4),
    }
    assert all("recurrent loop" in site.obstacle and not site.uses for site in found.values())


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX compiles functions one by one")
def test_on_jax_a_compiled_function_is_opened_only_for_a_weight_or_a_product():
    import jax

    from keras_initx.uses import _jax

    class Recorder:
        replaces = True
        opens = frozenset()

        def __init__(self, followed):
            self.followed, self.names = followed, []

        def follows(self, tensor):
            return any(tensor is one for one in self.followed)

        def pieces(self, tensor):
            return ()

        def see(self, operation):
            self.names.append(operation.name)

    weight, signal = jax.numpy.ones((3, 3)), jax.numpy.ones((2, 3))
    inner = jax.jit(lambda x: x @ weight)

    def cube(x):
        return x**3

    calls = {
        "a signal": ([], lambda: jax.jit(cube)(signal)),
        "a product": ([signal], lambda: jax.jit(cube)(signal)),
        "a product in an activation": ([signal], lambda: jax.jit(jax.numpy.tanh)(signal)),
        "a weight from outside": ([weight], lambda: jax.jit(lambda x: inner(x))(signal)),
    }
    seen = {}
    for case, (followed, call) in calls.items():
        recorder = Recorder(followed)
        with _jax.shown(recorder):
            call()
        seen[case] = recorder.names
    assert seen == {
        "a signal": ["cube"],
        "a product": ["integer_pow"],
        "a product in an activation": ["tanh"],
        "a weight from outside": ["dot_general"],
    }
