"""Mimetic initialization: the products of kernels are what the law says."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.strategies import ByRole, Mimetic
from keras_initx.strategies._mimetic import MimeticFactor
from keras_initx.walk import iter_kernels


def model_of(width=48, heads=3, key_dim=16, value_dim=None, layer=layers.MultiHeadAttention, **options):
    inputs = layers.Input((5, width))
    if layer is layers.MultiHeadAttention:
        mha = layer(heads, key_dim, value_dim, name="mha", **options)
    else:
        mha = layer(head_dim=key_dim, num_query_heads=heads, name="mha", **options)
    return keras.Model(inputs, layers.Dense(7, name="head")(mha(inputs, inputs)))


def kernels(model):
    sites = {site.role: site for site in iter_kernels(model)}
    return {role: np.array(ops.convert_to_numpy(site.kernel), "float64") for role, site in sites.items()}


def heads_of(found):
    for n in range(found["query"].shape[1]):
        yield found["query"][:, n] @ found["key"][:, n].T


def joint(found):
    width = found["value"].shape[0]
    return found["value"].reshape(width, -1) @ found["attention_output"].reshape(-1, width)


def test_query_times_key_is_the_identity_cut_to_the_heads_rank():
    model = model_of()
    initx.initialize(model, Mimetic(alpha_qk=0.0, beta_qk=0.7), seed=1)
    for product in heads_of(kernels(model)):
        # 0.7 times a projection on 16 of 48 dimensions.
        np.testing.assert_allclose(product @ product, 0.7 * product, atol=1e-5)
        assert np.trace(product) == pytest.approx(0.7 * 16, rel=1e-5)


@pytest.mark.parametrize("beta", [0.7, -0.7])
def test_query_times_key_is_the_best_approximation_of_its_rank(beta):
    factor = {side: MimeticFactor(side, 0.5, beta, seed=3) for side in ("left", "right")}

    def product(rank):
        left, right = (np.array(ops.convert_to_numpy(factor[s]((24, 2, rank)))) for s in ("left", "right"))
        return [left[:, n] @ right[:, n].T for n in range(2)]

    for full, cut in zip(product(24), product(5), strict=True):
        u, s, vt = np.linalg.svd(full)
        np.testing.assert_allclose(cut, (u[:, :5] * s[:5]) @ vt[:5], atol=1e-4)
        # 24 diagonal entries of deviation 0.5 / sqrt(24), and the same without the diagonal.
        assert np.mean(np.diag(full)) == pytest.approx(beta, abs=5 * 0.5 / 24)
        noise = (full - beta * np.eye(24)) * 24**0.5
        assert np.std(noise) == pytest.approx(0.5, rel=5 / (2 * 576) ** 0.5)


def test_queries_attend_to_tokens_like_themselves():
    model = model_of()
    initx.initialize(model, "Mimetic", seed=1)
    products = list(heads_of(kernels(model)))
    for product in products:
        assert np.linalg.matrix_rank(product, tol=1e-4) == 16
        off = product[~np.eye(48, dtype=bool)]
        assert np.mean(np.diag(product)) > 0.3
        assert abs(np.mean(off)) < 5 * np.std(off) / off.size**0.5
    assert not np.allclose(products[0], products[1], atol=0.01)


@pytest.mark.parametrize(("heads", "value_dim"), [(3, 16), (3, 32), (1, 48)])
def test_value_times_output_is_minus_the_identity_and_noise(heads, value_dim):
    model = model_of(heads=heads, key_dim=16, value_dim=value_dim)
    initx.initialize(model, Mimetic(), seed=1)
    found = kernels(model)
    product = joint(found)
    assert np.mean(np.diag(product)) == pytest.approx(-0.4, abs=5 * 0.4 / 48)
    noise = (product + 0.4 * np.eye(48)) * 48**0.5
    assert np.std(noise) == pytest.approx(0.4, rel=5 / (2 * 48**2) ** 0.5)
    assert (np.abs(found["value"]).max(axis=0) > 0).all()
    initx.initialize(model, Mimetic(alpha_vo=0.0), seed=1)
    np.testing.assert_allclose(joint(kernels(model)), -0.4 * np.eye(48), atol=1e-5)


def test_fewer_units_than_the_width_take_the_largest_part():
    model = model_of(heads=2, key_dim=8)
    initx.initialize(model, Mimetic(alpha_vo=0.0), seed=1)
    product = joint(kernels(model))
    np.testing.assert_allclose(product @ product, -0.4 * product, atol=1e-5)
    assert np.linalg.matrix_rank(product, tol=1e-4) == 16


def test_all_other_kernels_are_drawn_by_role():
    model, other = model_of(), model_of()
    initx.initialize(model, Mimetic(), seed=1)
    initx.initialize(other, ByRole(), seed=1)
    np.testing.assert_array_equal(kernels(model)["dense"], kernels(other)["dense"])


def test_the_same_seed_gives_the_same_kernels_and_layers_differ():
    x = inputs = layers.Input((5, 16))
    for name in "ab":
        x = x + layers.MultiHeadAttention(2, 8, name=name)(x, x)
    model = keras.Model(inputs, x)

    def drawn(seed):
        initx.initialize(model, Mimetic(), seed=seed)
        return {s.path: np.array(ops.convert_to_numpy(s.kernel)) for s in iter_kernels(model)}

    one, again, other = drawn(1), drawn(1), drawn(2)
    for path, kernel in one.items():
        np.testing.assert_array_equal(kernel, again[path])
        assert not np.allclose(kernel, other[path])
    assert not np.allclose(one["a/query"], one["b/query"])


def test_half_precision_is_computed_in_single():
    wide = MimeticFactor("left", seed=1)((16, 2, 8))
    half = MimeticFactor("left", seed=1)((16, 2, 8), dtype="bfloat16")
    assert keras.backend.standardize_dtype(half.dtype) == "bfloat16"
    np.testing.assert_allclose(
        ops.convert_to_numpy(ops.cast(half, "float32")), ops.convert_to_numpy(wide), rtol=2**-7, atol=1e-6
    )


def test_a_factor_is_built_again_from_its_config():
    factor = MimeticFactor("right", 0.3, -0.2, True, seed=5)
    again = MimeticFactor.from_config(factor.get_config())
    np.testing.assert_array_equal(
        ops.convert_to_numpy(factor((2, 4, 8))), ops.convert_to_numpy(again((2, 4, 8)))
    )


def test_layers_that_the_law_does_not_fit_are_drawn_by_role_with_a_note():
    x, memory = layers.Input((5, 16)), layers.Input((4, 16))
    y = layers.MultiHeadAttention(2, 8, name="self")(x, x)
    y = layers.MultiHeadAttention(2, 8, name="cross")(y, memory)
    y = layers.GroupQueryAttention(8, 4, 2, name="grouped")(y, y)
    y = layers.MultiHeadAttention(2, 20, name="wide")(y, y)
    y = layers.MultiHeadAttention(2, 8, output_shape=12, name="narrow")(y, y)
    model = keras.Model([x, memory], y)
    plan = Mimetic().plan(tuple(iter_kernels(model)), model)
    notes = {site.attention: draw.note for site, draw in plan.items()}
    assert notes == {
        "self": "",
        "cross": "cross-attention: drawn by role",
        "grouped": "queries and keys differ in heads or width: drawn by role",
        "wide": "the heads are wider than the model: drawn by role",
        "narrow": "the output has another width than the values' input: drawn by role",
    }
    initx.initialize(model, Mimetic(), seed=1)


def test_a_model_without_self_attention_is_refused():
    x = layers.Input((5,))
    dense = keras.Model(x, layers.Dense(3)(x))
    grouped = model_of(heads=4, layer=layers.GroupQueryAttention, num_key_value_heads=2)
    for model, number in ((dense, 0), (grouped, 1)):
        with pytest.raises(
            ValueError, match=rf"`Mimetic` is for models with self-attention.*{number} attention.*by_role"
        ):
            initx.initialize(model, Mimetic(), seed=1)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"`alpha_qk` must be a finite number. Received: alpha_qk=nan"):
        Mimetic(alpha_qk=float("nan"))
    with pytest.raises(ValueError, match=r"`alpha_vo` and `beta_vo` must not both be 0"):
        Mimetic(alpha_vo=0, beta_vo=0)
    with pytest.raises(ValueError, match=r"`side` must be one of \['left', 'right'\]. Received: side='up'"):
        MimeticFactor("up")
    with pytest.raises(ValueError, match=r"`shape` must have three axes.* Received: shape=\(3, 4\)"):
        MimeticFactor()((3, 4))
