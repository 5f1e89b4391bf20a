import math

import keras
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_initx.fans import Fans, compute_fans, split_axes

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
        split_axes(2, inputs, outputs)
