"""What each scheme for residual nets sets, and that deep stacks stay bounded under it."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.layers import ResidualScale
from keras_initx.strategies import ByRole, Fixup, ReZero, SkipInit, ZeroResidual
from keras_initx.strategies._select import find_branches
from keras_initx.walk import Kernel, iter_kernels, register


def values(model):
    return {site.path: np.array(ops.convert_to_numpy(site.kernel), "float64") for site in iter_kernels(model)}


def stack(depth, width=64, inner=1, scale=False, head=None):
    """Blocks x + W relu(... W x), each of `inner` + 1 kernels."""
    x = inputs = layers.Input((width,))
    for n in range(depth):
        f = x
        for k in range(inner):
            f = layers.Dense(width, "relu", name=f"b{n}_{k}")(f)
        f = layers.Dense(width, name=f"b{n}_last")(f)
        x = layers.Add()([x, ResidualScale(0.5, name=f"b{n}_scale")(f) if scale else f])
    return keras.Model(inputs, layers.Dense(head, name="head")(x) if head else x)


class Block(layers.Layer):
    """A branch as a layer, in NumPy's company: a symbolic run stops at the float."""

    def __init__(self, width, norm=False, **kwargs):
        super().__init__(**kwargs)
        self.first, self.last = layers.Dense(width, "relu", name="first"), layers.Dense(width, name="last")
        self.norm = layers.LayerNormalization(name="norm") if norm else None

    def build(self, shape):
        for layer in filter(None, (self.first, self.last, self.norm)):
            layer.build(shape)

    def call(self, inputs):
        float(ops.convert_to_numpy(inputs)[0, 0])
        outputs = self.last(self.first(inputs))
        return outputs if self.norm is None else self.norm(outputs)


class Opaque(keras.Model):
    def __init__(self, depth=3, width=16, norm=False):
        super().__init__()
        self.blocks = [Block(width, norm, name=f"block{n}") for n in range(depth)]
        self.head = layers.Dense(5, name="head")

    def call(self, inputs):
        x = inputs
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def opaque(**arguments):
    model = Opaque(**arguments)
    model(ops.ones((2, 16)))
    return model


@pytest.mark.parametrize(("inner", "power"), [(1, -1 / 2), (2, -1 / 4), (3, -1 / 6)])
def test_fixup_scales_by_the_branches_and_ends_them_and_the_classifier_in_zeros(inner, power):
    model, depth = stack(5, inner=inner, head=3), 5
    initx.initialize(model, "by_role", seed=3)
    plain = values(model)
    initx.initialize(model, "Fixup", seed=3)
    for path, value in values(model).items():
        if path.endswith("last") or path == "head":
            assert not value.any()
        else:
            np.testing.assert_allclose(value, depth**power * plain[path], rtol=1e-5)


def test_fixup_leaves_kernels_outside_of_branches_and_zeroes_branches_of_one_kernel():
    inputs = layers.Input((8,))
    x = layers.Dense(8, "relu", name="stem")(inputs)
    x = layers.Add()([x, layers.Dense(8, name="single")(x)])
    x = layers.Dense(8, "relu", name="between")(x)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    initx.initialize(model, "by_role", seed=3)
    plain = values(model)
    initx.initialize(model, "Fixup", seed=3)
    drawn = values(model)
    for path in ("stem", "between"):
        np.testing.assert_array_equal(drawn[path], plain[path])
    assert not drawn["single"].any()
    assert not drawn["head"].any()


def test_fixup_counts_layers_in_branches_of_unequal_length():
    x = inputs = layers.Input((8,))
    for n, inner in enumerate((1, 3)):
        f = x
        for k in range(inner):
            f = layers.Dense(8, "relu", name=f"b{n}_{k}")(f)
        x = layers.Add()([x, layers.Dense(8, name=f"b{n}_last")(f)])
    sites = tuple(iter_kernels(keras.Model(inputs, x)))
    plain, plan = ByRole().plan(sites), Fixup().plan(sites)
    factors = {
        site.path: draw.initializer.gain / plain[site].initializer.gain
        for site, draw in plan.items()
        if hasattr(draw.initializer, "gain")
    }
    assert factors == pytest.approx({"b0_0": 2**-0.5, **{f"b1_{k}": 2 ** (-1 / 6) for k in range(3)}})


def test_fixup_sets_residual_scales_to_one_so_that_zero_kernels_learn():
    model = stack(2, scale=True)
    initx.initialize(model, "Fixup", seed=3)
    assert [float(v) for path, v in values(model).items() if path.endswith("scale/scale")] == [1, 1]


def test_fixup_leaves_tied_embeddings():
    inputs = layers.Input((4,), dtype="int32")
    embedding = layers.ReversibleEmbedding(11, 8, name="tokens")
    x = embedding(inputs)
    x = layers.Add()([x, layers.Dense(8, name="last")(layers.Dense(8, "relu", name="first")(x))])
    model = keras.Model(inputs, embedding(x, reverse=True))
    initx.initialize(model, "Fixup", seed=3)
    assert values(model)["tokens/embeddings"].any()


