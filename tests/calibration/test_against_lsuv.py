"""The scales that `calibrate` finds beside those of `lsuv` for torch, and of a loop over layers in NumPy."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx

CHANNELS = (3, 8, 12, 16)  # of the images, and of each convolution's output
UNITS = 10


@pytest.fixture
def images(rng):
    return rng.uniform(size=(32, 12, 12, CHANNELS[0])).astype("float32")


def orthonormal(rng, shape):
    """A kernel whose rows or columns, whichever are fewer, are orthonormal; channels last."""
    matrix = rng.normal(size=(int(np.prod(shape[:-1])), shape[-1]))
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return (left @ right).reshape(shape).astype("float32")


@pytest.fixture
def kernels(rng):
    pairs = itertools.pairwise(CHANNELS)
    return [orthonormal(rng, (3, 3, a, b)) for a, b in pairs] + [
        orthonormal(rng, (6 * 6 * CHANNELS[-1], UNITS))
    ]


def keras_scales(kernels, images):
    convs = [layers.Conv2D(count, 3, activation="relu", name=f"conv_{count}") for count in CHANNELS[1:]]
    model = keras.Sequential(
        [layers.Input(images.shape[1:]), *convs, layers.Flatten(), layers.Dense(UNITS, name="head")]
    )
    with_kernels = [layer for layer in model.layers if layer.weights]
    for layer, kernel in zip(with_kernels, kernels, strict=True):
        layer.set_weights([kernel, np.zeros(kernel.shape[-1])])
    initx.calibrate(model, images, "initx>LSUV")
    return [
        np.linalg.norm(layer.get_weights()[0]) / np.linalg.norm(kernel)
        for layer, kernel in zip(with_kernels, kernels, strict=True)
    ]


def convolve(images, kernel):
    patches = np.lib.stride_tricks.sliding_window_view(images, kernel.shape[:2], axis=(1, 2))
    return np.einsum("nhwcij,ijco->nhwo", patches, kernel)


def test_scales_are_those_of_a_loop_in_numpy(kernels, images):
    x, scales = images.astype("float64"), []
    for number, kernel in enumerate(kernels):
        dense = number == len(kernels) - 1
        y = x.reshape(len(x), -1) @ kernel if dense else convolve(x, kernel.astype("float64"))
        scales.append(1 / y.std())
        x = np.maximum(y * scales[-1], 0)
    np.testing.assert_allclose(keras_scales(kernels, images), scales, rtol=1e-4)


def test_scales_are_those_of_lsuv_within_its_tolerance(kernels, images):
    """`lsuv` leaves a std within 0.1 of 1. In a net of ReLUs without biases stds are products of scales,
    so that its scale of layer k over ours is std_k / std_(k - 1), by the stds that it leaves."""
    lsuv, torch = pytest.importorskip("lsuv"), pytest.importorskip("torch")
    convs = [torch.nn.Conv2d(a, b, 3) for a, b in itertools.pairwise(CHANNELS)]
    between = [part for conv in convs for part in (conv, torch.nn.ReLU())]
    head = torch.nn.Linear(len(kernels[-1]), UNITS)
    model = torch.nn.Sequential(*between, torch.nn.Flatten(), head)
    starts = [kernel.transpose(3, 2, 0, 1) for kernel in kernels[:-1]]
    # torch flattens channels first.
    starts.append(kernels[-1].reshape(6, 6, CHANNELS[-1], UNITS).transpose(3, 2, 0, 1).reshape(UNITS, -1))
    data = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    left: dict[int, float] = {}
    with torch.no_grad():
        for layer, start in zip([*convs, head], starts, strict=True):
            layer.weight.copy_(torch.from_numpy(start.copy()))
            layer.bias.zero_()
        lsuv.lsuv_with_singlebatch(model, data, do_orthonorm=False, verbose=False)
        for number, layer in enumerate([*convs, head]):
            layer.register_forward_hook(
                lambda _, __, out, number=number: left.update({number: float(out.std())})
            )
        model(data)
    stds = np.array([1.0, *(left[number] for number in range(len(kernels)))])
    assert np.abs(stds - 1).max() <= 0.1
    theirs = [
        np.linalg.norm(layer.weight.detach().numpy()) / np.linalg.norm(start)
        for layer, start in zip([*convs, head], starts, strict=True)
    ]
    ours = keras_scales(kernels, images)
    np.testing.assert_allclose(theirs / np.array(ours), stds[1:] / stds[:-1], rtol=2e-3)
    np.testing.assert_allclose(theirs, ours, rtol=1.1 / 0.9 - 1)
