"""Layers that `walk.register` teaches, and what is noticed when it was told something that is not so."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx import probe
from keras_initx.fans import Fans
from keras_initx.walk import Kernel, iter_kernels, register


class Mixer(layers.Layer):
    """A dense layer with names of its own, which calls its activation whatever it is."""

    def __init__(self, units=6, activation=None, **options):
        super().__init__(**options)
        self.units, self.activation = units, keras.activations.get(activation)

    def build(self, shape):
        self.mixing = self.add_weight(shape=(shape[-1], self.units), name="mixing")
        self.offset = self.add_weight(shape=(self.units,), name="offset", initializer="random_normal")

    def call(self, inputs):
        return self.activation(ops.matmul(inputs, self.mixing) + self.offset)


class Child(Mixer):
    pass


class Gated(layers.Layer):
    """A gated linear unit with dropout and a bias that is none of its kernels'."""

    def build(self, shape):
        for name in ("gate", "value"):
            setattr(self, name, self.add_weight(shape=(shape[-1], 8), name=name))
        self.gate_bias = self.add_weight(shape=(8,), name="gate_bias", initializer="random_normal")
        self.bias = self.add_weight(shape=(8,), name="bias", initializer="random_normal")
        self.dropout = layers.Dropout(0.5, seed=1)

    def call(self, inputs, training=False):
        gate = ops.silu(ops.matmul(inputs, self.gate) + self.gate_bias)
        return self.dropout(gate * ops.matmul(inputs, self.value), training=training) + self.bias


def gated(layer, show, inputs, training=False):
    gate = ops.silu(show("gate", ops.matmul(inputs, layer.gate) + layer.gate_bias))
    product = gate * show("value", ops.matmul(inputs, layer.value))
    return layer.dropout(product, training=training) + layer.bias


MIXING = {"mixing": Kernel("mixing", layout="dense", bias="offset")}
register(Mixer, MIXING, linear=True)
register(
    Gated,
    {
        "gate": Kernel("dense", layout="dense", bias="gate_bias"),
        "value": Kernel("dense", layout="dense", bias=None),
    },
    call=gated,
)


def model_of(*found):
    return keras.Sequential([layers.Input((8,)), *found, layers.Dense(3, name="head")])


def moments(model, inputs, axis=None):
    seen = {}

    def observe(site, output):
        seen[site.path] = ops.convert_to_numpy(output).astype("float64")
        return output

    probe.run(model, inputs, [s for s in iter_kernels(model, trace=False) if not s.obstacle], observe)
    return {path: (value.mean(axis), value.std(axis)) for path, value in seen.items()}


def calibrated(model, inputs, *args, **options):
    plain = ops.convert_to_numpy(model(inputs))
    report = initx.calibrate(model, inputs, *args, **options)
    assert [row.note for row in report.rows] == [""] * len(report.rows)
    assert not np.allclose(ops.convert_to_numpy(model(inputs)), plain)
    return report


@pytest.fixture
def inputs(rng):
    return rng.normal(2, 3, size=(60, 8)).astype("float32")


@pytest.mark.parametrize("redraw", [False, True])
@pytest.mark.parametrize("activation", [None, "tanh", layers.ReLU()])
@pytest.mark.parametrize("taught", [Mixer, Child])
def test_a_layer_of_one_kernel(taught, activation, redraw, inputs):
    model = model_of(taught(activation=activation, name="mixer"))
    model.layers[0].offset.assign(ops.arange(6, dtype="float32"))
    calibrated(model, inputs, redraw=redraw)
    stds = {path: std for path, (_, std) in moments(model, inputs).items()}
    assert stds == pytest.approx({"mixer/mixing": 1, "head": 1}, rel=1e-3)
    assert probe.preactivation_std(model, inputs) == pytest.approx(stds, rel=1e-3)


@pytest.mark.parametrize("training", [False, True])
def test_a_layer_of_two_kernels_shows_both(training, inputs):
    model = model_of(Gated(name="gated"))
    outer = ops.convert_to_numpy(model.layers[0].bias)
    report = calibrated(model, inputs, training=training)
    assert [row.path for row in report.rows] == ["gated/gate", "gated/value", "head"]
    stds = {path: std for path, (_, std) in moments(model, inputs).items()}
    assert [stds["gated/gate"], stds["gated/value"]] == pytest.approx([1, 1], rel=1e-3)
    assert training or stds["head"] == pytest.approx(1, rel=1e-3)
    np.testing.assert_array_equal(ops.convert_to_numpy(model.layers[0].bias), outer)