def branch_of(*ends):
    inputs = layers.Input((8,))
    x = layers.LayerNormalization(name="before")(inputs)
    x = layers.Dense(8, name="last")(layers.Dense(8, "relu", name="first")(x))
    for end in ends:
        x = end(x)
    return keras.Model(inputs, layers.Add()([inputs, x]))


@pytest.mark.parametrize(
    ("ends", "zero"),
    [
        ([], "last"),
        ([layers.BatchNormalization(name="norm")], "norm/gamma"),
        ([layers.BatchNormalization(scale=False, name="norm")], "last"),
        ([layers.RMSNormalization(name="norm")], "norm/scale"),
        ([layers.LayerNormalization(name="norm"), layers.Dropout(0.1)], "norm/gamma"),
        ([ResidualScale(1.0, name="alpha")], "alpha/scale"),
        ([layers.LayerNormalization(name="norm"), ResidualScale(1.0, name="alpha")], "alpha/scale"),
        ([layers.LayerNormalization(name="one"), layers.LayerNormalization(name="two")], "two/gamma"),
    ],
)
def test_zero_residual_sets_one_factor_to_zero(ends, zero):
    model = branch_of(*ends)
    initx.initialize(model, "by_role", seed=3)
    plain = values(model)
    initx.initialize(model, "ZeroResidual", seed=3)
    drawn = values(model)
    assert [path for path, value in drawn.items() if not value.any()] == [zero]
    for path in drawn.keys() - {zero}:
        np.testing.assert_array_equal(drawn[path], plain[path])
    x = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")
    np.testing.assert_allclose(ops.convert_to_numpy(model(x)), x, rtol=1e-6)


def test_zero_residual_zeroes_the_kernels_where_normalizations_stand_side_by_side():
    inputs = layers.Input((8,))
    ways = [
        layers.LayerNormalization(name=f"norm{n}")(layers.Dense(4, name=f"last{n}")(inputs)) for n in range(2)
    ]
    model = keras.Model(inputs, layers.Add()([inputs, layers.Concatenate()(ways)]))
    initx.initialize(model, "ZeroResidual", seed=3)
    assert {path for path, value in values(model).items() if not value.any()} == {"last0", "last1"}


@pytest.mark.parametrize("scheme", ["ReZero", "SkipInit"])
def test_rezero_sets_all_residual_scales_to_zero_and_only_them(scheme):
    model = stack(3, scale=True, head=2)
    initx.initialize(model, "by_role", seed=3)
    plain = values(model)
    initx.initialize(model, scheme, seed=3)
    for path, value in values(model).items():
        if path.endswith("scale"):
            assert plain[path] == 0.5
            assert value == 0
        else:
            np.testing.assert_array_equal(value, plain[path])


@pytest.mark.parametrize("scheme", ["ReZero", "SkipInit"])
def test_rezero_without_residual_scales_tells_what_to_do(scheme):
    with pytest.raises(ValueError, match=rf"`{scheme}`.*ResidualScale.*x \+ ResidualScale\(\)\(f\(x\)\)"):
        initx.initialize(stack(2), scheme, seed=3)


def test_a_deep_stack_explodes_with_he_and_is_the_identity_under_the_schemes():
    depth, width, samples = 25, 64, 256
    models = [stack(depth, width, scale=scale) for scale in (False, True)]
    x = np.random.default_rng(0).normal(size=(samples, width)).astype("float32")

    def second_moment(scheme):
        model = models[scheme in ("ReZero", "SkipInit")]
        initx.initialize(model, scheme, seed=3)
        outputs = np.array(ops.convert_to_numpy(model(x)), "float64")
        if scheme != "by_role":
            np.testing.assert_array_equal(outputs, x)
        return np.mean(outputs**2)

    # Each block adds as much variance as it gets: 2^25 of the input's. The log has a spread of about
    # sqrt(25 * 5 / 64) over draws of kernels of width 64.
    assert abs(np.log(second_moment("by_role")) - depth * np.log(2)) < 4 * (depth * 5 / width) ** 0.5
    for scheme in ("Fixup", "ZeroResidual", "ReZero", "SkipInit"):
        assert second_moment(scheme) == pytest.approx(np.mean(x.astype("float64") ** 2))


def test_the_first_step_of_fixup_changes_the_net_by_an_amount_that_depth_does_not_grow():
    # To first order a step on the last kernels, of gradient h^T g, changes the output by the sum over blocks
    # of h h^T g: with zeros at the ends all blocks see one input, so that h h^T is exact.
    x = np.random.default_rng(0).normal(size=(64, 64)).astype("float32")

    def change(depth, scheme):
        model = stack(depth)
        initx.initialize(model, scheme, seed=3)
        kernels = [v for path, v in values(model).items() if not path.endswith("last")]
        return sum(np.mean(np.sum(np.maximum(x @ kernel, 0) ** 2, axis=1)) for kernel in kernels)

    assert change(20, "Fixup") == pytest.approx(change(5, "Fixup"), rel=0.1)
    assert change(20, "ZeroResidual") == pytest.approx(4 * change(5, "ZeroResidual"), rel=0.1)


