"""`FromModel`: functions that a wider model keeps, units that a narrower one takes, depth and channels."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx.strategies import FromModel
from support.grown_models import CHANGE, INPUTS, STAY, difference, randomized


def numpy(value):
    return keras.ops.convert_to_numpy(value)


def mlp(width, classes=3, inputs=8, head="head"):
    return keras.Sequential(
        [
            layers.Input((inputs,)),
            layers.Dense(width, "relu", name="one"),
            layers.Dense(width, "relu", name="two"),
            layers.Dense(classes, name=head),
        ]
    )


@pytest.mark.parametrize("name", STAY)
def test_a_wider_model_computes_the_function_of_its_donor(name):
    build, kind = STAY[name]
    donor, model = randomized(build(8)), build(16)
    report = initx.initialize(model, FromModel(donor, width="clone"), seed=1)
    assert report.matched == 1
    assert difference(donor, model, INPUTS[kind]) < 1e-4
    notes = [row.note for row in report.rows if row.note and "for the width of its sums" not in row.note]
    assert notes == []


@pytest.mark.parametrize("name", CHANGE)
def test_the_row_says_why_a_wider_model_computes_another_function(name):
    build, kind, reason = CHANGE[name]
    donor, model = randomized(build(8)), build(16)
    report = initx.initialize(model, FromModel(donor, width="clone"), seed=1)
    assert difference(donor, model, INPUTS[kind]) > 1e-2
    assert any(reason in row.note for row in report.rows)


@pytest.mark.parametrize("name", ["bidirectional", "concatenate_and_flatten", "dense", "more_heads"])
def test_the_function_stays_at_widths_that_are_no_multiple(name):
    build, kind = STAY[name]
    donor, model = randomized(build(8)), build(12)
    report = initx.initialize(model, FromModel(donor, width="clone"), seed=1)
    assert difference(donor, model, INPUTS[kind]) < 1e-4
    assert not any(row.note for row in report.rows)


@pytest.mark.parametrize("name", ["layer_norm", "group_norm", "swiglu", "wider_heads"])
def test_a_mean_over_unevenly_copied_units_is_told(name):
    build, kind = STAY[name]
    donor, model = randomized(build(8)), build(12)
    report = initx.initialize(model, FromModel(donor, width="clone"), seed=1)
    assert difference(donor, model, INPUTS[kind]) > 1e-2
    assert any("no multiple of the donor's" in row.note for row in report.rows)


def test_clones_are_copies_and_their_shares_sum_to_the_donors_weight():
    donor, model = randomized(mlp(8)), mlp(24)
    initx.initialize(model, FromModel(donor, width="clone"), seed=1)
    first, second = (numpy(net.get_layer("two").kernel) for net in (donor, model))
    # HyperCloning: the kernel tiled 3 x 3 times, over 3.
    np.testing.assert_allclose(second, np.tile(first, (3, 3)) / 3, rtol=1e-6)
    np.testing.assert_array_equal(numpy(model.get_layer("two").bias), np.tile(donor.get_layer("two").bias, 3))


def test_noise_makes_clones_differ_and_keeps_the_function():
    donor, model = randomized(mlp(8)), mlp(24)
    initx.initialize(model, FromModel(donor, width="clone", noise=0.2), seed=1)
    kernel = numpy(model.get_layer("two").kernel)
    plain = np.tile(numpy(donor.get_layer("two").kernel), (3, 3)) / 3
    moved = kernel - plain
    # A unit has three copies; the mean of three is taken off, which leaves 2/3 of the variance.
    # 576 entries: a standard deviation is known to 1 / sqrt(2 * 576) = 3 %, four of which are 12 %.
    assert moved.std() == pytest.approx(0.2 * plain.std() * np.sqrt(2 / 3), rel=0.12)
    np.testing.assert_allclose(moved.reshape(3, 8, 24).sum(0), 0, atol=1e-6)
    assert difference(donor, model, INPUTS["features"]) < 1e-4


@pytest.mark.parametrize(("width", "index"), [(8, [0, 2, 4, 6, 8, 10, 12, 14]), (6, [0, 3, 6, 9, 12, 15])])
def test_a_narrower_model_takes_evenly_spaced_units_the_same_in_all_layers(width, index):
    donor, model = randomized(mlp(16)), mlp(width)
    report = initx.initialize(model, FromModel(donor), seed=1)
    weights = {
        name: [numpy(v) for v in (donor.get_layer(name).kernel, donor.get_layer(name).bias)]
        for name in ("one", "two", "head")
    }
    expected = {
        "one": (weights["one"][0][:, index], weights["one"][1][index]),
        "two": (weights["two"][0][np.ix_(index, index)], weights["two"][1][index]),
        "head": (weights["head"][0][index], weights["head"][1]),
    }
    for name, (kernel, bias) in expected.items():
        np.testing.assert_array_equal(numpy(model.get_layer(name).kernel), kernel)
        np.testing.assert_array_equal(numpy(model.get_layer(name).bias), bias)
    assert report.matched == 1
    assert {row.initializer for row in report.rows} == {"donor"}
    assert {row.path: row.source for row in report.rows}["two/bias"] == "two/bias"


def with_heads(heads):
    inputs = keras.Input((8, 8, 1))
    x = layers.Reshape((64, -1))(layers.Conv2D(6 * heads, 3, padding="same")(inputs))
    return keras.Model(inputs, layers.Dense(3)(layers.MultiHeadAttention(heads, 6)(x, x)))


def test_a_model_of_one_head_takes_the_first():
    """The bias of a query has an axis for its heads, which is no table of positions."""
    donor, model = with_heads(2), with_heads(1)
    for weight in donor.weights:
        weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    report = initx.initialize(model, FromModel(donor))
    assert report.matched == 1
    query, own = (net.layers[3].query_dense for net in (donor, model))
    np.testing.assert_array_equal(numpy(own.bias), numpy(query.bias)[:1])
    # And back: two heads from one compute the same.
    wide = with_heads(2)
    initx.initialize(wide, FromModel(model, width="clone"))
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 1)).astype("float32")
    outputs = [numpy(net(x)) for net in (model, wide)]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-4 * outputs[0].std())


def test_a_narrower_model_selects_whole_heads_and_units_of_each():
    def build(width, heads):
        entry = layers.Input((6, width))
        return keras.Model(entry, layers.MultiHeadAttention(heads, 4, name="mha")(entry, entry))

    donor = randomized(build(8, 4))
    model = build(8, 2)
    initx.initialize(model, FromModel(donor), seed=1)
    first, second = (net.get_layer("mha") for net in (donor, model))
    np.testing.assert_array_equal(
        numpy(second.query_dense.kernel), numpy(first.query_dense.kernel)[:, [0, 2]]
    )
    np.testing.assert_array_equal(numpy(second.output_dense.kernel), numpy(first.output_dense.kernel)[[0, 2]])


def blocks(count, width=8):
    entry = layers.Input((6, width))
    x = entry
    for _ in range(count):
        h = layers.LayerNormalization()(x)
        x = x + layers.Dense(width)(layers.Dense(2 * width, "gelu")(h))
    return keras.Model(entry, layers.Dense(3)(layers.LayerNormalization()(x)))


@pytest.mark.parametrize(
    ("depth", "own", "taken"),
    [
        ("first", 2, [0, 1]),
        ("uniform", 2, [0, 2]),
        ("uniform", 8, [0, 0, 1, 1, 2, 2, 3, 3]),
        ("stack", 8, [0, 1, 2, 3, 0, 1, 2, 3]),
        ("first", 6, [0, 1, 2, 3, None, None]),
    ],
)
def test_blocks_of_another_depth(depth, own, taken):
    donor, model = randomized(blocks(4)), blocks(own)
    report = initx.initialize(model, FromModel(donor, depth=depth), seed=1)
    wide = lambda net: [layer for layer in net.layers if getattr(layer, "units", 0) == 16]  # noqa: E731
    theirs = {id(layer): n for n, layer in enumerate(wide(donor))}
    source = {row.path: row.source for row in report.rows}
    names = {layer.name: theirs[id(layer)] for layer in wide(donor)}
    assert [names.get(source[layer.name]) for layer in wide(model)] == taken
    if None in taken:
        assert any("the donor has 4 such blocks" in row.note for row in report.rows)


def test_new_blocks_begin_at_zero():
    donor, model = randomized(blocks(2)), blocks(5)
    report = initx.initialize(model, FromModel(donor, depth="identity"), seed=1)
    np.testing.assert_array_equal(numpy(model(INPUTS["sequence"])), numpy(donor(INPUTS["sequence"])))
    assert sum("begins at zero" in row.note for row in report.rows) == 3


def first_conv(channels, kind=layers.Conv2D, size=(3, 3)):
    entry = layers.Input((*(6,) * len(size), channels))
    return keras.Model(entry, kind(4, size, name="conv")(entry))


def test_a_grey_image_is_computed_as_three_equal_channels():
    donor, model = randomized(first_conv(3)), first_conv(1)
    initx.initialize(model, FromModel(donor), seed=1)
    grey = np.random.default_rng(0).normal(size=(2, 6, 6, 1)).astype("float32")
    np.testing.assert_allclose(numpy(model(grey)), numpy(donor(grey.repeat(3, -1))), atol=1e-5)


def test_more_channels_repeat_the_donors_and_keep_their_sum():
    donor, model = randomized(first_conv(3)), first_conv(5)
    initx.initialize(model, FromModel(donor), seed=1)
    first, second = (numpy(net.get_layer("conv").kernel) for net in (donor, model))
    np.testing.assert_allclose(second, first[:, :, [0, 1, 2, 0, 1]] * 3 / 5, rtol=1e-5)


def test_an_image_that_does_not_change_along_a_new_axis_is_computed_the_same():
    donor, model = randomized(first_conv(2)), first_conv(2, layers.Conv3D, (3, 3, 3))
    report = initx.initialize(model, FromModel(donor), seed=1)
    image = np.random.default_rng(0).normal(size=(2, 6, 6, 2)).astype("float32")
    volume = np.repeat(image[:, None], 6, 1)
    expected = numpy(donor(image))[:, None].repeat(4, 1)
    np.testing.assert_allclose(numpy(model(volume)), expected, atol=1e-5)
    assert report.matched == 1
    assert "repeated over 3 taps" in report.rows[0].note


def test_the_noise_of_two_kernels_of_one_shape_differs():
    def build(width):
        hidden = [layers.Dense(width, name=f"h{n}") for n in range(3)]
        return keras.Sequential([layers.Input((4,)), *hidden])

    donor = build(4)
    for layer in donor.layers:
        layer.kernel.assign(np.eye(4))
    model = build(8)
    initx.initialize(model, FromModel(donor, width="clone", noise=0.1), seed=0)
    one, other = (numpy(layer.kernel) for layer in model.layers[1:])
    assert one.shape == other.shape
    assert np.abs(one - other).max() > 0.01
