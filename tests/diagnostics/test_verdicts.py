"""Faults that were planted are found and named; healthy models have none."""

import json

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.adapters import enable_lora
from support.model_table import APPLICATIONS, application, backbone, light_elsewhere

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 32)).astype("float32")
IMAGES = RNG.normal(size=(16, 8, 8, 64)).astype("float32")


def net(activation="relu", depth=5, width=32):
    model = keras.Sequential([layers.Input((32,))])
    for number in range(depth):
        model.add(layers.Dense(width, activation, name=f"h{number}"))
    model.add(layers.Dense(8, name="head"))
    initx.initialize(model, "by_role", seed=0)
    return model


def only(report):
    [verdict] = report.verdicts
    return verdict


def test_a_healthy_model_has_no_verdict():
    for activation in ("relu", "tanh", "gelu", "selu", "silu"):
        assert initx.diagnose(net(activation), X, seed=0).verdicts == (), activation


def test_a_dead_layer():
    model = net()
    model.get_layer("h2").bias.assign(-100 * np.ones(32))
    report = initx.diagnose(model, X, seed=0)
    assert {verdict.kind for verdict in report.verdicts if verdict.path == "h2"} >= {"dead"}
    assert next(row for row in report.rows if row.path == "h2").dead == 1.0
    with pytest.raises(initx.diagnostics.SignalError, match="h2: .*dead 1"):
        report.check()


def test_a_nan():
    model = net()
    kernel = model.get_layer("h1").kernel
    values = np.array(ops.convert_to_numpy(kernel.value))
    values[3, 4] = np.nan
    kernel.assign(values)
    report = initx.diagnose(model, X, seed=0)
    assert report.verdicts[0].kind == "nonfinite"
    assert [v.path for v in report.verdicts] == ["h1"]
    assert report.rows[0].nonfinite == 0
    assert report.rows[1].nonfinite > 0
    json.loads(report.to_json(), parse_constant=pytest.fail)
    with pytest.raises(initx.diagnostics.SignalError, match="h1: .* NaN or Inf"):
        report.check(max_gain=None, max_dead=None, max_saturated=None)


@pytest.mark.parametrize("factor", [1.0, -2.0])
def test_a_pair_of_equal_kernels(factor):
    model = net()
    model.get_layer("h3").kernel.assign(factor * model.get_layer("h1").kernel.value)
    report = initx.diagnose(model, X, seed=0)
    verdict = only(report)
    assert (verdict.kind, verdict.path) == ("duplicate", "h1")
    assert "`h3`" in verdict.message
    [pair] = report.duplicates
    assert pair.equal == (factor == 1.0)
    assert pair.correlation == pytest.approx(np.sign(factor), abs=1e-5)
    with pytest.raises(initx.diagnostics.SignalError, match="perfectly correlated"):
        report.check()


def test_one_seed_for_query_key_and_value():
    inputs = layers.Input((6, 16))
    seeded = keras.initializers.GlorotUniform(seed=1)
    attention = layers.MultiHeadAttention(2, 8, kernel_initializer=seeded, name="mha")
    model = keras.Model(inputs, attention(inputs, inputs))
    report = initx.diagnose(model, seed=0)
    verdict = only(report)
    assert verdict.kind == "duplicate"
    assert all(name in str(verdict) for name in ("query", "key", "value"))
    eval(verdict.cure, {"initx": initx, "model": model})
    assert initx.diagnose(model, seed=0).duplicates == ()


def test_a_fan_that_is_64_times_too_large():
    model = keras.Sequential(
        [
            layers.Input((8, 8, 64)),
            layers.DepthwiseConv2D(3, name="dw", depthwise_initializer="lecun_normal"),
            layers.Conv2D(64, 1, name="pw", kernel_initializer="lecun_normal"),
        ]
    )
    report = initx.diagnose(model, IMAGES, seed=0)
    verdict = only(report)
    assert (verdict.kind, verdict.path) == ("variance", "dw")
    times = float(verdict.message.split("variance ")[1].split(" times")[0])
    # The variance of 576 entries has the relative error sqrt(2 / 576): five of it, and a tenth for the data.
    assert times == pytest.approx(64, rel=5 * np.sqrt(2 / 576) + 0.1)
    assert verdict.message.endswith("the true fans are 9 and 9")
    eval(verdict.cure, {"initx": initx, "model": model})
    assert initx.diagnose(model, IMAGES, seed=0).verdicts == ()


def test_normalization_makes_a_wrong_scale_harmless():
    model = keras.Sequential(
        [
            layers.Input((8, 8, 64)),
            layers.DepthwiseConv2D(3, name="dw", depthwise_initializer="lecun_normal"),
            layers.BatchNormalization(),
            layers.Conv2D(64, 1, name="pw", kernel_initializer="lecun_normal"),
        ]
    )
    report = initx.diagnose(model, IMAGES, seed=0)
    assert report.verdicts == ()
    assert report.rows[0].forward_gain < 0.2
    report.check()


