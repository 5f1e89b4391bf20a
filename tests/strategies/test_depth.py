"""MuP by depth (CompleteP): the factors of branches and rates, and steps that depth does not grow."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.optimizers import Multiplier, Multipliers, scale_rates
from keras_initx.strategies import MuP


def resnet(depth, width=8, end=lambda n: None, bias=True):
    """Pre-norm blocks; `end(n)` makes the layer after the last kernel of block n."""
    inputs = layers.Input((5,))
    x = layers.Dense(width, name="in")(inputs)
    for n in range(depth):
        f = layers.LayerNormalization(name=f"norm{n}")(x)
        f = layers.Dense(2 * width, "relu", name=f"first{n}", use_bias=bias)(f)
        f = layers.Dense(width, name=f"last{n}", use_bias=bias)(f)
        x = x + (layer(f) if (layer := end(n)) else f)
    x = layers.LayerNormalization(name="final")(x)
    return keras.Model(inputs, layers.Dense(3, name="out")(x))


def factors_of(report):
    return {row.path: row.factors for row in report.multipliers.rows}


def values(model):
    return {v.path: np.array(ops.convert_to_numpy(v), "float64") for v in model.trainable_variables}


L = 4  # of 8 blocks on a base of 2


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_factors_are_those_of_the_authors_code(alpha):
    """Rate, epsilon and decay as in nanoGPT-mup (epsilon as on master); those of the end by hand."""
    model = resnet(8, width=32)
    scheme = MuP(base=resnet(2), base_depth=2, alpha=alpha, optimizer="adamw")
    report = initx.initialize(model, scheme, seed=3)
    wide, depth, branch = 1 / 4, L ** (alpha - 1), L**-alpha
    end = 1 / L  # of W = L^-alpha V: V has `depth`, and W moves by L^-alpha times as much
    block = {
        "norm{}/gamma": (depth, wide * branch, depth),
        "norm{}/beta": (depth, wide * branch, depth),
        "first{}/kernel": (wide * depth, wide * branch, depth),
        "first{}/bias": (depth, wide * branch, depth),
        "last{}/kernel": (wide * end, wide, depth),
        "last{}/bias": (end, wide, depth),
    }
    expected = {path.format(n): factors for n in range(8) for path, factors in block.items()}
    expected |= dict.fromkeys(("in/kernel", "in/bias", "final/gamma", "final/beta"), (1, wide, 1))
    expected |= {"out/kernel": (wide, 1, 1), "out/bias": (1, 1, 1)}
    found = factors_of(report)
    assert set(found) == set(expected)
    for path, factors in expected.items():
        assert found[path] == pytest.approx(factors), path


def test_the_last_kernel_of_each_branch_is_divided():
    model, plain = resnet(8), resnet(8)
    initx.initialize(plain, seed=3)
    report = initx.initialize(model, MuP(base=resnet(2), base_depth=2), seed=3)
    for path, value in values(model).items():
        factor = 1 / L if path.startswith("last") and path.endswith("kernel") else 1
        np.testing.assert_allclose(value, values(plain)[path] * factor, rtol=1e-6)
    notes = {row.path for row in report.rows if "divides its residual branch" in row.note}
    assert notes == {f"last{n}" for n in range(8)}


def test_a_model_of_the_bases_depth_is_as_by_width_alone():
    report = initx.initialize(resnet(2, 32), MuP(base=resnet(2), base_depth=2), seed=3)
    other = initx.initialize(resnet(2, 32), MuP(base=resnet(2)), seed=3)
    assert factors_of(report) == factors_of(other)
    assert [row.std for row in report.rows] == [row.std for row in other.rows]


@pytest.mark.parametrize("depth", [1, 2])
def test_a_residual_scale_takes_the_factor(depth):
    def end(n):
        return initx.layers.ResidualScale(name=f"scale{n}")

    model = resnet(4 * depth, end=end)
    report = initx.initialize(model, MuP(base=resnet(depth, end=end), base_depth=depth, alpha=0.5), seed=3)
    found = factors_of(report)
    for n in range(4 * depth):
        assert float(ops.convert_to_numpy(model.get_layer(f"scale{n}").scale)) == 0.5
        assert found[f"scale{n}/scale"] == pytest.approx((1 / 4, 1, 1))
        assert found[f"last{n}/kernel"] == pytest.approx((1 / 2, 1 / 2, 1 / 2))
    base = resnet(depth, end=end)
    initx.initialize(base, MuP(base=resnet(depth, end=end), base_depth=depth), seed=3)
    assert float(ops.convert_to_numpy(base.get_layer("scale0").scale)) == 1


def test_a_normalization_at_the_end_takes_the_factor():
    def end(n):
        return layers.BatchNormalization(name=f"batch{n}")

    model = resnet(8, end=end)
    report = initx.initialize(model, MuP(base=resnet(2, end=end), base_depth=2), seed=3)
    found = factors_of(report)
    np.testing.assert_array_equal(values(model)["batch3/gamma"], 1 / L)
    assert found["batch3/gamma"] == found["batch3/beta"] == pytest.approx((1 / L, 1, 1))
    assert found["last3/kernel"] == pytest.approx((1, 1 / L, 1))


OPTIMIZERS = {
    "adam": lambda: keras.optimizers.AdamW(0.01, epsilon=1e-3, weight_decay=0.1),
    "lion": lambda: keras.optimizers.Lion(0.01),
    "muon": lambda: keras.optimizers.Muon(0.01, epsilon=1e-3),
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adafactor": lambda: keras.optimizers.Adafactor(0.01),
}


@pytest.mark.parametrize("alpha", [0.5, 1.0])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_factor_in_the_last_kernel_is_a_factor_in_the_model(name, alpha):
    """W = s V: the model with s W' in its branches, W' = V, steps as the model with W in them."""
    make = OPTIMIZERS[name]
    # Adafactor takes the size of a bias for 1e-3 at least, so that no rate makes up for a factor of 0.
    bias = name != "adafactor"
    s = L**-alpha
    folded = resnet(8, bias=bias)
    explicit = resnet(8, bias=bias, end=lambda n: layers.Rescaling(s))
    report = initx.initialize(
        folded, MuP(base=resnet(2, bias=bias), base_depth=2, alpha=alpha, optimizer=name), seed=3
    )
    last = [v.path.startswith("last") for v in folded.trainable_variables]
    rows = report.multipliers.rows
    inside = next(row for row in rows if row.path == "first0/kernel")
    factors = {}
    for v, source, row, ends in zip(
        explicit.trainable_variables, folded.trainable_variables, rows, last, strict=True
    ):
        # A copy: JAX gives the buffers of a model that trains away.
        v.assign(np.array(ops.convert_to_numpy(source)) / (s if ends else 1))
        # At the end the explicit model has the factors of all other weights of the branch.
        factors[id(v)] = Multiplier("", (), *inside.factors) if ends else row
    plain = make()
    optimizers = report.optimizer(make()), scale_rates(plain, Multipliers.of(explicit.weights, factors))
    x = np.random.default_rng(0).normal(size=(32, 5)).astype("float32")
    y = np.random.default_rng(1).normal(size=(32, 3)).astype("float32")
    start = ops.convert_to_numpy(folded(x))
    for model, optimizer in zip((folded, explicit), optimizers, strict=True):
        model.compile(optimizer, "mse")
        model.fit(x, y, 8, shuffle=False, verbose=0)
    ends, same = (ops.convert_to_numpy(model(x)) for model in (folded, explicit))
    moved = np.abs(ends - start).max()
    assert moved > 0.05
    np.testing.assert_allclose(ends, same, atol=2e-4 * moved)


def moved(depth, scheme, steps=2):
    """How much two steps of Adam change the outputs, in the root mean square."""
    model = resnet(depth, width=32)
    report = initx.initialize(model, scheme(depth), seed=3)
    x = np.random.default_rng(0).normal(size=(64, 5)).astype("float32")
    y = np.random.default_rng(1).normal(size=(64, 3)).astype("float32")
    before = ops.convert_to_numpy(model(x))
    model.compile(report.optimizer(keras.optimizers.Adam(2e-4)), "mse")
    model.fit(x, y, 64, epochs=steps, verbose=0)
    return np.sqrt(np.mean((ops.convert_to_numpy(model(x)) - before) ** 2))


def test_steps_change_the_outputs_by_an_amount_that_depth_does_not_grow():
    by_depth = [moved(depth, lambda _: MuP(base=resnet(2, 32), base_depth=2)) for depth in (2, 16)]
    by_width = [moved(depth, lambda d: MuP(base=resnet(d, 32))) for depth in (2, 16)]
    assert 0.5 < by_depth[1] / by_depth[0] < 2
    assert by_width[1] / by_width[0] > 2.5


def decoder(depth, width, heads=2):
    inputs = layers.Input((6,), dtype="int32")
    x = layers.Embedding(11, width, name="tokens")(inputs)
    for n in range(depth):
        f = layers.LayerNormalization(name=f"one{n}")(x)
        x = x + layers.MultiHeadAttention(heads, width // heads, name=f"attention{n}")(f, f)
        f = layers.LayerNormalization(name=f"two{n}")(x)
        f = layers.Dense(width, "gelu", name=f"up{n}")(f)
        x = x + layers.Dense(width, name=f"down{n}")(f)
    return keras.Model(inputs, layers.Dense(11, name="out")(layers.LayerNormalization(name="last")(x)))


@pytest.mark.parametrize(("base_depth", "depth"), [(1, 6), (2, 6), (3, 4), (4, 4)])
def test_blocks_are_paired_with_the_bases_whatever_their_number(base_depth, depth):
    """Feed-forward kernels have one shape here, and in the base nearly the output's."""
    base, model = decoder(base_depth, 12), decoder(depth, 48, heads=8)
    report = initx.initialize(model, MuP(base=base, base_depth=base_depth), seed=3)
    found, growth = factors_of(report), depth / base_depth
    assert found["tokens/embeddings"][:2] == (1, 1 / 4)
    assert found["out/kernel"][:2] == (1 / 4, 1)
    for n in range(depth):
        assert found[f"attention{n}/query/kernel"] == pytest.approx((1 / 4, 1 / 4 / growth, 1))
        assert found[f"up{n}/kernel"] == pytest.approx((1 / 4, 1 / 4 / growth, 1))
        assert found[f"attention{n}/attention_output/bias"] == pytest.approx((1 / growth, 1 / 4, 1))
        assert found[f"down{n}/kernel"] == pytest.approx((1 / 4 / growth, 1 / 4, 1))


