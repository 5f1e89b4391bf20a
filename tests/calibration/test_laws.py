"""What each law makes of real layers: the moments of every unit, and what a layer cannot hold."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initx as initx
from keras_initx import probe
from keras_initx.initializers import LSUV, ActNormData, DataDependent, WeightNormData, WithinLayer
from keras_initx.walk import iter_kernels


def units(model, inputs):
    """Mean and std of each unit of each site, from the outputs themselves: `last` axes of an output."""
    seen = {}

    def observe(site, output):
        values = ops.convert_to_numpy(output).astype("float64")
        last = 2 if site.role in ("query", "key", "value") or site.path == "two_axes" else 1
        seen[site.path] = values.reshape(-1, int(np.prod(values.shape[-last:])))
        return output

    probe.run(model, inputs, [s for s in iter_kernels(model, trace=False) if not s.obstacle], observe)
    return {path: (values.mean(0), values.std(0)) for path, values in seen.items()}


def convnet():
    options = {"bias_initializer": "random_normal", "activation": "relu"}
    return keras.Sequential(
        [
            layers.Input((9, 9, 4)),
            layers.Conv2D(8, 3, groups=2, name="conv", **options),
            layers.DepthwiseConv2D(2, depth_multiplier=3, name="depthwise", **options),
            layers.Conv2DTranspose(5, 3, strides=2, name="transposed", **options),
            layers.Flatten(),
            layers.Dense(6, name="head", **options),
        ]
    )


def attention():
    x = inputs = layers.Input((7, 12))
    x = layers.MultiHeadAttention(3, 4, name="a")(x, x)
    x = layers.EinsumDense("abc,cde->abed", (7, 2, 5), bias_axes="ed", name="two_axes")(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize("law", [WithinLayer(), WithinLayer(beta=0.3), WeightNormData(), ActNormData()])
@pytest.mark.parametrize("redraw", [False, True])
@pytest.mark.parametrize("build", [convnet, attention])
def test_a_law_for_each_unit_gives_each_its_mean_and_std(law, redraw, build, rng):
    model = build()
    x = rng.normal(2, 3, size=(64, *model.input_shape[1:])).astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        report = initx.calibrate(model, x, law, redraw=redraw, seed=1)
    found = units(model, x)
    assert set(found) == {row.path for row in report.rows}
    for path, (mean, std) in found.items():
        np.testing.assert_allclose(mean, getattr(law, "beta", 0.0), atol=2e-3, err_msg=path)
        np.testing.assert_allclose(std, 1, rtol=2e-3, err_msg=path)
    spread = [row.std_after for row in report.rows]
    assert spread == pytest.approx([1] * len(spread), rel=1e-4)


def test_units_keep_what_makes_them_differ_but_size_and_place(rng):
    """The kernel's columns are multiples of what they were."""
    model = keras.Sequential([layers.Input((6,)), layers.Dense(5, "relu", name="d")])
    (before, _), x = model.get_weights(), rng.normal(2, 3, size=(64, 6)).astype("float32")
    initx.calibrate(model, x, "initx>WithinLayer")
    kernel, bias = model.get_weights()
    ratios = kernel / before
    np.testing.assert_allclose(ratios, np.broadcast_to(ratios[0], ratios.shape), rtol=1e-4)
    raw = x.astype("float64") @ before
    np.testing.assert_allclose(ratios[0], 1 / raw.std(0), rtol=1e-4)
    np.testing.assert_allclose(bias, -raw.mean(0) / raw.std(0), rtol=1e-3, atol=1e-4)


def test_lsuv_can_remove_the_mean(rng):
    model = convnet()
    x = rng.normal(2, 3, size=(64, 9, 9, 4)).astype("float32")
    initx.calibrate(model, x, LSUV(target_std=2.0, remove_mean=True))
    for path, (mean, std) in units(model, x).items():
        assert abs(mean.mean()) < 5e-3, path
        assert np.sqrt(np.mean(std**2 + mean**2)) == pytest.approx(2, rel=2e-3), path


@pytest.mark.parametrize("law", [WithinLayer(), LSUV(remove_mean=True)])
def test_a_layer_without_bias_is_scaled_and_said_so(law, rng):
    model = keras.Sequential([layers.Input((6,)), layers.Dense(5, use_bias=False, name="d")])
    x = rng.normal(2, 3, size=(64, 6)).astype("float32")
    with pytest.warns(UserWarning, match="`d`: it has no bias to hold the law's shift: scaled alone"):
        initx.calibrate(model, x, law)
    ((_, std),) = units(model, x).values()
    if law.scope == "unit":
        np.testing.assert_allclose(std, 1, rtol=1e-3)


def test_units_that_do_not_vary_are_left_alone_and_counted(rng):
    layer = layers.Dense(5, name="d")  # not a head, whose bias would be a prior
    model = keras.Sequential([layers.Input((6,)), layer, layers.Dense(1, name="head")])
    kernel, bias = layer.get_weights()
    kernel[:, 2], bias[2] = 0, 4
    layer.set_weights([kernel, bias])
    x = rng.normal(2, 3, size=(64, 6)).astype("float32")
    with pytest.warns(UserWarning, match="1 units are constant on this data: left as they are"):
        initx.calibrate(model, x, WithinLayer())
    after, bias = layer.get_weights()
    assert bias[2] == 4
    assert not after[:, 2].any()
    mean, std = units(model, x)["d"]
    np.testing.assert_allclose(np.delete(std, 2), 1, rtol=1e-3)
    np.testing.assert_allclose(mean, [0, 0, 4, 0, 0], atol=1e-3)