def test_a_saturated_tanh():
    model = net("tanh")
    kernel = model.get_layer("h2").kernel
    kernel.assign(20 * kernel.value)
    report = initx.diagnose(model, X, seed=0)
    kinds = {verdict.kind for verdict in report.verdicts if verdict.path == "h2"}
    assert "saturated" in kinds
    assert next(row for row in report.rows if row.path == "h2").saturated > 0.8
    assert "dead" not in {verdict.kind for verdict in report.verdicts}


def test_constant_kernels_keep_units_equal():
    model = net()
    model.get_layer("h1").kernel.assign(0.2 * np.ones((32, 32)))
    kinds = [(verdict.kind, verdict.path) for verdict in initx.diagnose(model, X, seed=0).verdicts]
    assert ("symmetry", "h1") in kinds


def test_glorot_on_deep_relu_nets_loses_the_signal_both_ways():
    model = net(depth=30)
    initx.initialize(model, "glorot_normal", seed=0)
    kinds = [verdict.kind for verdict in initx.diagnose(model, X, seed=0).verdicts]
    assert kinds[:2] == ["forward", "backward"]


def test_a_learning_rate_that_is_too_large():
    model = net()
    model.compile(keras.optimizers.SGD(1e4), "mse")
    report = initx.diagnose(model, X, np.ones((64, 8)), seed=0)
    assert {verdict.kind for verdict in report.verdicts} == {"update"}
    with pytest.raises(initx.diagnostics.SignalError, match="update_ratio"):
        report.check(max_update_ratio=1.0)


def test_rows_that_become_equal():
    model = net("tanh", depth=30)
    for layer in model.layers:
        layer.kernel.assign(0.3 * layer.kernel.value)
        layer.bias.assign(RNG.normal(size=layer.bias.shape))
    kinds = {verdict.kind for verdict in initx.diagnose(model, X, seed=0).verdicts}
    assert "collapse" in kinds


def test_a_choice_limits_verdicts_to_its_kernels():
    model = net("tanh")
    for name in ("h1", "h3"):
        kernel = model.get_layer(name).kernel
        kernel.assign(20 * kernel.value)
    saturated = {
        choice: {v.path for v in initx.diagnose(model, X, include=choice, seed=0).verdicts}
        for choice in ("h1", "h3", "h[13]", "head")
    }
    assert saturated == {"h1": {"h1"}, "h3": {"h3"}, "h[13]": {"h1", "h3"}, "head": set()}
    assert {v.path for v in initx.diagnose(model, X, exclude="h1", seed=0).verdicts} == {"h3"}


def test_a_cure_of_a_chosen_kernel_leaves_the_others_as_they_are():
    model = net("tanh")
    for name in ("h1", "h3"):
        kernel = model.get_layer(name).kernel
        kernel.assign(20 * kernel.value)
    before = {layer.name: layer.get_weights()[0] for layer in model.layers}
    verdicts = initx.diagnose(model, X, include="h3", seed=0).verdicts
    assert {verdict.cure for verdict in verdicts} == {
        'initx.initialize(model, "by_role", include="h3", seed=0)'
    }
    eval(verdicts[0].cure, {"initx": initx, "model": model, "data": X})
    changed = {n for n, old in before.items() if not np.array_equal(model.get_layer(n).get_weights()[0], old)}
    assert changed == {"h3"}
    assert {verdict.path for verdict in initx.diagnose(model, X, seed=0).verdicts} == {"h1"}


def test_nan_from_outside_the_choice_fails_the_check():
    model = net()
    kernel = model.get_layer("h1").kernel
    kernel.assign(np.full((32, 32), np.nan))
    report = initx.diagnose(model, X, include="h3", seed=0)
    assert report.verdicts == ()
    with pytest.raises(initx.diagnostics.SignalError, match="h3: .* NaN or Inf"):
        report.check(max_gain=None, max_dead=None)


def test_a_choice_shows_copies_of_its_kernels_and_faults_of_the_whole_model():
    model = net(depth=30)
    initx.initialize(model, "glorot_normal", seed=0)
    model.get_layer("h3").kernel.assign(model.get_layer("h1").kernel.value)
    kinds = {
        choice: [v.kind for v in initx.diagnose(model, X, include=choice, seed=0, try_cures=False).verdicts]
        for choice in ("h1", "h3", "h5")
    }
    copied = ["duplicate", "forward", "backward"]
    assert kinds == {"h1": copied, "h3": copied, "h5": ["forward", "backward"]}
    assert [len(initx.diagnose(model, X, include=n, try_cures=False).duplicates) for n in ("h3", "h5")] == [
        1,
        0,
    ]


