"""Zero heads, and muP: sizes and learning rates as width grows."""

import math

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.strategies import ByRole, MuP, ZeroHead
from keras_initx.walk import iter_kernels


def values(model):
    return {site.path: np.array(ops.convert_to_numpy(site.kernel), "float64") for site in iter_kernels(model)}


def mlp(width, outputs=10, hidden=2, name_prefix=""):
    stack = [layers.Input((16,)), layers.Dense(width, "relu", name=f"{name_prefix}in")]
    stack += [layers.Dense(width, "relu", name=f"{name_prefix}hidden{n}") for n in range(hidden)]
    return keras.Sequential([*stack, layers.Dense(outputs, name=f"{name_prefix}out")])


def rates_of(report):
    """The factors of learning rates that are not 1, by the path of the row; of kernels and scales alone."""
    kept = [row for row in report.rows if row.role not in ("bias", "shift")]
    return {row.path: row.learning_rate for row in kept if row.learning_rate != 1}


class Opaque(keras.Model):
    def __init__(self):
        super().__init__()
        self.body, self.head = layers.Dense(4, "relu", name="body"), layers.Dense(2, name="head")

    def call(self, inputs):
        float(ops.convert_to_numpy(inputs)[0, 0])  # a symbolic run stops here
        return self.head(self.body(inputs))


def opaque():
    model = Opaque()
    model(ops.ones((2, 3)))
    return model


def test_zero_head_sets_the_output_kernels_to_zero_and_leaves_the_rest():
    inputs = layers.Input((8,))
    x = layers.Dense(8, "relu", name="body")(inputs)
    model = keras.Model(inputs, [layers.Dense(3, "softmax", name="one")(x), layers.Dense(2, name="two")(x)])
    initx.initialize(model, "by_role", seed=3)
    plain = values(model)
    initx.initialize(model, "ZeroHead", seed=3)
    drawn = values(model)
    np.testing.assert_array_equal(drawn["body"], plain["body"])
    assert not drawn["one"].any()
    assert not drawn["two"].any()
    probabilities, logits = (ops.convert_to_numpy(y) for y in model(ops.ones((4, 8))))
    np.testing.assert_allclose(probabilities, 1 / 3, rtol=1e-6)
    assert not logits.any()


def test_zero_head_takes_a_pattern_where_the_trace_finds_none():
    model = opaque()
    with pytest.raises(ValueError, match=r"`ZeroHead` needs a kernel.*ZeroHead\(head="):
        initx.initialize(model, "ZeroHead", seed=3)
    with pytest.raises(ValueError, match="`ZeroHead` needs a kernel.*head='top'"):
        initx.initialize(model, ZeroHead(head="top"), seed=3)
    initx.initialize(model, ZeroHead(head="head"), seed=3)
    assert {path: bool(value.any()) for path, value in values(model).items()} == {"body": True, "head": False}


def test_a_recurrent_layer_is_no_head():
    model = keras.Sequential([layers.Input((5, 3)), layers.LSTM(4)])
    with pytest.raises(ValueError, match="`ZeroHead` needs a kernel"):
        initx.initialize(model, "ZeroHead", seed=3)


def test_mup_at_base_width_is_by_role():
    one, other = mlp(32), mlp(32)
    initx.initialize(one, "by_role", seed=3)
    report = initx.initialize(other, MuP(base=mlp(32)), seed=3)
    assert report.learning_rates == {}
    for path, value in values(one).items():
        np.testing.assert_array_equal(value, values(other)[path])


