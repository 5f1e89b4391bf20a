"""What AutoInit promises: pre-activations of second moment 1 wherever the moments can be followed."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx._keras_internals import NAME_COUNTS, set_global_attribute
from keras_initx.strategies import AutoInit
from keras_initx.walk import iter_kernels, trace


@pytest.fixture(autouse=True)
def _names_from_the_start():
    """Streams of random numbers follow from names, which Keras counts on from test to test."""
    set_global_attribute(NAME_COUNTS, None)


def plan_of(model, **settings):
    sites = tuple(site for site in iter_kernels(model) if site.fans)
    plan = AutoInit(**settings).plan(sites, model)
    assert set(plan) == set(sites)
    return {site.path: draw for site, draw in plan.items()}


def gains(model, **settings):
    return [draw.initializer.gain for draw in plan_of(model, **settings).values()]


def second_moment(tensor):
    return float((np.asarray(keras.ops.convert_to_numpy(tensor), dtype="float64") ** 2).mean())


def measured(build, shape, scheme="AutoInit", seeds=3, data=None, training=False):
    """Geometric mean over seeds of the output's second moment on Gaussian input."""
    logs = []
    for seed in range(seeds):
        model = build()
        if scheme:
            initx.initialize(model, scheme, seed=seed)
        rng = np.random.default_rng(seed)
        batch = rng.standard_normal(shape).astype("float32") if data is None else data(rng)
        logs.append(np.log(second_moment(model(batch, training=training))))
    return float(np.exp(np.mean(logs)))


def stack(make, shape, depth, activation):
    """A plain net whose last layer has no activation: its output is a pre-activation."""
    return lambda: keras.Sequential(
        [layers.Input(shape), *(make(activation) for _ in range(depth - 1)), make(None)]
    )


