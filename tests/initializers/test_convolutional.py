import numpy as np
import pytest
from keras import ops

from keras_initx.initializers import ConvOrthogonal, DeltaOrthogonal

GRID = 8


def array(tensor):
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float64")))


def singular_values(kernel):
    """Of the circular convolution on a grid: those of its transfer matrix at each frequency."""
    field = range(kernel.ndim - 2)
    transfer = np.fft.fftn(kernel, s=[GRID] * len(field), axes=list(field))
    return np.linalg.svd(transfer, compute_uv=False)


@pytest.mark.parametrize("cls", [ConvOrthogonal, DeltaOrthogonal])
@pytest.mark.parametrize(
    "shape", [(3, 8, 8), (4, 5, 9), (3, 9, 5), (3, 3, 8, 8), (2, 3, 4, 6), (5, 1, 6, 4), (3, 3, 3, 4, 4)]
)
def test_all_singular_values_of_the_convolution_equal_the_gain(cls, shape):
    np.testing.assert_allclose(singular_values(array(cls(gain=1.5, seed=1)(shape))), 1.5, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 3, 1, 1), (3, 1, 4), (1, 4, 1)])
def test_single_channels_are_isometries_too(shape):
    np.testing.assert_allclose(singular_values(array(ConvOrthogonal(seed=2)(shape))), 1, atol=1e-5)


@pytest.mark.parametrize("cls", [ConvOrthogonal, DeltaOrthogonal])
def test_each_group_is_orthogonal_and_differs(cls):
    kernel = array(cls(layout={"kind": "conv", "groups": 2}, seed=3)((3, 3, 4, 8)))
    first, second = np.split(kernel, 2, axis=-1)
    for group in (first, second):
        np.testing.assert_allclose(singular_values(group), 1, atol=1e-5)
    assert abs(first - second).max() > 0.1


@pytest.mark.parametrize("cls", [ConvOrthogonal, DeltaOrthogonal])
def test_transposed_kernels_have_inputs_last(cls):
    kernel = array(cls(layout="transposed", seed=4)((3, 3, 4, 8)))
    np.testing.assert_allclose(singular_values(np.swapaxes(kernel, -2, -1)), 1, atol=1e-5)


def test_conv_orthogonal_uses_its_whole_field():
    """Taps of Haar projections are generic: none of the nine is zero, and they share the norm."""
    kernel = array(ConvOrthogonal(seed=5)((3, 3, 16, 16)))
    assert (np.abs(kernel).max(axis=(-2, -1)) > 1e-3).all()
    assert np.isclose((kernel**2).sum(), 16, rtol=1e-4)


def test_delta_orthogonal_keeps_an_image_of_any_size_in_norm(rng):
    from keras import layers

    layer = layers.Conv2D(8, 3, padding="same", kernel_initializer=DeltaOrthogonal(seed=6))
    images = rng.standard_normal((2, 7, 5, 8)).astype("float32")
    outputs = array(layer(images))
    np.testing.assert_allclose(
        np.linalg.norm(outputs, axis=-1), np.linalg.norm(images, axis=-1), rtol=1e-4
    )  # at every place, borders included: no position is mixed with another


@pytest.mark.parametrize("cls", [ConvOrthogonal, DeltaOrthogonal])
def test_kernels_without_a_field_are_refused(cls):
    with pytest.raises(ValueError, match=r"receptive field .*Received: shape=\(4, 4\).*OrthogonalScaled"):
        cls()((4, 4))