def test_mup_keeps_activations_and_lets_outputs_fall_as_the_square_root_of_width():
    base, samples = 64, 64
    x = np.random.default_rng(0).normal(size=(samples, 16)).astype("float32")
    for width in (64, 256, 1024):
        model = mlp(width, outputs=100)
        initx.initialize(model, MuP(base=mlp(base, outputs=100)), seed=3)
        kernels, growth = values(model), width / base
        for path, variance in {
            "in": 1 / 16, "hidden0": 2 / width, "hidden1": 2 / width, "out": 2 / (width * growth)
        }.items():  # fmt: skip
            entries = kernels[path].size  # of a normal: Var of the variance is 2 / n
            assert np.mean(kernels[path] ** 2) == pytest.approx(variance, rel=5 * math.sqrt(2 / entries))
        h, pre = x.astype("float64"), {}
        for path, kernel in kernels.items():
            pre[path] = h @ kernel
            h = np.maximum(pre[path], 0)
        # Each layer draws a kernel whose rows of one sample have a second moment of relative spread
        # sqrt(5 / width); samples share the kernel.
        spread = math.sqrt(5 / min(width, 100) + 2 / 16 / samples)
        for n, path in enumerate(("in", "hidden0", "hidden1"), start=1):
            assert np.mean(pre[path] ** 2) == pytest.approx(1, rel=4 * spread * math.sqrt(n))
        assert np.mean(pre["out"] ** 2) * growth == pytest.approx(1, rel=4 * spread * 2)


def changes(kernels, rates, optimizer):
    """How much one step on each kernel alone moves that layer's outputs, from errors that no width moves."""
    rng = np.random.default_rng(0)
    x, errors = rng.normal(size=(32, 16)), rng.normal(size=(32, 10))
    inputs = [x]
    for kernel in list(kernels.values())[:-1]:
        inputs.append(np.maximum(inputs[-1] @ kernel, 0))
    moved, back = {}, errors
    for (path, kernel), signal in zip(reversed(kernels.items()), reversed(inputs), strict=True):
        gradient = signal.T @ back
        step = rates.get(path, 1) * (np.sign(gradient) if optimizer == "adam" else gradient)
        moved[path] = np.mean(np.abs(signal @ step))
        back = (back @ kernel.T) * (signal > 0)
    return moved


@pytest.mark.parametrize(
    ("optimizer", "layers_that_grow"), [("adam", ["hidden0", "hidden1", "out"]), ("sgd", ["out"])]
)
def test_one_step_of_mup_moves_each_layer_by_an_amount_that_width_does_not_grow(optimizer, layers_that_grow):
    moved = {}
    for width in (64, 1024):
        model = mlp(width)
        for scheme in (MuP(base=mlp(64), optimizer=optimizer), ByRole()):
            rates = rates_of(initx.initialize(model, scheme, seed=3))
            moved[type(scheme), width] = changes(values(model), rates, optimizer)
    ratios = {p: moved[MuP, 1024][p] / moved[MuP, 64][p] for p in moved[MuP, 64]}
    assert all(0.5 < ratio < 2 for ratio in ratios.values()), ratios
    plain = {p: moved[ByRole, 1024][p] / moved[ByRole, 64][p] for p in ratios}
    assert all(plain[path] > 8 for path in layers_that_grow), plain


@pytest.mark.parametrize(
    ("optimizer", "rates"),
    [
        ("adam", {"hidden0": 1 / 4, "hidden1": 1 / 4, "out": 1 / 4}),
        ("sgd", {"in": 4, "out": 1 / 4}),
    ],
)
def test_mup_learning_rates_of_inputs_hidden_and_outputs(optimizer, rates):
    report = initx.initialize(mlp(64), MuP(base=mlp(16), optimizer=optimizer), seed=3)
    assert rates_of(report) == pytest.approx(rates)
    assert "lr x" in str(report)


@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 1 / 2), ("sgd", 8 / 2)])
def test_mup_hidden_kernels_whose_sides_grow_by_different_factors(optimizer, rate):
    def build(one, other):
        dense = [layers.Dense(one, name="a"), layers.Dense(other, name="b"), layers.Dense(3, name="c")]
        return keras.Sequential([layers.Input((4,)), *dense])

    report = initx.initialize(build(8, 32), MuP(base=build(4, 4), optimizer=optimizer), seed=3)
    assert rates_of(report)["b"] == rate


def convnet(width, size=3):
    return keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(width, size, name="stem"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.BatchNormalization(name="norm"),
            layers.Conv2D(width, 1, groups=2, name="grouped"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(5, name="out"),
        ]
    )


