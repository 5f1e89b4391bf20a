import math

import keras
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_initx.fans import Fans, Layout, compute_fans, split_kernel

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites
SHAPES = st.lists(st.integers(0, 9), max_size=6)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), (1, 1)),
        ((7,), (7, 7)),
        ((3, 5), (3, 5)),
        ((3, 5, 7), (15, 21)),
        ((3, 3, 16, 32), (144, 288)),
        ((2, 2, 2, 4, 3), (32, 24)),
    ],
)
def test_fans_of_a_shape(shape, expected):
    assert compute_fans(shape) == Fans(*expected)
    assert compute_fans(shape).to_dict() == {"fan_in": expected[0], "fan_out": expected[1]}


# The rows of the measured table of true fans: what one output sums and what one input reaches.
@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((256, 128), "dense", (256, 128)),
        ((5, 32, 64), "conv", (160, 320)),
        ((4, 4, 32, 64), Layout("conv", strides=2), (512, 256)),
        ((3, 3, 32, 64), Layout("conv", strides=(2, 2)), (288, 144)),
        ((3, 3, 16, 64), Layout("conv", groups=2), (144, 288)),
        ((3, 3, 4, 64), Layout("conv", groups=8), (36, 72)),
        ((3, 3, 1, 32), Layout("conv", groups=32), (9, 9)),
        ((5, 8, 64), {"kind": "conv", "groups": 4}, (40, 80)),
        ((3, 3, 64, 1), "depthwise", (9, 9)),
        ((3, 3, 64, 2), "depthwise", (9, 18)),
        ((5, 64, 4), "depthwise", (5, 20)),
        ((4, 64, 32), "transposed", (128, 256)),
        ((4, 64, 32), {"kind": "transposed", "strides": 2}, (64, 256)),
        ((3, 3, 128, 32), "transposed", (288, 1152)),
        ((4, 4, 64, 128), Layout("transposed", strides=2), (512, 1024)),
        ((2, 2, 2, 32, 16), Layout("transposed", strides=2), (16, 256)),
        ((3, 3, 8, 8), Layout("transposed", strides=2), (18, 72)),
        ((3, 3, 8, 5), Layout("transposed", strides=2), (11.25, 72)),
        ((128, 512), Layout("gates", gates=4), (128, 128)),
        ((128, 384), Layout("gates", gates=3), (128, 128)),
        ((3, 3, 32, 128), {"kind": "gates", "gates": 4}, (288, 288)),
        ((10000, 128), "embedding", (1, 128)),
    ],
)
def test_fans_of_a_layout(shape, layout, expected):
    assert compute_fans(shape, layout=layout) == Fans(*expected)
    assert compute_fans(shape, layout=Layout.of(layout).to_dict()) == Fans(*expected)


@pytest.mark.parametrize(
    ("shape", "axes", "batch", "expected"),
    [
        ((128, 8, 16), ((0,), (1, 2)), (), (128, 128)),
        ((8, 16, 128), ((0, 1), (2,)), (), (128, 128)),
        ((8, 64, 64), ((1,), (0, 2)), (0,), (64, 64)),  # Keras counts the heads in the outputs
        ((32, 64, 64), ((-2,), (-3, -1)), (-3,), (64, 64)),
    ],
)
def test_batch_axes_count_in_no_fan(shape, axes, batch, expected):
    assert compute_fans(shape, *axes, Layout("einsum", batch_axes=batch)) == Fans(*expected)


@pytest.mark.parametrize(
    ("shape", "layout", "message"),
    [
        ((3, 4), "depth", "`layout` must be one of .*'depthwise'.* Received: layout='depth'"),
        ((3, 4), 3, "`layout` must be one of"),
        ((3, 4), {"groups": 2}, "`layout` must be one of"),
        ((3, 4), {"kind": "conv", "group": 2}, "`layout` must be one of"),
        ((3, 4), {"kind": "dense", "groups": 2}, r"`groups` belongs to a layout of kind \['conv'\]"),
        ((3, 4), {"kind": "conv", "groups": 0}, "must be positive ints"),
        ((3, 4), {"kind": "einsum", "batch_axes": ["a"]}, "`batch_axes` must be a tuple of ints"),
        ((3, 4), "depthwise", r"needs at least 3 axes. Received: shape=\(3, 4\)"),
        ((3, 3, 4), "embedding", r"needs 2 axes. Received: shape=\(3, 3, 4\)"),
        ((3, 4, 9), {"kind": "conv", "groups": 2}, "must divide the last axis"),
        ((4, 10), {"kind": "gates", "gates": 4}, "must divide the last axis"),
        ((4, 16), "gates", "`gates` must be given.*'gates': 4.* for LSTM"),
        ((3, 3, 4, 4), {"kind": "conv", "strides": [2]}, "one for each of the 2 axes of the field"),
        ((3, 4), "einsum", "must be given with the layout 'einsum'"),
    ],
)
def test_layouts_that_do_not_fit_are_refused(shape, layout, message):
    with pytest.raises(ValueError, match=message):
        compute_fans(shape, layout=layout)


def test_axes_beside_a_layout_that_tells_them_are_refused():
    with pytest.raises(ValueError, match="with the layout 'einsum', and with no other"):
        compute_fans((3, 3, 4), (0,), (1,), "depthwise")


@given(SHAPES)
def test_fans_of_a_shape_are_those_that_keras_computes(shape):
    from keras.src.initializers.random_initializers import compute_fans as keras_fans

    assert tuple(compute_fans(shape).to_dict().values()) == keras_fans(shape)


@given(SHAPES.filter(bool), st.data())
def test_fans_with_axes_are_products_of_the_named_dimensions(shape, data):
    rank = len(shape)
    roles = data.draw(st.lists(st.sampled_from("iob"), min_size=rank, max_size=rank))
    inputs = [axis for axis, role in enumerate(roles) if role == "i"]
    outputs = [axis for axis, role in enumerate(roles) if role == "o"]
    fans = compute_fans(shape, inputs, [axis - rank for axis in outputs])
    assert fans.fan_in == math.prod(shape[axis] for axis in inputs)
    assert fans.fan_out == math.prod(shape[axis] for axis in outputs)


def test_dense_conv_and_einsum_kernels_get_the_fans_of_their_layers():
    conv = keras.layers.Conv2D(8, 3)
    conv.build((None, 9, 9, 4))
    assert compute_fans(conv.kernel.shape) == Fans(36, 72)


@pytest.mark.parametrize("shape", [(-1, 3), (2.5, 3), "ab", (None, 3)])
def test_dimensions_that_are_no_counts_are_refused(shape):
    with pytest.raises(ValueError, match="`shape` must hold ints of at least 0. Received: shape="):
        compute_fans(shape)


def test_one_axes_argument_alone_is_refused():
    with pytest.raises(ValueError, match=r"given together or not at all. Received: input_axes=\(0,\)"):
        compute_fans((3, 5), input_axes=(0,))


@pytest.mark.parametrize(("inputs", "outputs"), [((2,), (1,)), ((0,), (-3,))])
def test_axes_outside_the_shape_are_refused(inputs, outputs):
    with pytest.raises(ValueError, match=r"must lie in \[-2, 2\) for a kernel of rank 2"):
        compute_fans((3, 5), inputs, outputs)


@pytest.mark.parametrize(("inputs", "outputs"), [((0,), (0,)), ((0, -2), (1,))])
def test_an_axis_named_twice_is_refused(inputs, outputs):
    with pytest.raises(ValueError, match="must name each axis at most once"):
        split_kernel((2, 2), inputs, outputs)