class Block(layers.Layer):
    def __init__(self, width, **options):
        super().__init__(**options)
        self.norm, self.dense = layers.LayerNormalization(name="norm"), layers.Dense(width, name="dense")

    def call(self, x):
        float(ops.convert_to_numpy(x)[0, 0])  # a symbolic run stops here
        return x + self.dense(self.norm(x))


class Untraced(keras.Model):
    def __init__(self, depth, width):
        super().__init__()
        self.first, self.last = layers.Dense(width, name="first"), layers.Dense(2, name="last")
        self.blocks = [Block(width, name=f"block{n}") for n in range(depth)]

    def call(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x)


def test_branches_are_named_where_the_trace_finds_none():
    base, model = Untraced(2, 4), Untraced(4, 8)
    for one in (base, model):
        one(np.zeros((1, 3), "float32"))
    with pytest.raises(ValueError, match=r"`MuP` is for models with residual branches.*MuP\(branches="):
        initx.initialize(model, MuP(base=base, base_depth=2), seed=3)
    report = initx.initialize(model, MuP(base=base, base_depth=2, branches="block*"), seed=3)
    rows = {row.path: row.learning_rate for row in report.rows if row.role == "dense"}
    assert rows == {"first": 1, "last": 1 / 2} | {f"block{n}/dense": 1 / 2 / 2 for n in range(4)}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"base_depth": 0}, "`base_depth` must be an int of at least 1"),
        ({"base_depth": 2.0}, "`base_depth` must be an int"),
        ({"alpha": 0}, "`alpha` must be a positive"),
        ({"alpha": 2.0}, "`alpha` must be at most 1"),
    ],
)
def test_bad_depths_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        MuP(base=resnet(2), **options)


def test_bases_that_do_not_fit_are_refused():
    with pytest.raises(
        ValueError, match="`base_depth` must be the number of the base's blocks.*base_depth=3.*4 br"
    ):
        initx.initialize(resnet(8), MuP(base=resnet(4), base_depth=3), seed=3)
    with pytest.raises(ValueError, match="`base` must have the structure of the model.*a model of 27"):
        initx.initialize(resnet(8), MuP(base=resnet(2)), seed=3)
    with pytest.raises(ValueError, match="`base` must be the model with fewer blocks"):
        initx.initialize(resnet(8), MuP(base=decoder(2, 8), base_depth=2), seed=3)
    plain = keras.Sequential([layers.Input((5,)), layers.Dense(3)])
    with pytest.raises(ValueError, match="`MuP` is for models with residual branches"):
        initx.initialize(plain, MuP(base=plain, base_depth=1), seed=3)


def test_a_base_with_more_blocks_than_the_model_is_refused():
    with pytest.raises(
        ValueError, match="`base` must have no more blocks than the model.*4 residual branches"
    ):
        initx.initialize(resnet(2, 16), MuP(base=resnet(4), base_depth=4))
