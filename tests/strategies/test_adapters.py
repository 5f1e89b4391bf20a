"""Starts of adapters: the function stays, the laws hold, and plain LoRA comes back."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx.adapters import enable_lora
from keras_initx.strategies import LoftQ, LoRA, PiSSA
from keras_initx.walk import iter_kernels

STARTS = ["LoRA", LoRA(rank_stable=True), "OrthogonalLoRA", "PiSSA", PiSSA(iterations=2), "OLoRA"]
CHANGING = ["PiSSA", "OLoRA"]


def _model(heads=4, embedding=True):
    keras.utils.set_random_seed(3)
    x = entry = layers.Input((6,), dtype="int32")
    x = layers.Embedding(20, 16, name="words")(x)
    attention = layers.MultiHeadAttention(heads, 16 // heads, name="attention")
    x = x + attention(x, x)
    x = layers.Conv1D(8, 3, padding="same", name="conv")(x)
    return keras.Model(entry, layers.Dense(5, name="head")(layers.Flatten()(x)))


def _adapted(rank=2, alpha=6, heads=4):
    model = _model(heads)
    ranks = {"words": rank, "query": rank, "attention_output": rank, "conv": rank, "head": rank}
    enable_lora(model, ranks, alpha=alpha)
    return model


TOKENS = np.random.default_rng(0).integers(0, 20, (8, 6))


def _outputs(model):
    return ops.convert_to_numpy(model(TOKENS))


def _values(model):
    return {weight.path: np.array(ops.convert_to_numpy(weight.value)) for weight in model.weights}


@pytest.mark.parametrize("start", STARTS, ids=range(6))
def test_a_start_keeps_the_function_and_all_other_weights(start):
    model = _adapted()
    before, values = _outputs(model), _values(model)
    initx.initialize(model, start, seed=1)
    np.testing.assert_allclose(_outputs(model), before, atol=1e-4)
    changed = {path for path, value in _values(model).items() if not np.array_equal(value, values[path])}
    bases = {site.adapter.kernel.path for site in iter_kernels(model, trace=False) if site.adapter}
    assert {path for path in changed if "lora_" not in path} <= bases
    assert bool(changed & bases) == (start in CHANGING or isinstance(start, PiSSA))


def test_the_lora_start_has_variance_2_over_the_true_fan_for_any_number_of_heads():
    for heads in (1, 2, 16):
        layer = layers.EinsumDense("abc,cde->abde", (None, heads, 64))
        layer.build((None, 3, 128))
        layer.enable_lora(32)
        initx.initialize(layer, "LoRA", seed=1)
        entries = ops.convert_to_numpy(layer.lora_kernel_a)
        # A uniform variable has kurtosis 1.8: four standard errors of its variance.
        error = 4 * np.sqrt(0.8 / entries.size)
        assert abs(entries.var() * 128 / 2 - 1) < error
        assert not ops.convert_to_numpy(layer.lora_kernel_b).any()


@pytest.mark.parametrize("start", ["LoRA", None])
def test_the_first_update_has_one_size_for_any_number_of_heads(start):
    """Under Adam, whose step has one size for each entry of B, the update is proportional to A."""

    def size(heads):
        keras.utils.set_random_seed(1)
        entry = layers.Input((4, 128))
        layer = layers.EinsumDense("abc,cde->abde", (None, heads, 64 // heads))
        model = keras.Model(entry, layers.Flatten()(layer(entry)))
        layer.enable_lora(4)
        if start:
            initx.initialize(model, start, seed=1)
        model.compile(keras.optimizers.Adam(1e-2), "mse")
        before = ops.convert_to_numpy(layer.kernel)
        x = np.random.default_rng(0).normal(size=(32, 4, 128)).astype("float32")
        model.fit(x, np.ones((32, 256), "float32"), epochs=1, batch_size=32, verbose=0)
        return np.sqrt(np.mean((ops.convert_to_numpy(layer.kernel) - before) ** 2))

    sizes = np.array([size(heads) for heads in (1, 4, 16)])
    if start:
        # 4 x 128 x heads entries of A, of which each update takes sums of 4: well within a tenth.
        assert sizes.max() / sizes.min() < 1.1
    else:  # Keras draws with heads times the fan
        np.testing.assert_allclose(sizes / sizes[0], [1, 1 / 2, 1 / 4], rtol=0.1)


def test_a_strategy_or_initializer_for_whole_models_draws_a_and_sets_b_to_zero():
    for initializer in ("by_role", "initx>HeScaled", "AutoInit", None):
        model = _adapted()
        bases = {site.path: ops.convert_to_numpy(site.adapter.kernel) for site in _bases(model)}
        for site in iter_kernels(model, trace=False):
            if site.role == "lora_b":
                site.kernel.assign(site.kernel + 1.0)
        initx.initialize(model, initializer, seed=1)
        for site in iter_kernels(model, trace=False):
            if site.role == "lora_b":
                assert not ops.convert_to_numpy(site.kernel).any()
        for site in _bases(model):
            np.testing.assert_array_equal(ops.convert_to_numpy(site.adapter.kernel), bases[site.path])


def _bases(model):
    return [site for site in iter_kernels(model, trace=False) if site.adapter and not site.is_factor]


def test_a_fresh_adapter_and_one_factor_alone():
    model = _adapted()
    before = _values(model)
    rows = initx.initialize(model, None, include="lora_*", seed=1).rows
    assert {row.role for row in rows} == {"lora_a", "lora_b"}
    assert len(rows) == 10
    rows = initx.initialize(model, "initx>OrthogonalScaled", include="lora_a", seed=1).rows
    assert {row.role for row in rows} == {"lora_a"}
    changed = {path for path, value in _values(model).items() if not np.array_equal(value, before[path])}
    assert all("lora_" in path for path in changed)


def test_a_seed_repeats_and_adapters_of_one_shape_differ():
    model = _model()
    enable_lora(model, {"query": 2, "key": 2, "value": 2})
    draws = []
    for seed in (1, 1, 2):
        initx.initialize(model, "LoRA", seed=seed)
        draws.append([ops.convert_to_numpy(s.kernel) for s in iter_kernels(model) if s.role == "lora_a"])
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.allclose(draws[0], draws[2])
    assert not np.allclose(draws[0][0], draws[0][1])


def test_the_rank_stable_scale_does_not_grow_when_it_is_asked_for_again():
    model = _adapted(rank=4, alpha=8)
    for _ in range(2):
        initx.initialize(model, LoRA(rank_stable=True))
        assert model.get_layer("head").lora_alpha == 16.0  # 8 / root(4) = 16 / 4
    initx.initialize(model, LoRA(alpha=16))
    initx.initialize(model, LoRA(rank_stable=True))
    assert model.get_layer("head").lora_alpha == 32.0  # the 16 was given, and is no scale of before
    with pytest.raises(ValueError, match="`rank_stable` must be True or False"):
        LoRA(rank_stable="no")


def test_a_new_alpha_reaches_a_model_that_has_been_compiled_and_run():
    model = _adapted(alpha=2)
    initx.initialize(model, "PiSSA")
    before = model.predict(TOKENS, verbose=0)
    initx.initialize(model, PiSSA(alpha=8))
    assert model.get_layer("head").lora_alpha == 8.0
    np.testing.assert_allclose(model.predict(TOKENS, verbose=0), before, atol=1e-4)


@pytest.mark.parametrize("start", STARTS, ids=range(6))
def test_plain_lora_on_the_original_base_computes_what_the_trained_model_computes(start):
    model = _adapted()
    original = _values(model)
    report = initx.initialize(model, start, seed=1)
    for weight in model.trainable_variables:
        if weight.name.startswith("lora_"):
            noise = np.random.default_rng(1).normal(size=tuple(weight.shape))
            weight.assign(ops.convert_to_numpy(weight) + 0.1 * noise)
    plain = report.as_lora(model)
    assert plain.rank == (4 if report.initializer in CHANGING or isinstance(start, PiSSA) else 2)
    fresh = _model()
    for weight in fresh.weights:
        weight.assign(original[weight.path])
    plain.apply(fresh)
    np.testing.assert_allclose(_outputs(fresh), _outputs(model), atol=1e-4)


@pytest.mark.parametrize("mode", ["int8", "int4"])
@pytest.mark.parametrize("block", [128, None])
def test_loftq_rounds_as_keras_does_and_comes_nearer_than_plain_quantization(mode, block):
    config = None
    if mode == "int4":
        config = keras.quantizers.Int4QuantizationConfig(block_size=block)

    def built(kind):
        keras.utils.set_random_seed(1)
        layer = {
            "dense": lambda: layers.Dense(24, use_bias=False),
            "query": lambda: layers.EinsumDense("abc,cde->abde", (None, 3, 8)),
            "words": lambda: layers.Embedding(30, 16),
        }[kind]()
        layer.build({"dense": (None, 32), "query": (None, 5, 32), "words": (None, 5)}[kind])
        return layer

    for kind in ("dense", "query", "words"):
        layer, plain = built(kind), built(kind)
        kernel = _effective(layer)
        layer.enable_lora(2)
        initx.initialize(layer, LoftQ(mode, block_size=block))
        adapter = next(iter_kernels(layer)).adapter
        base = ops.convert_to_numpy(adapter.kernel)
        # Quantized by Keras, the plain layer holds the base of the first round.
        plain.quantize(mode, config=config)
        np.testing.assert_allclose(_dequantized(plain, kind, kernel.shape), base, atol=1e-5)
        assert np.linalg.norm(_effective(layer) - kernel) < 0.97 * np.linalg.norm(base - kernel)
        # More rounds come nearer still.
        more = built(kind)
        more.enable_lora(2)
        initx.initialize(more, LoftQ(mode, iterations=4, block_size=block))
        assert np.linalg.norm(_effective(more) - kernel) < np.linalg.norm(_effective(layer) - kernel)


def _effective(layer):
    name = "embeddings" if isinstance(layer, layers.Embedding) else "kernel"
    return ops.convert_to_numpy(getattr(layer, name))


def _dequantized(layer, kind, shape):
    """The kernel that a quantized layer multiplies by: what it answers to one-hot inputs."""
    if kind == "words":
        return ops.convert_to_numpy(layer(np.arange(shape[0])[None]))[0]
    rows = np.eye(shape[0], dtype="float32")
    answers = layer(rows if kind == "dense" else rows[None])
    return ops.convert_to_numpy(answers).reshape(shape)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_the_middle_puts_everything_back(monkeypatch, error):
    model = _adapted()
    before, calls = _values(model), []
    alpha = model.get_layer("head").lora_alpha

    def failing(*args):
        calls.append(args)
        if len(calls) == 3:
            raise error
        return own(*args)

    own = PiSSA._factors
    monkeypatch.setattr(PiSSA, "_factors", lambda self, *args: failing(self, *args))
    with pytest.raises(error):
        initx.initialize(model, PiSSA(rank_stable=True))
    after = _values(model)
    assert all(np.array_equal(after[path], value) for path, value in before.items())
    assert model.get_layer("head").lora_alpha == alpha


def test_a_frozen_layer_keeps_its_adapter():
    model = _adapted()
    model.get_layer("head").trainable = False
    before = _values(model)
    report = initx.initialize(model, "PiSSA")
    after = _values(model)
    assert all(np.array_equal(after[p], v) for p, v in before.items() if p.startswith("head"))
    assert {row.note for row in report.rows if row.path.startswith("head")} == {"frozen: left as it is"}
    assert "head" not in {start.path for start in report.starts}


def test_what_an_adapter_does_not_fit_is_refused_and_changes_nothing():
    plain = _model()
    with pytest.raises(ValueError, match=r"must have layers with LoRA for PiSSA.*enable_lora"):
        initx.initialize(plain, "PiSSA")
    model = _adapted()
    before = _values(model)
    for arguments, words in [
        ({"include": "lora_a"}, "must leave whole adapters for PiSSA: A, B and their base kernel"),
        ({"overrides": {"head": "zeros"}}, "`overrides` must be empty for PiSSA"),
    ]:
        with pytest.raises(ValueError, match=words):
            initx.initialize(model, "PiSSA", **arguments)
    large = layers.Dense(3)
    large.build((None, 9))
    large.enable_lora(4)
    with pytest.raises(ValueError, match=r"of rank 4, for a kernel of 9 x 3.*at most 3"):
        initx.initialize(large, "PiSSA")
    odd = layers.Dense(8)
    odd.build((None, 9))
    odd.enable_lora(3)
    with pytest.raises(ValueError, match="even rank"):
        initx.initialize(odd, "OrthogonalLoRA")
    for bad in ({"alpha": 0}, {"iterations": -1}, {"iterations": 1.5}):
        with pytest.raises(ValueError, match=f"`{next(iter(bad))}` must be"):
            PiSSA(**bad)
    with pytest.raises(ValueError, match="`mode` must be"):
        LoftQ("nf4")
    after = _values(model)
    assert all(np.array_equal(after[path], value) for path, value in before.items())


def test_a_quantized_base_is_refused_where_it_would_change_and_the_cure_works():
    layer = layers.Dense(8)
    layer.build((None, 9))
    layer.quantize("int8")
    layer.enable_lora(2)
    with pytest.raises(ValueError, match=r'quantized to int8.*before `quantize`.*"LoRA" starts'):
        initx.initialize(layer, "PiSSA")
    assert [row.role for row in initx.initialize(layer, "LoRA", seed=1).rows] == ["lora_a", "lora_b"]
    cured = layers.Dense(8)
    cured.build((None, 9))
    cured.enable_lora(2)
    initx.initialize(cured, LoftQ("int8"))
    cured.quantize("int8")
    assert cured.quantization_mode == "int8"


def test_a_report_that_does_not_fit_makes_no_plain_lora():
    model = _adapted()
    report = initx.initialize(model, "by_role", include="lora_*")
    with pytest.raises(ValueError, match="the report must be of a start of adapters"):
        report.as_lora(model)
    first = initx.initialize(model, "PiSSA")
    assert first.as_lora(model).rank == 4
    last = initx.initialize(model, "PiSSA", include="head")
    for stale in (first, last):  # one base is another start's
        with pytest.raises(ValueError, match=r"other bases at .*Take the report of the last start"):
            stale.as_lora(model)
    with pytest.raises(ValueError, match="other bases at"):
        first.as_lora(_adapted())  # another model of the same paths
    part = layers.Dense(8)
    part.build((None, 9))
    part.enable_lora(2)
    report = initx.initialize(part, LoftQ("int8", iterations=2))
    with pytest.raises(ValueError, match=r"several rounds of LoftQ.*LoftQ\(iterations=1\)"):
        report.as_lora(part)
    assert initx.initialize(part, LoftQ("int8", iterations=1)).as_lora(part).base == "quantized"


def test_the_starts_of_some_adapters_are_enough():
    model = _adapted()
    report = initx.initialize(model, "PiSSA", include="head")
    plain = report.as_lora(model)
    assert len(plain.rows) == 5
    assert plain.rank == 4
    fresh = _model()
    plain.apply(fresh)
    np.testing.assert_allclose(_outputs(fresh), _outputs(model), atol=1e-4)


def test_biases_that_were_trained_are_told_by_plain_lora():
    model = _adapted()
    report = initx.initialize(model, "PiSSA")
    head = model.get_layer("head")
    head.bias.assign(head.bias + 1.0)
    with pytest.warns(UserWarning, match="the biases of head have changed, too: copy them"):
        report.as_lora(model)


@pytest.mark.parametrize("start", ["PiSSA", "OLoRA"])
@pytest.mark.parametrize("later", ["LoRA", "OrthogonalLoRA", None, "by_role", "initx>HeScaled"])
def test_a_start_after_one_that_took_from_the_base_gives_it_back(start, later):
    model = _adapted()
    before, original = _outputs(model), _values(model)
    initx.initialize(model, start)
    scope = {}
    if later not in ("LoRA", "OrthogonalLoRA"):
        scope["include"] = [site.path for site in iter_kernels(model, trace=False) if site.adapter]
    initx.initialize(model, later, **scope)
    np.testing.assert_allclose(_outputs(model), before, atol=1e-4)
    for path, value in _values(model).items():
        if "lora_" not in path:
            np.testing.assert_allclose(value, original[path], atol=1e-5)


def test_weights_that_are_loaded_after_a_start_are_whole():
    model = _adapted()
    original = _values(model)
    initx.initialize(model, "PiSSA")
    for weight in model.weights:
        if "lora_" not in weight.name:
            weight.assign(original[weight.path])
    initx.initialize(model, "LoRA")
    for path, value in _values(model).items():
        if "lora_" not in path:
            np.testing.assert_array_equal(value, original[path])


def test_adapters_of_a_model_that_was_trained_before_ask_for_another_compile():
    model = _model()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(TOKENS, np.zeros(8), verbose=0)
    with pytest.warns(UserWarning, match="call `compile` once more"):
        enable_lora(model, {"head": 2})
    with pytest.warns(UserWarning, match="call `compile` once more"):
        initx.initialize(model, "LoRA")
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    initx.initialize(model, "LoRA")
    kernel = next(iter_kernels(model.get_layer("head"))).adapter.kernel
    before = ops.convert_to_numpy(kernel)
    model.fit(TOKENS, np.zeros(8), verbose=0)
    np.testing.assert_array_equal(ops.convert_to_numpy(kernel), before)
    assert ops.convert_to_numpy(model.get_layer("head").lora_kernel_b).any()


def test_an_untied_table_has_an_adapter_and_a_kernel_beside_it():
    layer = layers.ReversibleEmbedding(12, 8, tie_weights=False)
    layer.build((None, 4))
    layer.enable_lora(2)
    report = initx.initialize(layer, "PiSSA")
    assert [row.role for row in report.rows] == ["embedding", "lora_a", "lora_b"]


def test_enable_lora_checks_before_it_changes():
    model = _model()
    for ranks, words in [
        (4, "`ranks` must map patterns"),
        ({"nothing": 2}, "`ranks` must hold roles"),
        ({"head": -1}, "`ranks` must be an int of at least 0"),
    ]:
        with pytest.raises(ValueError, match=words):
            enable_lora(model, ranks)
    assert enable_lora(model, {"*": 0, "head": 3}) == ("head",)
    with pytest.raises(ValueError, match="Dense has LoRA already"):
        enable_lora(model, {"conv": 2, "head": 2})
    assert not model.get_layer("conv").lora_enabled


def test_a_report_with_starts_is_plain_json():
    report = initx.initialize(_adapted(), "PiSSA")
    assert report.to_dict()["starts"]
    assert "head" in report.to_json()
