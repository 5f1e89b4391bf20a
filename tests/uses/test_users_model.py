"""The model of a user: attention and gated layers by hand, without one registration."""

import keras
import pytest
from keras import layers, ops
from sklearn.datasets import load_digits

import keras_initx as initx
from keras_initx.walk import iter_kernels
from support.zoo import Attention, FusedAttention, SwiGLU

BLOCKS = 3


def build():
    inputs = layers.Input((8, 8))
    x = layers.Dense(32, name="embed")(inputs)
    for block in range(BLOCKS):
        x = FusedAttention(name=f"attention{block}")(x)
        x = SwiGLU(name=f"gated{block}")(x)
    return keras.Model(inputs, layers.Dense(10, name="head")(layers.GlobalAveragePooling1D()(x)))


def test_each_kernel_has_its_place():
    sites = {site.path: site for site in iter_kernels(build())}
    assert len(sites) == 2 + 5 * BLOCKS
    assert not any(site.note for site in sites.values())
    ends = {path for path, site in sites.items() if site.ends_branch}
    assert ends == {
        f"{name}{block}/{kernel}"
        for block in range(BLOCKS)
        for name, kernel in (("attention", "out"), ("gated", "down"))
    }
    assert [sites[f"gated{block}/down"].activation for block in range(BLOCKS)] == ["swiglu"] * BLOCKS
    depths = [sites[f"attention{block}/fused"].depth for block in range(BLOCKS)]
    assert depths == [1, 5, 9]


@pytest.mark.parametrize("strategy", ["Fixup", "ZeroResidual", "GPT2Residual"])
def test_strategies_draw_all_and_end_each_branch_with_its_last_kernel(strategy):
    model = build()
    report = initx.initialize(model, strategy, seed=1)
    assert all(row.initializer for row in report.rows)
    assert not report.kept
    zero = {site.path for site in iter_kernels(model) if not ops.convert_to_numpy(site.kernel.value).any()}
    ends = {site.path for site in iter_kernels(model) if site.ends_branch}
    head = {"head"} if strategy == "Fixup" else set()
    assert zero == (set() if strategy == "GPT2Residual" else ends | head)


def with_attention(kind):
    x = inputs = layers.Input((6, 32))
    for block in range(3):
        x = SwiGLU(name=f"gated{block}")(kind(name=f"attention{block}")(x))
    return keras.Model(inputs, x)


def test_attention_that_is_written_out_has_the_roles_of_attention():
    sites = {site.path: site for site in iter_kernels(with_attention(Attention))}
    own = ("query", "key", "value", "out")
    roles = {p: s.role for p, s in sites.items() if s.attention}
    assert roles == {
        f"attention{block}/{name}": {"out": "attention_output"}.get(name, name)
        for block in range(3)
        for name in own
    }
    assert len({site.attention for site in sites.values()} - {""}) == 3
    assert not any(site.cross for site in sites.values())
    # Query, key and value from one product belong to the attention, and have no role of one of them.
    fused = [site for site in iter_kernels(with_attention(FusedAttention)) if site.attention]
    assert [(site.kernel.name, site.role) for site in fused] == [("fused", "dense")] * 3


def test_keys_from_elsewhere_make_it_a_cross_attention():
    class Cross(layers.Layer):
        def build(self, x_shape, memory_shape):
            self.q, self.k, self.v, self.o = (
                self.add_weight(shape=(x_shape[-1], x_shape[-1]), name=name) for name in "qkvo"
            )

        def call(self, x, memory):
            scores = ops.softmax((x @ self.q) @ ops.transpose(memory @ self.k, (0, 2, 1)) / 4)
            return x + (scores @ (memory @ self.v)) @ self.o

    inputs, memory = layers.Input((5, 16)), layers.Input((7, 16))
    model = keras.Model(
        [inputs, memory], Cross(name="own")(layers.Dense(16)(inputs), layers.Dense(16)(memory))
    )
    found = {site.kernel.name: (site.role, site.cross) for site in iter_kernels(model) if site.attention}
    assert found == {
        "q": ("query", True), "k": ("key", True), "v": ("value", True), "o": ("attention_output", True),
    }  # fmt: skip


def test_the_projections_of_an_attention_may_be_layers_of_their_own():
    class Linear(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(shape[-1], 16), name="w")

        def call(self, x):
            return x @ self.w

    inputs = layers.Input((5, 16))
    q, k, v = (Linear(name=name)(inputs) for name in "qkv")
    scores = ops.softmax(q @ ops.transpose(k, (0, 2, 1)) / 4)
    model = keras.Model(inputs, inputs + Linear(name="o")(scores @ v))
    sites = {site.layer.name: site for site in iter_kernels(model)}
    roles = {"q": "query", "k": "key", "v": "value", "o": "attention_output"}
    assert {name: site.role for name, site in sites.items()} == roles
    assert len({site.attention for site in sites.values()}) == 1


def test_deep_norm_scales_values_outputs_and_gated_kernels_by_depth():
    model = with_attention(Attention)
    initx.initialize(model, "DeepNorm", seed=1)
    gains = {
        site.kernel.name: ops.convert_to_numpy(site.kernel.value).std()
        * ((site.fans.fan_in + site.fans.fan_out) / 2) ** 0.5
        for site in iter_kernels(model)
        if site.path.startswith(("attention1", "gated1"))
    }
    beta = (8 * 3) ** -0.25
    # Of n normal numbers, the standard deviation scatters by 1 / sqrt(2 n) of itself; n is 1024 or more.
    for name, gain in gains.items():
        assert gain == pytest.approx(1 if name in ("query", "key") else beta, rel=4 / 2048**0.5)
    assert set(gains) == {"query", "key", "value", "out", "gate", "up", "down"}


@pytest.mark.integration
def test_it_trains_from_zero_branches():
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    model = build()
    initx.initialize(model, "ZeroResidual", seed=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    history = model.fit((x / 8 - 1).astype("float32").reshape(-1, 8, 8), y, epochs=3, verbose=0)
    assert history.history["accuracy"][-1] > 0.6  # 0.1 by chance