def test_what_matters_most_comes_first():
    model = net()
    model.get_layer("h3").kernel.assign(model.get_layer("h1").kernel.value)
    model.get_layer("h4").bias.assign(-100 * np.ones(32))
    kinds = [verdict.kind for verdict in initx.diagnose(model, X, seed=0).verdicts]
    assert kinds.index("duplicate") < kinds.index("dead")


@pytest.mark.parametrize("scheme", ["Fixup", "ReZero", "SkipInit", "ZeroResidual", "ZeroHead"])
def test_schemes_that_make_branches_small_or_zero_are_healthy(scheme):
    x = inputs = layers.Input((32,))
    for _ in range(8):
        branch = layers.Dense(32, "relu")(x)
        branch = layers.Dense(32)(branch)
        if scheme in ("ReZero", "SkipInit"):
            branch = initx.layers.ResidualScale()(branch)
        x = layers.add([x, branch])
    model = keras.Model(inputs, layers.Dense(8)(x))
    initx.initialize(model, scheme, seed=0)
    report = initx.diagnose(model, X, seed=0)
    assert report.verdicts == ()
    report.check(max_gain=3.0)


@pytest.mark.parametrize("name", [pytest.param(n, marks=light_elsewhere(n)) for n in APPLICATIONS])
def test_no_false_alarm(name):
    """At Keras' defaults, and by role. VGG16 at its defaults, Glorot on ReLU, is a true alarm: it shrinks."""
    model = application(name)
    report = initx.diagnose(model, seed=0, samples=8)
    kinds = {verdict.kind for verdict in report.verdicts}
    assert kinds == ({"forward", "backward"} if name == "VGG16" else set())
    initx.initialize(model, "by_role", seed=0)
    assert initx.diagnose(model, seed=0, samples=8).verdicts == ()


def test_a_model_of_zeros_gets_no_gradient():
    model = keras.Sequential([layers.Input((32,)), layers.Dense(8, kernel_initializer="zeros", name="a")])
    model.add(layers.Dense(1, kernel_initializer="zeros", name="b"))
    verdict = only(initx.diagnose(model, X, seed=0))
    assert (verdict.path, verdict.kind) == ("a", "no_gradient")
    assert verdict.message == "no gradient reaches this kernel or 1 other"


def tokens(norm):
    x = inputs = layers.Input((12,), dtype="int32")
    x = layers.Embedding(64, 32, name="words")(x)
    if norm:
        x = layers.LayerNormalization()(x)
    for _ in range(3):
        x = layers.Conv1D(32, 3, padding="same", activation="relu", kernel_initializer="he_normal")(x)
    return keras.Model(inputs, layers.Dense(8)(layers.GlobalAveragePooling1D()(x)))


def test_a_table_that_starts_small_is_told_where_no_normalization_follows():
    """Keras draws tables uniformly from -0.05 to 0.05: variance 1 / 1200."""
    verdict = only(initx.diagnose(tokens(norm=False), seed=0))
    assert (verdict.kind, verdict.path) == ("variance", "words/embeddings")
    times = float(verdict.message.split("variance ")[1].split(" times")[0])
    # 64 words of 32 entries each: the second moment of uniform ones has the relative error sqrt(0.8 / 2048),
    # and some words are drawn more often than others.
    assert times == pytest.approx(1200, rel=0.15)
    assert initx.diagnose(tokens(norm=True), seed=0).verdicts == ()


def test_a_small_table_that_is_added_to_a_large_one_is_harmless():
    inputs = layers.Input((12,), dtype="int32")
    tables = [layers.Embedding(64, 32, name=name) for name in ("words", "places")]
    model = keras.Model(inputs, layers.Dense(8)(layers.add([table(inputs) for table in tables])))
    initx.initialize(model, "by_role", seed=0)
    places = model.get_layer("places").embeddings
    places.assign(0.02 * places.value)
    assert initx.diagnose(model, seed=0).verdicts == ()
    words = model.get_layer("words").embeddings
    words.assign(0.02 * words.value)
    found = {verdict.path for verdict in initx.diagnose(model, seed=0).verdicts}
    assert found == {"words/embeddings", "places/embeddings"}


@pytest.mark.parametrize("name", ["Bert", "GPT2", "T5", "Whisper", "ViT"])
@pytest.mark.tensorflow
def test_small_tables_of_transformers_are_harmless(name):
    assert initx.diagnose(backbone(name), seed=0, samples=8).verdicts == ()


