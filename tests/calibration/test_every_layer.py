"""What is calibrated, and to what: each kind of layer, shared ones, parts of a model, runs as in training."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx import probe
from keras_initx.walk import iter_kernels
from support.outside_probe import assert_reported


def pooled_std(model, inputs, training=False):
    """The std over all calls of each site's pre-activation, from the outputs themselves."""
    seen = {}

    def observe(site, output):
        seen.setdefault(site.path, []).append(ops.convert_to_numpy(output).astype("float64").ravel())
        return output

    sites = [site for site in iter_kernels(model, trace=False) if not site.obstacle]
    probe.run(model, inputs, sites, observe, training=training)
    return {path: np.concatenate(parts).std() for path, parts in seen.items()}


def calibrated(model, inputs, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        report = initx.calibrate(model, inputs, **options)
    if inputs is not None and not options.get("training"):  # torch draws other masks in each run
        assert_reported(report, model, inputs)
    return report


@pytest.mark.parametrize("bias", ["zeros", "random_normal"])
@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize("rank", [1, 2])
def test_both_kernels_of_a_separable_convolution(rank, multiplier, bias, rng):
    layer = {1: layers.SeparableConv1D, 2: layers.SeparableConv2D}[rank]
    options = {"depth_multiplier": multiplier, "activation": "gelu", "bias_initializer": bias}
    model = keras.Sequential(
        [
            layers.Input((*(9,) * rank, 4)),
            layer(8, 3, padding="same", name="one", **options),
            layer(5, 3, strides=2, name="two", **options),
            layer(6, 2, dilation_rate=2, use_bias=False, name="three"),
        ]
    )
    x = rng.normal(2, 3, size=(20, *(9,) * rank, 4)).astype("float32")
    plain = ops.convert_to_numpy(model(x))
    sites = [site for site in iter_kernels(model, trace=False) if not site.obstacle]
    watched = ops.convert_to_numpy(probe.run(model, x, sites, lambda _, output: output))
    np.testing.assert_allclose(watched, plain, rtol=1e-4, atol=1e-4)
    report = calibrated(model, x)
    assert [row.role for row in report.rows] == ["depthwise", "pointwise"] * 3
    assert pooled_std(model, x) == pytest.approx({row.path: 1 for row in report.rows}, rel=1e-3)


def test_an_embedding_and_what_is_left_of_tied_ones(rng):
    tokens = rng.integers(0, 30, size=(16, 12))
    x = inputs = layers.Input((12,), dtype="int32")
    x = layers.Embedding(30, 8, name="plain")(x)
    x = layers.Dense(5, name="dense")(x)
    model = keras.Model(inputs, x)
    calibrated(model, tokens)
    assert pooled_std(model, tokens) == pytest.approx({"plain/embeddings": 1, "dense": 1}, rel=1e-3)

    x = inputs = layers.Input((12,), dtype="int32")
    one = layers.ReversibleEmbedding(30, 8, tie_weights=False, name="untied")
    two = layers.ReversibleEmbedding(30, 8, name="tied")
    model = keras.Model(inputs, [one(one(inputs), reverse=True), two(two(inputs), reverse=True)])
    with pytest.warns(UserWarning, match="`tied/embeddings`: its kernel also makes the logits"):
        report = initx.calibrate(model, tokens)
    stds = {row.path: row.std_after for row in report.rows if row.iterations}
    assert stds == pytest.approx({"untied/embeddings": 1, "untied/reverse_embeddings": 1}, rel=1e-3)
    assert pooled_std(model, tokens) == pytest.approx(stds, rel=1e-3)


@pytest.mark.parametrize("tolerance", [0.1, 1e-3])
def test_a_shared_layer_is_scaled_for_all_of_its_calls(tolerance, rng):
    x = inputs = layers.Input((16,))
    shared = layers.Dense(16, "relu", name="shared")
    for _ in range(4):
        x = shared(x)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    x = rng.normal(size=(64, 16)).astype("float32")
    report = calibrated(model, x, redraw=True, seed=1, tolerance=tolerance)
    stds = pooled_std(model, x)
    assert stds["head"] == pytest.approx(1, rel=1e-3)
    assert stds["shared"] == pytest.approx(1, rel=1.1 * tolerance)
    assert stds == pytest.approx({row.path: row.std_after for row in report.rows}, rel=1e-3)
    assert report.forward_passes == max(row.iterations for row in report.rows) > 1
    assert f"{report.forward_passes} forward passes" in str(report)


def test_too_few_passes_for_a_shared_layer_are_said_so(rng):
    x = inputs = layers.Input((16,))
    shared = layers.Dense(16, "relu", name="shared")
    for _ in range(4):
        x = shared(x)
    model = keras.Model(inputs, x)
    x = rng.normal(size=(64, 16)).astype("float32")
    with pytest.warns(UserWarning, match="`shared`: ran 4 times; its scale is .* off the law's"):
        report = initx.calibrate(model, x, tolerance=1e-6, max_iterations=2, redraw=True, seed=1)
    assert report.forward_passes == 2
    assert pooled_std(model, x)["shared"] == pytest.approx(report.rows[0].std_after, rel=1e-3)


def three_layers(**options):
    return keras.Sequential(
        [
            layers.Input((8,)),
            layers.Dense(9, "relu", name="one"),
            layers.Dense(7, "relu", name="two", **options),
            layers.Dense(3, name="three"),
        ]
    )


@pytest.mark.parametrize(
    ("options", "left"),
    [({"include": "two"}, ["one", "three"]), ({"exclude": ["one", "t*o"]}, ["one", "two"]), ({}, [])],
)
def test_only_what_is_chosen_changes(options, left, rng):
    model = three_layers()
    before = model.get_weights()
    x = rng.normal(2, 3, size=(50, 8)).astype("float32")
    report = calibrated(model, x, **options)
    chosen = [name for name in ("one", "two", "three") if name not in left]
    assert [row.path for row in report.rows] == chosen
    for layer, old in zip(model.layers, before[::2], strict=True):
        unchanged = np.array_equal(ops.convert_to_numpy(layer.kernel), old)
        assert unchanged == (layer.name in left)
    stds = pooled_std(model, x)
    assert [stds[name] for name in chosen] == pytest.approx([1] * len(chosen), rel=1e-3)


def test_frozen_layers_are_calibrated_when_asked(rng):
    model = three_layers(trainable=False)
    x = rng.normal(2, 3, size=(50, 8)).astype("float32")
    notes = {row.path: row.note for row in calibrated(model, x).rows}
    assert notes == {"one": "", "three": "", "two": "frozen: left as it is"}
    calibrated(model, x, frozen=True)
    assert pooled_std(model, x) == pytest.approx({"one": 1, "two": 1, "three": 1}, rel=1e-3)


def test_a_run_as_in_training_takes_the_batch_s_statistics_and_leaves_the_moving_ones(rng):
    model = keras.Sequential(
        [
            layers.Input((8,)),
            layers.Dense(9, name="one"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.5),
            layers.Dense(7, name="two"),
        ]
    )
    moving = [ops.convert_to_numpy(v).copy() for v in model.non_trainable_variables]
    x = rng.normal(5, 3, size=(400, 8)).astype("float32")
    report = calibrated(model, x, training=True, samples=400)
    for old, variable in zip(moving, model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), old)
    stds = pooled_std(model, x, training=True)
    assert stds["one"] == pytest.approx(1, rel=1e-3)
    assert stds["two"] == pytest.approx(1, rel=0.1)  # torch draws another dropout
    assert report.rows[1].std_after == pytest.approx(1)
    norm = ops.convert_to_numpy(model.get_layer("norm")(model.layers[0](x), training=True))
    assert norm.std() == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": "nowhere"}, "`include` must hold roles, or patterns"),
        ({"include": "one", "exclude": "one"}, "must leave some weights"),
        ({"tolerance": 0}, "`tolerance` must be a positive"),
        ({"tolerance": "0.1"}, "`tolerance` must be a positive"),
        ({"max_iterations": 0}, "`max_iterations` must be an int of at least 1"),
        ({"max_iterations": True}, "`max_iterations` must be an int of at least 1"),
    ],
)
def test_bad_arguments_change_nothing(options, message, rng):
    model = three_layers()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        initx.calibrate(model, rng.normal(size=(50, 8)), **options)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_without_data_tokens_are_drawn_within_their_vocabulary_and_masks_are_ones():
    tokens = layers.Input((None,), dtype="int32", name="tokens")
    mask = layers.Input((None,), dtype="int32", name="a_mask")
    size = layers.Input((3,), name="size")
    x = layers.Embedding(7, 16, name="embed")(tokens)
    x = x * ops.expand_dims(ops.cast(mask, "float32"), -1)
    x = layers.GlobalAveragePooling1D()(x) + layers.Dense(16, name="sized")(size)
    model = keras.Model({"tokens": tokens, "a_mask": mask, "size": size}, layers.Dense(2, name="head")(x))
    report = calibrated(model, None, seed=3)
    assert {row.path: row.std_after for row in report.rows} == pytest.approx(
        {"embed/embeddings": 1, "sized": 1, "head": 1}, rel=1e-3
    )
    batch = initx.data.take_pair(model, None, 50, None, 3, [((), None), ((), None), ((), 7)])[0]
    assert {name: array.shape for name, array in batch.items()} == {
        "tokens": (50, 32), "a_mask": (50, 32), "size": (50, 3)
    }  # fmt: skip
    assert (batch["a_mask"] == 1).all()
    assert np.unique(batch["tokens"]).tolist() == list(range(7))
