"""Every cure is run as the code that it is: it removes its verdict, and raises no other."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.diagnostics import KINDS

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 32)).astype("float32")
Y = RNG.integers(0, 8, 64)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def net(activation="relu", depth=5, seed=0, **options):
    model = keras.Sequential([layers.Input((32,))])
    for number in range(depth):
        model.add(layers.Dense(32, activation, name=f"h{number}", **options))
    model.add(layers.Dense(8, name="head"))
    initx.initialize(model, "by_role", seed=seed)
    return model


def changed(model, name, change, weight="kernel"):
    variable = getattr(model.get_layer(name), weight)
    variable.assign(change(np.array(ops.convert_to_numpy(variable.value))))
    return model


def scaled(factor):
    return lambda values: factor * values


def with_nan(values):
    values[3, 4] = np.nan
    return values


def frozen_nan():
    model = changed(net(), "h1", with_nan)
    model.get_layer("h1").trainable = False
    return model


def deep(law):
    model = net(depth=24)
    initx.initialize(model, law, seed=0)
    return model


def fading():
    """Signals stay, since biases bring new ones; gradients go."""
    model = net("tanh", depth=8)
    for number in range(8):
        changed(model, f"h{number}", scaled(0.3))
        changed(model, f"h{number}", lambda values: np.random.default_rng(1).normal(size=32), "bias")
    return model


def growing():
    model = net("linear", depth=8)
    for number in range(8):
        changed(model, f"h{number}", scaled(3.0))
    return model


def negative_biases(kernel):
    bias = keras.initializers.Constant(-5.0)
    made = [layers.Dense(32, "relu", True, kernel, bias, name=f"h{n}") for n in range(3)]
    return keras.Sequential([layers.Input((32,)), *made, layers.Dense(8, name="head")])


def collapsing():
    model = net("tanh", depth=24)
    for layer in model.layers:
        layer.kernel.assign(0.3 * layer.kernel.value)
        layer.bias.assign(np.random.default_rng(1).normal(size=layer.bias.shape))
    return model


def compiled(model, rate, optimizer=keras.optimizers.SGD):
    model.compile(optimizer(rate), LOSS)
    return model


def net_with_adapter():
    model = net()
    hidden = model.layers[-1].input
    adapted = layers.Dense(8, lora_rank=2, lora_alpha=16, name="adapted")
    model = keras.Model(model.inputs, adapted(hidden))
    initx.initialize(model, "by_role", seed=0)
    return model


def zeros():
    made = [layers.Dense(n, kernel_initializer="zeros", name=name) for n, name in ((8, "a"), (8, "b"))]
    return keras.Sequential([layers.Input((32,)), *made])


def depthwise():
    return keras.Sequential(
        [
            layers.Input((4, 4, 64)),
            layers.DepthwiseConv2D(3, name="dw0", depthwise_initializer="lecun_normal"),
            layers.DepthwiseConv2D(2, name="dw1", depthwise_initializer="lecun_normal"),
            layers.Flatten(),
            layers.Dense(8, name="head"),
        ]
    )


def lookup():
    model = keras.Sequential([layers.Input((6,), dtype="int32"), layers.Embedding(40, 32, name="words")])
    model.add(layers.Dense(32, "relu", kernel_initializer="he_normal", name="h"))
    model.add(layers.Flatten())
    model.add(layers.Dense(8, name="head"))
    return model


FAULTS = {
    "a NaN": ("nonfinite", lambda: changed(net(), "h1", with_nan)),
    "a NaN in a bias": ("nonfinite", lambda: changed(net(), "h1", scaled(np.nan), "bias")),
    "a NaN in a frozen kernel": ("nonfinite", frozen_nan),
    "equal units": ("symmetry", lambda: changed(net(), "h1", lambda values: np.full_like(values, 0.2))),
    "a copy": ("duplicate", lambda: changed(net(), "h3", lambda _: net().get_layer("h1").get_weights()[0])),
    "a signal that dies": ("forward", lambda: deep("glorot_normal")),
    "gradients that die": ("backward", fading),
    "a signal that explodes": ("forward", growing),
    "wrong fans": ("variance", depthwise),
    "a small table": ("variance", lookup),
    "a large kernel": ("variance", lambda: changed(net(), "h1", scaled(30.0))),
    "a saturated kernel": ("saturated", lambda: changed(net("tanh"), "h2", scaled(20.0))),
    "a saturated bias": ("saturated", lambda: changed(net("tanh"), "h2", lambda values: values + 9, "bias")),
    "a negative bias": ("dead", lambda: changed(net(), "h2", lambda values: values - 100, "bias")),
    "negative biases by config": ("dead", lambda: negative_biases("he_normal")),
    "zero kernels": ("dead", lambda: changed(changed(net(), "h2", scaled(0.0)), "h3", scaled(0.0))),
    "zero kernels and negative biases": ("dead", lambda: negative_biases("zeros")),
    "an alpha that Keras loses": ("adapter", net_with_adapter),
    "rows that become one": ("collapse", collapsing),
    "no gradient": ("no_gradient", zeros),
    "a rate beyond the kernels": ("update", lambda: compiled(net(), 1e4)),
    "a rate beyond the gradient": ("update", lambda: compiled(net(), 2.0)),
    "Adam's rate": ("update", lambda: compiled(net(), 0.1, keras.optimizers.Adam)),
}

# What differs by backend is in these; the others run on one.
EVERYWHERE = ("a NaN", "zero kernels", "a negative bias", "a signal that dies", "a rate beyond the gradient")
ROWS = [pytest.param(f, marks=() if f in EVERYWHERE else pytest.mark.tensorflow) for f in FAULTS]


def data_of(model):
    shape = model.input_shape[1:]
    if "int" in model.inputs[0].dtype:
        return RNG.integers(0, 40, (64, *shape))
    return X if shape == (32,) else np.random.default_rng(1).normal(size=(64, *shape)).astype("float32")


def state(model):
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer else [])]
    return [np.array(ops.convert_to_numpy(variable.value)) for variable in variables]


def keys(report):
    return {(verdict.kind, verdict.path) for verdict in report.verdicts}


def test_a_fault_is_planted_for_each_kind_of_verdict():
    assert {kind for kind, _ in FAULTS.values()} == set(KINDS)


@pytest.mark.parametrize("fault", ROWS)
def test_the_cure_removes_its_verdict_and_raises_no_other(fault):
    kind, build = FAULTS[fault]
    model = build()
    data = data_of(model)
    given = (model, data, Y, None if getattr(model, "optimizer", None) else LOSS)
    before = state(model)
    report = initx.diagnose(*given, seed=0)
    for one, other in zip(before, state(model), strict=True):
        np.testing.assert_array_equal(one, other)
    verdict = next(verdict for verdict in report.verdicts if verdict.kind == kind)
    exec(verdict.cure, {"initx": initx, "model": model, "data": data})
    after = initx.diagnose(*given, seed=0, try_cures=False)
    assert (kind, verdict.path) not in keys(after)
    assert keys(after) <= keys(report)
    assert all(np.isfinite(weights).all() for weights in model.get_weights())


def test_a_cure_changes_as_little_as_it_can():
    report = initx.diagnose(changed(net(), "h2", scaled(0.0)), X, seed=0)
    assert report.verdicts[0].cure == 'initx.initialize(model, "by_role", include="h2", seed=0)'
    report = initx.diagnose(depthwise(), data_of(depthwise()), seed=0)
    [first, second] = [verdict.path for verdict in report.verdicts]  # the worst first
    cure = f'initx.initialize(model, "by_role", include=["{first}", "{second}"], seed=0)'
    assert [verdict.cure for verdict in report.verdicts] == [cure, cure]


def plain_convnet(law):
    """Zeros of the padding, which no law of the fans knows, take a share of the signal at each layer."""
    model = keras.Sequential([layers.Input((4, 4, 4))])
    for number in range(16):
        conv = layers.Conv2D(8, 3, padding="same", activation="relu", name=f"c{number}")
        model.add(conv)
    model.add(layers.Flatten())
    model.add(layers.Dense(8, name="head"))
    initx.initialize(model, law, seed=1)
    return model


@pytest.mark.tensorflow
def test_the_cure_that_leaves_least_is_named():
    """By role most of the signal is lost at the head; LSUV, named, brings it to the head whole."""
    model = plain_convnet("glorot_normal")
    images = np.random.default_rng(1).normal(size=(64, 4, 4, 4)).astype("float32")
    verdict = initx.diagnose(model, images, seed=1).verdicts[0]
    assert verdict.kind == "forward"
    assert verdict.cure.startswith('initx.calibrate(model, data, "initx>LSUV")')
    by_role = initx.diagnose(plain_convnet("by_role"), images, seed=1).forward_gain
    exec(verdict.cure, {"initx": initx, "model": model, "data": images})
    cured = initx.diagnose(model, images, seed=1).forward_gain
    assert abs(np.log(cured)) < abs(np.log(by_role)) / 2
    assert "learning rate" in verdict.cure  # nothing is known of it here


@pytest.mark.tensorflow
def test_a_cure_that_asks_for_a_smaller_learning_rate_names_it():
    model = plain_convnet("glorot_normal")
    images = np.random.default_rng(1).normal(size=(64, 4, 4, 4)).astype("float32")
    compiled(model, 0.3)
    cure = initx.diagnose(model, images, Y, seed=1).verdicts[0].cure
    call, rate = cure.split("; model.optimizer.learning_rate = ")
    exec(call, {"initx": initx, "model": model, "data": images})
    [update] = initx.diagnose(model, images, Y, seed=1).verdicts
    assert update.kind == "update"
    assert update.cure == f"model.optimizer.learning_rate = {rate}"


def test_a_schedule_is_not_overwritten():
    model = net()
    model.compile(keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(1e4, 10, 0.5)), LOSS)
    before = state(model)
    verdict = initx.diagnose(model, X, Y, seed=0).verdicts[0]
    assert verdict.kind == "update"
    assert verdict.cure.startswith("# give the optimizer a schedule that starts at ")
    assert all(np.array_equal(one, other) for one, other in zip(before, state(model), strict=True))


def test_untried_cures_change_nothing_and_cost_nothing(monkeypatch):
    model = changed(net(), "h2", lambda values: values - 100, "bias")
    monkeypatch.setattr("keras_initx.diagnostics._cures._try", None)
    report = initx.diagnose(model, X, seed=0, try_cures=False)
    assert report.verdicts[0].cure == 'initx.initialize(model, "by_role", include="h2", seed=0)'


def test_the_weights_come_back_after_an_interrupt(monkeypatch):
    model = changed(net(), "h2", lambda values: values - 100, "bias")
    before = state(model)

    def interrupted(*_, **__):
        model.get_layer("h0").kernel.assign(np.zeros((32, 32)))
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_initx.diagnostics._cure.initialize", interrupted)
    with pytest.raises(KeyboardInterrupt):
        initx.diagnose(model, X, seed=0)
    assert all(np.array_equal(one, other) for one, other in zip(before, state(model), strict=True))


def test_a_prior_of_the_head_outlives_a_draw_of_the_whole_model():
    model = deep("glorot_normal")
    model.get_layer("head").bias.assign(np.arange(8.0))
    cure = initx.diagnose(model, X, seed=0).verdicts[0].cure
    exec(cure, {"initx": initx, "model": model, "data": X})
    np.testing.assert_array_equal(model.get_layer("head").get_weights()[1], np.arange(8.0))