@pytest.mark.parametrize("stddev", [0.01, 0.02])
def test_fans_are_blamed_only_for_the_size_that_they_give(stddev):
    """A standard deviation that someone chose is no law of a wrong fan, which is 1 / 24, say, here."""
    model = keras.Sequential(
        [
            layers.Input((8, 8, 64)),
            layers.DepthwiseConv2D(3, name="dw"),
            layers.Conv2D(64, 1, kernel_initializer="lecun_normal"),
        ]
    )
    model.get_layer("dw").kernel.assign(stddev * np.random.default_rng(1).normal(size=(3, 3, 64, 1)))
    verdict = only(initx.diagnose(model, IMAGES, seed=0))
    assert (verdict.kind, verdict.path) == ("variance", "dw")
    assert "fans" not in verdict.message


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_a_prior_of_a_head_is_no_fault(activation):
    model = net()
    head = model.get_layer("head")
    head.activation = keras.activations.get(activation)
    head.kernel.assign(0.01 / 0.25 * head.kernel.value)
    head.bias.assign(np.full(8, -4.6))  # p = 0.01
    report = initx.diagnose(model, X, seed=0)
    assert report.verdicts == ()
    report.check(max_gain=None)


def test_a_head_that_its_kernel_saturates_is_a_fault():
    model = net()
    head = model.get_layer("head")
    head.activation = keras.activations.sigmoid
    head.kernel.assign(20 * head.kernel.value)
    assert "saturated" in {verdict.kind for verdict in initx.diagnose(model, X, seed=0).verdicts}


def transformer(alpha=None, cross=False, norm=True, width=32):
    """Pre-norm, post-norm where there is an alpha; with tokens, a head, and a memory to look at or none."""
    normal = layers.LayerNormalization if norm else lambda: lambda x: x
    ids, memory = layers.Input((8,), dtype="int32"), layers.Input((6, width))
    x = layers.Embedding(50, width, name="tokens")(ids)
    for number in range(2):
        for part in ("self", "cross", "mlp") if cross else ("self", "mlp"):
            y = x if alpha else normal()(x)
            if part == "mlp":
                y = layers.Dense(width)(layers.Dense(64, "gelu")(y))
            else:
                y = layers.MultiHeadAttention(4, 8, name=f"{part}{number}")(
                    y, memory if part == "cross" else y
                )
            x = normal()(alpha * x + y) if alpha else x + y
    inputs = [ids, memory] if cross else ids
    return keras.Model(inputs, layers.Dense(10, name="head")(normal()(x)))


def residual(scales=False):
    x = inputs = layers.Input((32,))
    for _ in range(4):
        branch = layers.Dense(32)(layers.Dense(32, "relu")(x))
        x = layers.add([x, initx.layers.ResidualScale()(branch) if scales else branch])
    return keras.Model(inputs, layers.Dense(8)(x))


def adapted(model):
    enable_lora(model, {"query": 2, "value": 2})
    return model


# Each strategy on models that it is made for.
MADE_FOR = {
    **dict.fromkeys(("LoRA", "LoftQ", "OLoRA", "OrthogonalLoRA", "PiSSA"), (lambda: adapted(transformer()),)),
    "AutoInit": (net, residual, transformer),
    "by_role": (net, residual, transformer),
    "DeepNorm": (lambda: transformer(alpha=4**0.25), lambda: transformer(alpha=6**0.25, cross=True)),
    "Fixup": (residual,),
    "FromModel": (transformer,),
    "GPT2Residual": (transformer, lambda: transformer(cross=True)),
    "Mimetic": (transformer,),
    "MuP": (lambda: transformer(width=64),),
    "ReZero": (lambda: residual(scales=True),),
    "SkipInit": (lambda: residual(scales=True),),
    "Spectral": (net, transformer),
    "TFixup": (lambda: transformer(norm=False), lambda: transformer(norm=False, cross=True)),
    "ZeroHead": (net, transformer),
    "ZeroResidual": (residual, transformer),
}


def test_a_model_is_named_for_each_strategy():
    assert set(MADE_FOR) >= set(initx.strategies.STRATEGIES)


@pytest.mark.tensorflow
@pytest.mark.parametrize("strategy", MADE_FOR)
def test_what_a_strategy_means_to_do_is_no_fault(strategy):
    scheme = initx.strategies.MuP(base=transformer()) if strategy == "MuP" else strategy
    if strategy == "FromModel":
        donor = transformer()
        initx.initialize(donor, seed=1)
        scheme = initx.strategies.FromModel(donor)
    for build in MADE_FOR[strategy]:
        model = build()
        initx.initialize(model, scheme, seed=0)
        report = initx.diagnose(model, seed=0, samples=32)
        assert [str(verdict) for verdict in report.verdicts] == []