@pytest.mark.parametrize(
    ("optimizer", "rates"),
    [
        ("adam", {"grouped": 1 / 4, "out": 1 / 4}),
        ("sgd", {"stem": 4, "depthwise": 4, "norm/gamma": 4, "out": 1 / 4}),
    ],
)
def test_mup_of_convolutions_and_scales(optimizer, rates):
    model = convnet(16)
    report = initx.initialize(model, MuP(base=convnet(4), optimizer=optimizer), seed=3)
    assert rates_of(report) == pytest.approx(rates)
    np.testing.assert_array_equal(values(model)["norm/gamma"], 1)


def test_mup_keeps_the_variance_of_tied_embeddings_at_the_bases():
    def build(width):
        inputs = layers.Input((4,), dtype="int32")
        embedding = layers.ReversibleEmbedding(500, width, name="tokens")
        x = layers.Dense(width, name="hidden")(embedding(inputs))
        return keras.Model(inputs, embedding(x, reverse=True))

    model = build(64)
    report = initx.initialize(model, MuP(base=build(16)), seed=3)
    kernel = values(model)["tokens/embeddings"]
    assert np.mean(kernel**2) == pytest.approx(1 / 16, rel=5 * math.sqrt(2 / kernel.size))
    assert rates_of(report) == {"hidden": 1 / 4}
    (row,) = (row for row in report.rows if row.path == "tokens/embeddings")
    assert "divide the logits" in row.note


def test_mup_pairs_layers_by_order_whatever_their_names():
    report = initx.initialize(mlp(32), MuP(base=mlp(16, name_prefix="base_")), seed=3)
    assert rates_of(report) == {"hidden0": 0.5, "hidden1": 0.5, "out": 0.5}


def test_mup_is_the_same_for_models_that_cannot_be_traced():
    report = initx.initialize(opaque(), MuP(base=opaque()), seed=3)
    assert report.learning_rates == {}


@pytest.mark.parametrize("base", [None, 64, keras.Sequential([layers.Dense(3)])])
def test_mup_needs_a_built_base(base):
    with pytest.raises(ValueError, match=r"`base` must be a built Keras model.*MuP\(base="):
        initx.initialize(mlp(16), MuP(base=base), seed=3)


def test_mup_by_name_tells_that_it_needs_a_base():
    with pytest.raises(ValueError, match="`base` must be a built Keras model.*base=None"):
        initx.initialize(mlp(16), "MuP", seed=3)


@pytest.mark.parametrize(
    ("base", "told"),
    [
        (lambda: mlp(8, hidden=1), "3 kernels for a model of 4.*`hidden1`"),
        (lambda: mlp(8, hidden=3), "5 kernels for a model of 4.*`hidden2`"),
        (lambda: convnet(4), "`stem`.*`in`"),
    ],
)
def test_mup_names_the_first_kernel_that_differs(base, told):
    with pytest.raises(ValueError, match=rf"`base` must have the structure of the model.*{told}"):
        initx.initialize(mlp(16), MuP(base=base()), seed=3)


def test_mup_takes_no_larger_receptive_field_for_width():
    with pytest.raises(ValueError, match="`base` must have the structure.*`stem`"):
        initx.initialize(convnet(16, size=5), MuP(base=convnet(4)), seed=3)


def test_mup_takes_no_wider_base_and_changes_nothing_then():
    model = mlp(16)
    before = values(model)
    with pytest.raises(ValueError, match="`base` must be no wider than the model.*`in`"):
        initx.initialize(model, MuP(base=mlp(32)), seed=3)
    for path, value in values(model).items():
        np.testing.assert_array_equal(value, before[path])


def test_mup_takes_known_optimizers():
    for optimizer in ("ftrl", keras.optimizers.Ftrl, keras.optimizers.Ftrl(), 3, None):
        with pytest.raises(
            ValueError, match=r"`optimizer` must be one of \['adafactor', .*Received: optimizer="
        ):
            MuP(base=mlp(16), optimizer=optimizer)


def test_plans_without_a_model_are_those_of_initialize():
    sites = tuple(iter_kernels(mlp(16)))
    plan = MuP(base=mlp(16)).plan(sites)
    assert {site.path for site in plan} == {site.path for site in ByRole().plan(sites)}
