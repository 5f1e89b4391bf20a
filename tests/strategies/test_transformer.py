"""GPT-2, DeepNorm and T-Fixup: the size of each kernel, and what depth does to the whole."""

import math

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.strategies import DeepNorm, GPT2Residual, TFixup
from keras_initx.walk import iter_kernels

WIDTH, LENGTH, HIDDEN = 32, 8, 64


def attend(name, x, memory=None):
    return layers.MultiHeadAttention(4, WIDTH // 4, name=name)(x, x if memory is None else memory)


def feed(name, x):
    hidden = layers.Dense(HIDDEN, "relu", name=f"{name}_in")(x)
    return layers.Dense(WIDTH, name=f"{name}_out")(hidden)


def stack(depth, alpha=None, embed=False):
    """Pre-norm without alpha, post-norm with one; "plain" has no normalization."""
    inputs = layers.Input((LENGTH,) if embed else (LENGTH, WIDTH))
    x = layers.Embedding(50, WIDTH, name="tokens")(inputs) if embed else inputs
    for n in range(depth):
        for f, name in ((attend, f"mha{n}"), (feed, f"mlp{n}")):
            if alpha == "plain":
                x = x + f(name, x)
            elif alpha:
                x = layers.LayerNormalization(name=f"norm_{name}")(alpha * x + f(name, x))
            else:
                x = x + f(name, layers.LayerNormalization(name=f"norm_{name}")(x))
    return keras.Model(inputs, x)


def translator(encoder_layers, decoder_layers, norm=True):
    normal = (lambda x: layers.LayerNormalization()(x)) if norm else (lambda x: x)
    source, target = layers.Input((LENGTH,), name="source"), layers.Input((5,), name="target")
    x = layers.Embedding(50, WIDTH, name="enc_tokens")(source)
    for n in range(encoder_layers):
        x = normal(x + attend(f"enc_mha{n}", x))
        x = normal(x + feed(f"enc_mlp{n}", x))
    y = layers.Embedding(50, WIDTH, name="dec_tokens")(target)
    for n in range(decoder_layers):
        y = normal(y + attend(f"dec_mha{n}", y))
        y = normal(y + attend(f"dec_cross{n}", y, x))
        y = normal(y + feed(f"dec_mlp{n}", y))
    return keras.Model([source, target], y)


def planned(model, strategy):
    return {site.path: draw for site, draw in strategy.plan(tuple(iter_kernels(model)), model).items()}


def gains(model, strategy):
    plan = planned(model, strategy)
    return {path: draw.initializer.gain for path, draw in plan.items() if hasattr(draw.initializer, "gain")}


def assert_std(row, expected):
    # The standard deviation of n normal entries scatters by 1 / sqrt(2 n).
    assert row.std == pytest.approx(expected, rel=5 / math.sqrt(2 * math.prod(row.shape)))


def signal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def test_gpt2_draws_normal_kernels_and_smaller_ones_where_a_branch_ends():
    model = stack(3, embed=True)
    rows = {row.path: row for row in initx.initialize(model, "GPT2Residual", seed=1).rows}
    for path, row in rows.items():
        if row.role == "scale" or path.endswith(("bias", "beta")):
            continue
        ends = path.endswith(("attention_output", "_out"))
        assert_std(row, 0.02 / math.sqrt(6) if ends else 0.02)
        assert ("ends one of 6" in row.note) == ends


def test_gpt2_takes_another_size_for_positions():
    inputs = layers.Input((LENGTH,))
    positions = layers.Embedding(LENGTH, WIDTH, name="position_embedding")(
        ops.cumsum(ops.ones_like(inputs), 1)
    )
    x = layers.Embedding(50, WIDTH, name="tokens")(inputs) + positions
    model = keras.Model(inputs, x + feed("mlp", x))
    plan = planned(model, GPT2Residual(position_stddev=0.01))
    assert plan["position_embedding/embeddings"].initializer.stddev == 0.01
    assert plan["tokens/embeddings"].initializer.stddev == 0.02
    with pytest.raises(ValueError, match=r"`position_stddev` must be None .* Received: .* `overrides`"):
        planned(stack(1), GPT2Residual(position_stddev=0.01))


def test_what_gpt2_adds_to_the_stream_does_not_grow_with_depth():
    added, x = [], signal((16, LENGTH, WIDTH))
    for depth in (5, 25):
        model = stack(depth)
        initx.initialize(model, GPT2Residual(stddev=WIDTH**-0.5), seed=1)
        added.append(np.var(ops.convert_to_numpy(model(x)) - x))
    assert added[1] == pytest.approx(added[0], rel=0.5)
    assert 0.1 < added[1] < 10


@pytest.mark.parametrize("depth", [2, 6])
def test_deepnorm_scales_by_role(depth):
    model = stack(depth, alpha=2.0)
    rows = {row.path: row for row in initx.initialize(model, DeepNorm(), seed=1).rows}
    beta = (8 * depth) ** -0.25
    for row in rows.values():
        if row.fans:
            gain = 1.0 if row.role in ("query", "key") else beta
            assert_std(row, gain * math.sqrt(2 / (row.fans.fan_in + row.fans.fan_out)))
    note = f"alpha = {(2 * depth) ** 0.25:.4g}"
    assert note in rows["mha0/attention_output"].note
    assert note in rows["mlp0_out"].note
    assert not rows["mlp0_in"].note


@pytest.mark.parametrize("depth", [4, 20])
def test_the_bound_of_deepnorms_first_updates_is_one_at_any_depth(depth):
    # 2 N (v^2 + w^2) / alpha^2 of the paper's theorem, with v and w read off the plan.
    plan = planned(stack(depth, alpha=(2 * depth) ** 0.25), DeepNorm())
    alpha = (2 * depth) ** 0.25
    bound = sum(
        plan[f"{name}{n}{first}"].initializer.gain ** 2 + plan[f"{name}{n}{last}"].initializer.gain ** 2
        for n in range(depth)
        for name, first, last in (("mha", "/value", "/attention_output"), ("mlp", "_in", "_out"))
    )
    assert bound / alpha**2 == pytest.approx(1.0)


@pytest.mark.tensorflow
def test_deepnorms_gradients_neither_explode_nor_vanish_over_40_blocks():
    import tensorflow as tf

    model = stack(20, alpha=40**0.25)
    initx.initialize(model, DeepNorm(), seed=1)
    x = tf.constant(signal((8, LENGTH, WIDTH)))
    kernels = [model.get_layer(f"mlp{n}_out").kernel.value for n in (0, 19)]
    with tf.GradientTape() as tape:
        tape.watch(kernels)
        loss = tf.reduce_sum(model(x) * signal((8, LENGTH, WIDTH), 1))
    first, last = (float(tf.norm(g)) for g in tape.gradient(loss, kernels))
    assert 0.1 < first / last < 10


def test_deepnorm_tells_decoder_from_encoder():
    n, m = 3, 2
    found = gains(translator(n, m), DeepNorm())
    encoder, decoder = 0.87 * (n**4 * m) ** (-1 / 16), (12 * m) ** -0.25
    for path, gain in found.items():
        if "tokens" in path:
            continue
        beta = encoder if path.startswith("enc") else decoder
        assert gain == pytest.approx(1.0 if path.endswith(("query", "key")) else beta), path


@pytest.mark.parametrize(("encoder", "decoder"), [(1, 1), (2, 1), (1, 2), (3, 3)])
def test_the_decoder_is_found_or_named(encoder, decoder):
    model = translator(encoder, decoder)
    named = gains(model, DeepNorm(decoder="dec_*"))
    assert gains(model, DeepNorm()) == named
    assert gains(model, DeepNorm(layers=encoder, decoder_layers=decoder)) == named


def test_a_decoder_alone_is_as_an_encoder_to_deepnorm():
    model = stack(4, alpha=2.0)
    assert gains(model, DeepNorm(decoder="*")) == gains(model, DeepNorm())
    assert gains(model, DeepNorm(layers=9, decoder="*")) == gains(model, DeepNorm(layers=9))
    assert gains(model, DeepNorm(layers=9))["mlp0_in"] == pytest.approx(72**-0.25)


def test_tfixup_scales_branches_and_embeddings():
    n, m = 3, 2
    rows = initx.initialize(translator(n, m, norm=False), TFixup(), seed=1).rows
    decoder = (9 * m) ** -0.25
    for row in rows:
        if row.role == "embedding":
            assert_std(row, decoder * WIDTH**-0.5)
        elif row.fans:
            gain = 0.67 * n**-0.25 if row.path.startswith("enc") else decoder
            gain = 1.0 if row.role in ("query", "key") else gain
            assert_std(row, gain * math.sqrt(2 / (row.fans.fan_in + row.fans.fan_out)))
        assert not row.note


def test_tfixup_without_decoder_and_without_encoder():
    model = stack(4, alpha="plain", embed=True)
    alone, decoding = planned(model, TFixup()), planned(model, TFixup(decoder="*"))
    assert alone["mlp0_in"].initializer.gain == pytest.approx(0.67 * 4**-0.25)
    assert decoding["mlp0_in"].initializer.gain == pytest.approx(36**-0.25)
    for plan in (alone, decoding):
        assert plan["tokens/embeddings"].initializer.stddev == pytest.approx(36**-0.25 * WIDTH**-0.5)


def test_tfixup_keeps_a_deep_stack_without_normalization_bounded():
    x, sizes = signal((8, LENGTH, WIDTH)), []
    for depth in (5, 20):
        model = stack(depth, alpha="plain")
        initx.initialize(model, TFixup(), seed=1)
        sizes.append(np.var(ops.convert_to_numpy(model(x))))
    # Each block multiplies the variance by 1 + O(1 / N).
    assert sizes[1] == pytest.approx(sizes[0], rel=0.75)
    assert 0.5 < sizes[1] < 20


def test_tfixup_tells_of_normalization():
    notes = [draw.note for draw in planned(stack(2), TFixup()).values() if draw.note]
    assert notes == ["made for models without normalization"]


@pytest.mark.parametrize("strategy", [GPT2Residual, DeepNorm, TFixup])
def test_a_model_without_branches_is_refused_or_told_them(strategy):
    x = layers.Input((LENGTH, WIDTH))
    model = keras.Model(x, feed("mlp", attend("mha", x)))
    with pytest.raises(
        ValueError, match=rf"`{strategy.__name__}` is for models with residual branches.*branches="
    ):
        planned(model, strategy())
    plan = planned(model, strategy(branches=["mha", "mlp_*"]))
    assert set(plan) == {site.path for site in iter_kernels(model)}


@pytest.mark.parametrize("strategy", [DeepNorm, TFixup])
def test_a_model_without_attention_is_refused(strategy):
    x = layers.Input((LENGTH, WIDTH))
    model = keras.Model(x, x + feed("mlp", x))
    with pytest.raises(
        ValueError, match=rf"`{strategy.__name__}` is for models with attention.*GPT2Residual"
    ):
        planned(model, strategy())


@pytest.mark.parametrize("strategy", [DeepNorm, TFixup])
def test_bad_arguments_are_refused(strategy):
    for name in ("layers", "decoder_layers"):
        with pytest.raises(ValueError, match=rf"`{name}` must be an int of at least 1. Received: {name}=0"):
            strategy(**{name: 0})
    with pytest.raises(ValueError, match=r"`decoder_layers` must be None .* decoder_layers=2.*`layers`"):
        planned(stack(1), strategy(decoder_layers=2))
    with pytest.raises(ValueError, match=r"`decoder` must be a pattern .* Received: decoder='nowhere'"):
        planned(stack(1), strategy(decoder="nowhere"))


def test_bad_standard_deviations_are_refused():
    with pytest.raises(ValueError, match=r"`stddev` must be a positive, finite number. Received: stddev=0"):
        GPT2Residual(stddev=0)
    with pytest.raises(ValueError, match=r"`position_stddev` must be a positive"):
        GPT2Residual(position_stddev=-1.0)