def test_models_that_cannot_be_traced_raise_and_take_patterns():
    model = opaque()
    for scheme in ("Fixup", "ZeroResidual"):
        with pytest.raises(ValueError, match=rf"`{scheme}`.*found none.*{scheme}\(branches="):
            initx.initialize(model, scheme, seed=3)
    initx.initialize(model, "by_role", seed=3)
    plain = values(model)
    initx.initialize(model, Fixup(branches="block*"), seed=3)
    for path, value in values(model).items():
        if path.endswith("last"):
            assert not value.any()
        elif path.endswith("first"):
            np.testing.assert_allclose(value, 3**-0.5 * plain[path], rtol=1e-5)


def test_patterns_are_grouped_by_layer_and_a_scale_after_the_last_kernel_ends_them():
    model = opaque(norm=True)
    report = initx.initialize(model, ZeroResidual(branches=["block0", "block[12]"]), seed=3)
    ended = [row.path for row in report.rows if "ends a residual branch" in row.note]
    assert sorted(ended) == [f"block{n}/norm/gamma" for n in range(3)]
    x = np.random.default_rng(0).normal(size=(4, 16)).astype("float32")
    outputs = x
    for block in model.blocks:
        outputs = outputs + ops.convert_to_numpy(block(outputs))
    np.testing.assert_array_equal(outputs, x)


@pytest.mark.parametrize("branches", [["block*", "tower*"], "tower*", ["dense"], [3]])
def test_patterns_that_match_nothing_raise(branches):
    with pytest.raises(ValueError, match="`branches` must hold patterns.*fits none"):
        initx.initialize(opaque(), Fixup(branches=branches), seed=3)


def test_no_pattern_at_all_is_no_branch():
    with pytest.raises(ValueError, match=r"`Fixup`.*branches=\[\]"):
        initx.initialize(opaque(), Fixup(branches=[]), seed=3)


def test_plain_nets_have_no_branches():
    plain = keras.Sequential([layers.Input((4,)), layers.Dense(4, "relu"), layers.Dense(2)])
    before = values(plain)
    for scheme in (Fixup(), ZeroResidual()):
        with pytest.raises(ValueError, match="residual branches.*the trace found none"):
            initx.initialize(plain, scheme, seed=3)
    for path, value in values(plain).items():
        np.testing.assert_array_equal(value, before[path])


def test_of_a_branch_that_an_unknown_layer_ends_the_known_kernel_before_it_is_the_last():
    """The trace looks through layers that it does not know."""

    class Mixer(layers.Layer):
        def build(self, shape):
            self.mixing = self.add_weight(shape=(shape[-1], shape[-1]), name="mixing")

        def compute_output_shape(self, shape):
            return shape

        def call(self, inputs):
            return inputs @ self.mixing * float(ops.max(inputs))  # a value: nothing sees what it does

    inputs = layers.Input((8,))
    x = Mixer(name="mixer")(layers.Dense(8, "relu", name="first")(inputs))
    model = keras.Model(inputs, layers.Add()([inputs, x]))
    rows = {row.path: row for row in initx.initialize(model, "Fixup", seed=3).rows}
    assert rows["first"].std == 0
    assert "teach it with keras_initx.walk.register" in rows["mixer/mixing"].note
    assert ops.convert_to_numpy(model.get_layer("mixer").mixing).any()


def test_a_branch_of_which_no_kernel_is_the_last_is_refused():
    sites = [dataclasses.replace(site, ends_branch=False) for site in iter_kernels(branch_of())]
    with pytest.raises(ValueError, match="a branch with `first` that ends in a layer that is not known"):
        find_branches("Fixup", sites, None)


def test_the_strategies_are_equal_by_value():
    assert SkipInit() == SkipInit()
    assert ReZero() == ReZero()
    assert Fixup("a*") != Fixup("b*")


class Gated(layers.Layer):
    """A branch whose kernels a user teaches; the last of them makes its output."""

    def build(self, shape):
        for name in ("gate", "value", "out"):
            setattr(self, name, self.add_weight(shape=(shape[-1], shape[-1]), name=name))

    def call(self, inputs):
        return (ops.sigmoid(inputs @ self.gate) * (inputs @ self.value)) @ self.out


@pytest.mark.parametrize(
    "strategy", [Fixup(), ZeroResidual(), Fixup(branches="b?"), ZeroResidual(branches="b?")]
)
def test_of_a_registered_layer_the_kernel_that_was_named_last_ends_the_branch(strategy):
    register(Gated, {name: Kernel("dense", layout="dense") for name in ("gate", "value", "out")})
    x = inputs = layers.Input((8,))
    for n in range(2):
        x = x + Gated(name=f"b{n}")(x)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    initx.initialize(model, strategy, seed=1)
    zeros = {path for path, value in values(model).items() if not value.any()}
    assert zeros - {"head"} == {"b0/out", "b1/out"}
    model.compile(keras.optimizers.SGD(0.5), "mse")
    model.fit(np.eye(8, dtype="float32"), np.ones((8, 3)), epochs=3, verbose=0)
    assert all(value.any() for value in values(model).values())