# Of a rectifier 5 (Hanin and Rolnick, 2018). GELU's 1 is an unstable fixed point, which widens the scatter.
SCATTER = {"relu": 5, "elu": 5, "tanh": 2, "gelu": 15}
SLOW = pytest.mark.slow
PLAIN = {
    "dense": (lambda a: layers.Dense(256, a), (256,), (32, 256), 24),
    "conv": (lambda a: layers.Conv1D(128, 3, activation=a), (44, 128), (4, 44, 128), 20),
    "separable": (lambda a: layers.SeparableConv1D(512, 3, activation=a), (44, 512), (4, 44, 512), 20),
    "transposed": (
        lambda a: layers.Conv2DTranspose(128, 2, 2, activation=a), (1, 1, 128), (4, 1, 1, 128), 6,
    ),
    "einsum": (
        lambda a: layers.EinsumDense("bsx,xy->bsy", (None, 128), activation=a), (8, 128), (8, 8, 128), 20,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "activation", ["relu", "tanh", *(pytest.param(a, marks=SLOW) for a in ("gelu", "elu"))]
)
@pytest.mark.parametrize("kind", PLAIN)
def test_plain_deep_nets_keep_their_pre_activations(kind, activation):
    """Each layer adds about SCATTER / width to the variance of the log of the second moment."""
    make, shape, batch, depth = PLAIN[kind]
    build = stack(make, shape, depth, activation)
    found = measured(build, batch)
    variance = depth * SCATTER[activation] / batch[-1]
    bound = np.exp(variance / 2 + 4 * np.sqrt(variance / 3))  # three seeds, four standard errors
    assert 1 / bound < found < bound
    if activation == "relu" or kind == "separable":
        assert measured(build, batch, None) < found / 10


def test_the_inputs_moments_count():
    model = keras.Sequential([layers.Input((64,)), layers.Rescaling(1 / 2, -1.0), layers.Dense(512)])
    settings = {"input_mean": 4.0, "input_variance": 12.0, "distribution": "uniform"}
    assert gains(model, **settings) == pytest.approx([0.5])  # mean 1, variance 3
    scheme = AutoInit(**settings)
    found = measured(
        lambda: model, None, scheme, data=lambda rng: 4 + 12**0.5 * rng.standard_normal((64, 64))
    )
    assert found == pytest.approx(1, rel=0.25)


@pytest.mark.parametrize(
    ("body", "gain"),
    [
        ([layers.Dropout(0.5)], 0.5**0.5),
        ([layers.GaussianNoise(1.0)], 0.5**0.5),
        ([layers.AveragePooling1D(4)], 2),
        ([layers.GlobalAveragePooling1D()], 4),
        ([layers.ZeroPadding1D(8)], 2**0.5),
        ([layers.BatchNormalization()], 1),
        ([layers.Activation("relu"), layers.BatchNormalization()], 1),
        ([layers.Activation("relu"), layers.RMSNormalization()], 1),
        ([layers.Reshape((8, 16)), layers.Permute((2, 1)), layers.Flatten()], 1),
        ([layers.UpSampling1D(2), layers.Cropping1D(1)], 1),
        ([layers.TimeDistributed(layers.Activation("relu"))], 2**0.5),
        ([initx.layers.ResidualScale(0.5)], 2),
        ([layers.Softmax()], None),
    ],
    ids=lambda value: "-".join(layer.name for layer in value) if isinstance(value, list) else "",
)
def test_what_stands_before_a_kernel(body, gain):
    model = keras.Sequential([layers.Input((16, 8)), *body, layers.Dense(512)])
    (found,) = gains(model)
    assert gain is None or found == pytest.approx(gain, rel=1e-3)
    assert [draw.note for draw in plan_of(model).values()] == [""]
    shape = (64, 16, 8)
    assert measured(lambda: model, shape, training=True, seeds=4) == pytest.approx(1, rel=0.3)


def functional(shape, body):
    def build():
        inputs = layers.Input(shape)
        return keras.Model(inputs, layers.Dense(256)(body(inputs)))

    return build


def residual(x):
    for _ in range(12):
        x = layers.Add()([x, layers.Dense(256)(layers.Dense(256, "relu")(x))])
    return x


MERGES = {
    "residual": ((256,), residual),
    "operator": ((256,), lambda x: x + x - 0.5 * layers.Dense(256)(x)),
    "average": ((256,), lambda x: layers.Average()([layers.Dense(256)(x), layers.Dense(256)(x)])),
    "gate": ((256,), lambda x: layers.Dense(256)(x) * layers.Dense(256, "sigmoid")(x)),
    "square": ((256,), lambda x: x * x / 4.0),
    "concat": ((256,), lambda x: layers.Concatenate()([x, layers.Dense(512, "relu")(x)])),
    "max": ((32, 32), lambda x: layers.MaxPooling1D(4)(layers.Dense(256, "relu")(x))),
    "max of inputs": ((32, 32), lambda x: layers.GlobalMaxPooling1D()(x)),
    "mean": ((32, 64), lambda x: keras.ops.mean(layers.Dense(256, "relu")(x), axis=1)),
    "dot": ((16, 32), lambda x: layers.Dot(axes=-1)([layers.Dense(32)(x), layers.Dense(32)(x)])),
    "attention": ((16, 64), lambda x: layers.MultiHeadAttention(4, 32)(x, x)),
    "scores": (
        (16, 64),
        lambda x: layers.MultiHeadAttention(4, 32, dropout=0.1)(x, x, return_attention_scores=True)[0],
    ),
    "softmax": ((16, 64), lambda x: keras.ops.softmax(x, axis=-1)),
}


@pytest.mark.parametrize("name", MERGES)
def test_branches_pools_and_products(name):
    shape, body = MERGES[name]
    build = functional(shape, body)
    assert not any(draw.note for draw in plan_of(build()).values())
    assert measured(build, (64, *shape), seeds=4) == pytest.approx(1, rel=0.35)


def small_net():
    """Convolutions, both poolings, a concatenation and a sum, as an architecture search would stack them."""
    x = inputs = layers.Input((32, 32, 3))
    for width in (48, 64, 96):
        x = layers.Conv2D(width, 3, activation="relu")(x)
        wide = layers.Concatenate()([layers.Conv2D(width, 1, activation="elu")(x), x])
        x = layers.Add()([layers.Conv2D(width, 1)(wide), x])
        x = (layers.MaxPooling2D if width == 64 else layers.AveragePooling2D)(2)(x)
    return keras.Model(inputs, layers.Dense(256)(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.tensorflow  # its moments are numbers of no backend's
def test_a_net_of_convolutions_pools_and_branches():
    assert not any(draw.note for draw in plan_of(small_net()).values())
    found = measured(small_net, (16, 32, 32, 3))
    assert 1 / 3 < found < 3
    assert measured(small_net, (16, 32, 32, 3), None) < found / 2


def transformer():
    inputs = layers.Input((32,), dtype="int32")
    x = layers.Embedding(512, 128)(inputs)
    for _ in range(4):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, 32)(y, y)
        y = layers.Dense(256, "gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(128)(y)
    return keras.Model(inputs, layers.Dense(128)(x))


@pytest.mark.tensorflow
def test_embeddings_and_attention():
    assert not any(draw.note for draw in plan_of(transformer()).values())
    found = measured(transformer, None, data=lambda rng: rng.integers(0, 512, (16, 32)))
    assert 1 / 2 < found < 2


def test_tied_embeddings_make_logits_of_the_size_of_states():
    inputs = layers.Input((8,), dtype="int32")
    table = layers.ReversibleEmbedding(300, 64)
    x = layers.LayerNormalization()(layers.Dense(64)(table(inputs)))
    model = keras.Model(inputs, table(x, reverse=True))
    found = measured(lambda: model, None, data=lambda rng: rng.integers(0, 300, (32, 8)))
    assert found == pytest.approx(1, rel=0.2)


class Odd(layers.Layer):
    """Neither element-wise nor made of operations that have a map."""

    def call(self, x):
        return keras.ops.cumsum(x, axis=-1)


def test_unknown_operations_are_noted():
    model = keras.Sequential(
        [layers.Input((8,)), Odd(), layers.Dense(4, name="a"), layers.Dense(4, name="b")]
    )
    plan = plan_of(model)
    assert "Cumsum" in plan["a"].note
    assert "taken as (0, 1)" in plan["a"].note
    assert (plan["a"].initializer.gain, plan["b"].note) == (1, "")


def test_recurrent_layers_take_a_signal_and_give_an_unknown_one():
    body = [layers.Activation("relu"), layers.LSTM(8, name="lstm"), layers.Dense(4, name="head")]
    plan = plan_of(keras.Sequential([layers.Input((5, 6)), *body]))
    draws = {path.split("/")[-1]: draw for path, draw in plan.items()}
    (gates,) = [d for p, d in plan.items() if "recurrent" not in p and p != "head"]
    assert gates.initializer.gain == pytest.approx(2**0.5, rel=1e-3)
    assert type(draws["recurrent_kernel"].initializer).__name__ == "OrthogonalScaled"
    assert "fed by LSTM `lstm`" in plan["head"].note


def test_a_shared_layer_counts_where_it_runs_first():
    shared, inputs = layers.Dense(8, "relu", name="shared"), layers.Input((8,))
    model = keras.Model(inputs, layers.Dense(8, name="last")(shared(shared(inputs))))
    plan = plan_of(model)
    assert plan["shared"].initializer.gain == 1
    assert "more than once" in plan["shared"].note
    assert plan["last"].initializer.gain == pytest.approx(2, rel=1e-3)  # twice halved


def test_a_frozen_layer_makes_an_unknown_signal():
    frozen = layers.Dense(8, trainable=False, name="frozen")
    plan = plan_of(keras.Sequential([layers.Input((8,)), frozen, layers.Dense(4, name="head")]))
    assert "frozen" in plan["head"].note


def test_a_signal_that_is_zero_is_noted():
    model = keras.Sequential([layers.Input((8,)), initx.layers.ResidualScale(), layers.Dense(4, name="head")])
    assert "second moment 0" in plan_of(model)["head"].note


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distribution": "cauchy"}, "`distribution` must be one of"),
        ({"input_mean": float("nan")}, "`input_mean` must be a finite number"),
        ({"input_mean": "1"}, "`input_mean` must be a finite number"),
        ({"input_variance": -1.0}, "`input_variance` must not be negative"),
        ({"input_variance": 0.0}, "`input_variance` must not be negative, and not 0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        AutoInit(**settings)


class Written(layers.Layer):
    """A lookup of tokens, a gated unit and a convolution, with weights of its own."""

    def build(self, _):
        shapes = {"table": (50, 32), "gate": (32, 48), "up": (32, 48), "down": (48, 32), "taps": (3, 32, 32)}
        for name, shape in shapes.items():
            setattr(self, name, self.add_weight(shape=shape, name=name))

    def call(self, ids):
        x = keras.ops.take(self.table, ids, axis=0)
        x = x + (keras.ops.silu(x @ self.gate) * (x @ self.up)) @ self.down
        return keras.ops.relu(keras.ops.conv(x, self.taps, padding="same"))


def by_layers():
    ids = layers.Input((6,), dtype="int32")
    x = layers.Embedding(50, 32, name="table")(ids)
    gated = layers.Dense(48, "silu", name="gate")(x) * layers.Dense(48, name="up")(x)
    x = x + layers.Dense(32, name="down")(gated)
    x = layers.Conv1D(32, 3, padding="same", activation="relu", name="taps")(x)
    return keras.Model(ids, layers.Dense(3, name="head")(x))


def test_a_layer_that_takes_its_own_weights_has_the_gains_of_keras_layers():
    by_hand = keras.Sequential(
        [layers.Input((6,), dtype="int32"), Written(name="own"), layers.Dense(3, name="head")]
    )
    found = gains(by_hand)
    assert found == pytest.approx(gains(by_layers()))
    assert min(found) < 1 < max(found)  # the maps count
    assert not any(draw.note for draw in plan_of(by_hand).values())


class Untraceable(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x) * float(keras.ops.convert_to_numpy(x).mean())


def test_what_cannot_be_traced_is_an_error():
    model = Untraceable()
    model.dense.build((None, 3))
    sites = tuple(iter_kernels(model))
    with pytest.raises(ValueError, match=r"must be traceable .* Take 'by_role'"):
        AutoInit().plan(sites, model)
    with pytest.raises(ValueError, match="`model` must be the model"):
        AutoInit().plan(sites)


def test_the_graph_tells_operands_kernels_and_sizes():
    inputs = layers.Input((5, 8))
    model = keras.Model(inputs, layers.EinsumDense("bsx,xy->bsy", (None, 4), activation="relu")(inputs) * 2.0)
    graph = trace(model)
    einsum, product = graph.nodes[-2:]
    assert (einsum.kind, einsum.activation, einsum.shape) == ("EinsumDense", "relu", (2, 5, 4))
    assert [kernel.name for kernel in einsum.kernels] == ["kernel"]
    assert (product.kind, product.operands[1].value, graph.outputs) == (
        "Multiply",
        2.0,
        (len(graph.nodes) - 1,),
    )
    assert trace(layers.Dense(3)).failure