def test_one_of_two_kernels_is_calibrated_by_itself(inputs):
    model = model_of(Gated(name="gated"))
    before = moments(model, inputs)
    calibrated(model, inputs, include="gated/value")
    after = moments(model, inputs)
    assert after["gated/value"][1] == pytest.approx(1, rel=1e-3)
    assert after["gated/gate"] == pytest.approx(before["gated/gate"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_laws_of_units_follow_the_layout(dtype, inputs):
    model = model_of(Mixer(activation="relu", name="mixer", dtype=dtype))
    calibrated(model, inputs, "initx>WithinLayer")
    mean, std = moments(model, inputs, axis=0)["mixer/mixing"]
    np.testing.assert_allclose(std, 1, rtol=1e-3 if dtype == "float32" else 0.05)
    np.testing.assert_allclose(mean, 0, atol=1e-3 if dtype == "float32" else 0.05)


def test_filters_are_not_made_for_them(inputs):
    with pytest.warns(UserWarning, match="filters are for dense layers"):
        initx.calibrate(model_of(Gated(name="gated")), inputs, "initx>PCAFilters", include="gated")


class Saturated(Mixer):
    def call(self, inputs):
        return ops.tanh(super().call(inputs))


class Rectified(Mixer):
    def call(self, inputs):
        return ops.relu(super().call(inputs))


class Activated(Mixer):
    def call(self, inputs):
        return ops.matmul(self.activation(inputs), self.mixing) + self.offset


class Unscaled(Mixer):
    """Its offset is scaled where the kernel is, but does not count."""

    def call(self, inputs):
        return self.activation(ops.matmul(inputs, self.mixing))


class Mistaken(Gated):
    pass


class Turned(Mixer):
    """Its units lie on the first axis after the batch's."""

    def call(self, inputs):
        return ops.swapaxes(super().call(ops.stack([inputs] * 3 + [2 * inputs] * 3, 1)), 1, 2)


LINEAR = "not linear in its kernel and bias"
WRONG = [
    (Saturated, {"linear": True}, None, LINEAR),
    (Rectified, {"linear": True}, None, LINEAR),
    (Activated, {"linear": True}, None, "does not return what its own `call` does"),
    (Unscaled, {"linear": True}, None, LINEAR),
    (Turned, {"linear": True}, "initx>WithinLayer", LINEAR),
]


@pytest.mark.parametrize(("taught", "options", "law", "note"), WRONG)
def test_what_is_not_so_leaves_the_weights_alone(taught, options, law, note, inputs):
    register(taught, MIXING, **options)
    model = model_of(taught(activation="relu", name="mixer"))
    before = [ops.convert_to_numpy(v).copy() for v in model.layers[0].weights]
    model.layers[0].mixing.assign(before[0] * 0.01)  # where tanh is all but linear
    before[0] = before[0] * np.float32(0.01)
    with pytest.warns(UserWarning, match=note):
        report = initx.calibrate(model, inputs, law, redraw=True)
    for old, variable in zip(before, model.layers[0].weights, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), old)
    notes = {row.path: row.note for row in report.rows}
    assert note in notes["mixer/mixing"]
    assert notes["head"] == ""
    assert probe.preactivation_std(model, inputs)["head"] == pytest.approx(1, rel=1e-3)


def test_a_call_that_computes_something_else_is_noticed(inputs):
    register(
        Mistaken,
        {"gate": Kernel("dense", bias="gate_bias"), "value": Kernel("dense", bias=None)},
        call=wrong,
    )
    with pytest.warns(UserWarning, match="does not return what its own `call` does"):
        initx.calibrate(model_of(Mistaken(name="gated")), inputs)


def wrong(layer, show, inputs, training=False):
    return 2 * gated(layer, show, inputs, training)


@pytest.mark.parametrize("kernel", ["mixing", Kernel("mixing", layout="dense")])
def test_a_layer_that_is_taught_without_its_pre_activation_shows_it_by_its_operation(inputs, kernel):
    class Other(Mixer):
        pass

    register(Other, {"mixing": kernel})
    model = model_of(Other(name="mixer"))
    report = initx.calibrate(model, inputs)
    row = report.rows[0]
    assert (row.path, row.role, row.note) == ("mixer/mixing", "mixing", "")
    assert row.std_after == pytest.approx(1, rel=1e-3)
    assert probe.preactivation_std(model, inputs)["mixer/mixing"] == pytest.approx(1, rel=1e-3)


class Heads(layers.Layer):
    """Products with head axes: query and key by hand."""

    def build(self, shape):
        self.query = self.add_weight(shape=(4, shape[-1], 3), name="query")

    def call(self, x):
        return ops.einsum("bd,hdk->bhk", x, self.query)


@pytest.mark.parametrize(
    "kernel",
    [
        "query",
        Kernel("query"),
        Kernel("query", input_axes=(1,), output_axes=(0, 2)),
        Kernel("query", input_axes=(-2,), output_axes=(0, -1), batch_axes=()),
    ],
)
def test_a_kernel_with_head_axes_is_taught_a_role_or_its_axes(inputs, kernel):
    class Other(Heads):
        pass

    register(Other, {"query": kernel})
    model = keras.Sequential([layers.Input(inputs.shape[1:]), Other(name="own")])
    [site] = iter_kernels(model)
    size = inputs.shape[-1]
    assert (site.role, site.fans) == ("query", Fans(size, 12))
    report = initx.calibrate(model, inputs)
    assert report.rows[0].std_after == pytest.approx(1, rel=1e-3)


def test_axes_of_a_kernel_that_do_not_fit_are_refused():
    for wrong in (
        {"input_axes": (0,)},
        {"output_axes": (0,)},
        {"batch_axes": (0,)},
        {"input_axes": (0,), "output_axes": (0,)},
        {"input_axes": (0,), "output_axes": (1,), "layout": "dense"},
    ):
        with pytest.raises(ValueError, match="must be given together, without `layout`"):
            Kernel("query", **wrong)

    class Other(Heads):
        pass

    register(Other, {"query": Kernel("query", input_axes=(1,), output_axes=(2,), batch_axes=())})
    model = keras.Sequential([layers.Input((5,)), Other(name="own")])
    with pytest.raises(ValueError, match="`batch_axes` of `.*own/query` must be all axes beside"):
        list(iter_kernels(model))