def test_units_that_share_the_entries_of_a_bias_are_a_reason(rng):
    layer = layers.EinsumDense("abc,cde->abde", (7, 2, 5), bias_axes="e", name="e")
    model = keras.Sequential([layers.Input((7, 4)), layer])
    x = rng.normal(size=(16, 7, 4)).astype("float32")
    with pytest.warns(UserWarning, match="`e`: its units share the entries of its bias"):
        report = initx.calibrate(model, x, WithinLayer())
    assert report.rows[0].iterations == 0
    assert initx.calibrate(model, x).rows[0].std_after == pytest.approx(1)


@pytest.mark.filterwarnings("ignore:1 of 2 kernels")  # a depthwise half has no bias for the shift
@pytest.mark.parametrize("law", ["initx>WithinLayer", "initx>LSUV"])
def test_channels_first(law, rng):
    # Whether TensorFlow's CPU takes channels first in plain convolutions depends on the processor: for others
    # Keras transposes.
    plain = keras.backend.backend() != "tensorflow"
    convolution = layers.Conv2D if plain else layers.SeparableConv2D
    one = keras.Sequential([layers.Input((6, 6, 3)), convolution(4, 2, name="c")])
    two = keras.Sequential(
        [layers.Input((3, 6, 6)), convolution(4, 2, name="c", data_format="channels_first")]
    )
    two.set_weights(one.get_weights())
    x = rng.normal(2, 3, size=(16, 6, 6, 3)).astype("float32")
    initx.calibrate(one, x, law)
    initx.calibrate(two, x.transpose(0, 3, 1, 2), law)
    for expected, got in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


class TwiceUnit(DataDependent):
    """A user's own law: all units to std 2."""

    scope = "unit"

    def rescale(self, mean, std):
        return 2 / std, 0 * std


def test_a_law_of_one_s_own(rng):
    model = convnet()
    x = rng.normal(2, 3, size=(64, 9, 9, 4)).astype("float32")
    initx.calibrate(model, x, TwiceUnit())
    for path, (_, std) in units(model, x).items():
        np.testing.assert_allclose(std, 2, rtol=2e-3, err_msg=path)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_pca_filters_of_a_first_convolution_are_the_directions_of_its_patches(rank, rng):
    """The outputs of the first units have the largest variances that orthonormal filters can have."""
    size = {1: 40, 2: 9, 3: 5}[rank]
    layer = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[rank]
    model = keras.Sequential(
        [layers.Input((*(size,) * rank, 2)), layer(4, 2, strides=1, name="c"), layers.ReLU()]
    )
    x = rng.normal(1, 3, size=(30, *(size,) * rank, 2)).cumsum(axis=1).astype("float32")
    report = initx.calibrate(model, x, "initx>PCAFilters", samples=30)
    windows = np.lib.stride_tricks.sliding_window_view(x, (2,) * rank, axis=tuple(range(1, rank + 1)))
    windows = np.moveaxis(windows, rank + 1, -1)  # channels after the window's axes
    patches = windows.reshape(-1, 2**rank * 2).astype("float64")
    largest = np.sort(np.linalg.eigvalsh(np.cov(patches.T, ddof=0)))[::-1][:4]
    _, std = units(model, x)["c"]
    np.testing.assert_allclose(std**2, largest, rtol=2e-2)
    kernel = model.get_weights()[0].reshape(-1, 4)
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(4), atol=1e-4)
    assert report.rows[0].std_before is None
    assert report.rows[0].iterations == 1


def test_k_means_filters_find_the_directions_that_the_data_lies_along(rng):
    model = keras.Sequential([layers.Input((8,)), layers.Dense(4, name="d")])
    which = rng.integers(4, size=2000)
    x = (np.eye(8)[which] * rng.choice([-3, 3], size=(2000, 1)) + 0.1 * rng.normal(size=(2000, 8))).astype(
        "f"
    )
    initx.calibrate(model, x, "initx>KMeansFilters", samples=2000, seed=1)
    outputs = np.abs(x @ model.get_weights()[0])
    best = outputs.argmax(1)
    # Each unit answers to one of the directions, and each direction to one unit.
    table = np.array([np.bincount(best[which == n], minlength=4) for n in range(4)])
    assert sorted(table.argmax(1)) == [0, 1, 2, 3]
    assert table.max(1).sum() > 0.95 * len(x)


def test_filters_are_for_dense_layers_and_convolutions_of_one_group(rng):
    model = convnet()
    before = model.get_weights()
    x = rng.normal(size=(8, 9, 9, 4)).astype("float32")
    with pytest.warns(
        UserWarning, match="`depthwise`.*: filters are for dense layers and convolutions of one"
    ):
        report = initx.calibrate(model, x, "initx>PCAFilters", exclude="head")
    assert not any(row.iterations for row in report.rows)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_filters_that_cannot_be_made_change_nothing(rng):
    model = keras.Sequential([layers.Input((4,)), layers.Dense(3, name="a"), layers.Dense(90, name="b")])
    before = model.get_weights()
    with pytest.raises(ValueError, match="units"):
        initx.calibrate(model, rng.normal(size=(20, 4)), "initx>KMeansFilters")
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
