import math

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy import stats

from keras_initx.initializers._structured import ICNR, LooksLinear, Sinusoidal


def array(tensor):
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float64")))


def deep_net(depth, distribution="orthogonal", gain=1.0):
    positions = ["first", *["hidden"] * depth, "last"]
    units = [32] * (depth + 1) + [16]
    return keras.Sequential(
        [layers.Input((16,))]
        + [
            layers.Dense(
                size,
                activation=None if position == "last" else "relu",
                kernel_initializer=LooksLinear(gain, position, distribution),
            )
            for size, position in zip(units, positions, strict=True)
        ]
    )


@pytest.mark.parametrize("distribution", ["normal", "orthogonal"])
def test_a_deep_relu_net_is_linear(distribution, rng):
    net, x = deep_net(20, distribution), rng.normal(size=(8, 16)).astype("float32")
    y = array(net(x))
    scale = abs(y).max()
    np.testing.assert_allclose(array(net(-x)), -y, atol=1e-4 * scale)
    np.testing.assert_allclose(array(net(3 * x)), 3 * y, atol=1e-4 * scale)
    np.testing.assert_allclose(array(net(x[:4] + x[4:])), y[:4] + y[4:], atol=1e-4 * scale)


def test_its_singular_values_are_the_product_of_the_gains():
    net = deep_net(20, gain=1.05)
    values = np.linalg.svd(array(net(np.eye(16, dtype="float32"))), compute_uv=False)
    np.testing.assert_allclose(values, 1.05**22, rtol=1e-4)


def test_normal_blocks_are_normal():
    kernel = array(LooksLinear(2.0, "hidden", "normal", seed=1)((400, 300)))
    block = kernel[:200, :150]
    np.testing.assert_array_equal(kernel, np.block([[block, -block], [-block, block]]))
    assert stats.kstest(block.ravel(), stats.norm(scale=2 / math.sqrt(200)).cdf).pvalue > 1e-4


def test_looks_linear_convolution_stands_at_the_centre_of_each_group():
    kernel = array(LooksLinear(layout={"kind": "conv", "groups": 2}, seed=1)((3, 3, 4, 8)))
    assert np.count_nonzero(kernel) == np.count_nonzero(kernel[1, 1]) == 32
    for block in (kernel[1, 1, :2, :2], kernel[1, 1, :2, 4:6]):
        np.testing.assert_allclose(block @ block.T, np.eye(2), atol=1e-5)


def test_einsum_outputs_are_mirrored():
    layer = layers.EinsumDense(
        "abc,cde->abde", (None, 2, 3), kernel_initializer=LooksLinear(position="first")
    )
    layer.build((None, 5, 6))
    kernel = array(layer.kernel).reshape(6, 6)
    np.testing.assert_array_equal(kernel[:, 3:], -kernel[:, :3])


@pytest.mark.parametrize(
    ("shape", "layout", "total"),
    [((60, 40), None, 100), ((3, 3, 4, 6), None, 90), ((3, 3, 5, 1), "depthwise", 18)],
)
def test_sinusoidal_has_glorots_variance_exactly(shape, layout, total):
    kernel = array(Sinusoidal(gain=2.0, layout=layout)(shape))
    block = kernel[..., 0, :] if layout else kernel
    assert block.var(ddof=1) == pytest.approx(4 * 2 / total, rel=1e-5)


def test_sinusoidal_is_the_authors_matrix():
    m, channels, field = 5, 4, 3
    n = channels * field
    waves = [
        [math.sin(i * (2 * math.pi * j / n + 2 * math.pi / m)) for j in range(n)] for i in range(1, m + 1)
    ]
    waves = np.array(waves) * math.sqrt(2 / (n + field * m) / np.var(waves, ddof=1))
    kernel = array(Sinusoidal()((field, channels, m)))
    np.testing.assert_allclose(kernel.transpose(2, 1, 0).reshape(m, n), waves, atol=1e-6)


def depth_to_space(x, r):
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, r, r, c // r**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h * r, w * r, c // r**2)


def assert_equal_blocks(y, r):
    nearest = np.repeat(np.repeat(y[:, ::r, ::r], r, axis=1), r, axis=2)
    np.testing.assert_allclose(y, nearest, atol=1e-5)
    assert y[:, ::r, ::r].std() > 0.1


@pytest.mark.parametrize("base", ["initx>HeScaled", "orthogonal"])
@pytest.mark.parametrize("scale", [2, 3])
def test_sub_pixel_convolutions_upsample_to_the_nearest(scale, base, rng):
    x = rng.normal(size=(2, 5, 4, 3)).astype("float32")
    layer = layers.Conv2D(2 * scale**2, 3, padding="same", kernel_initializer=ICNR(scale, base))
    assert_equal_blocks(depth_to_space(array(layer(x)), scale), scale)
    layer = layers.Conv2DTranspose(
        2, 2 * scale, strides=scale, padding="valid", kernel_initializer=ICNR(scale, base, "transposed")
    )
    assert_equal_blocks(array(layer(x)), scale)


@pytest.mark.parametrize(
    ("layout", "shape", "fan_in"), [(None, (3, 3, 50, 400), 450), ("transposed", (4, 4, 100, 50), 200)]
)
def test_icnr_has_the_fans_of_the_sub_kernel(layout, shape, fan_in):
    kernel = array(ICNR(2, keras.initializers.get("initx>LecunScaled"), layout)(shape))
    draws = kernel.size / 4
    assert kernel.var() * fan_in == pytest.approx(1, abs=5 * math.sqrt(2 / draws))


CASES = [LooksLinear(2.0, "first", seed=1), Sinusoidal(2.0), ICNR(2, keras.initializers.HeNormal(seed=1))]


@pytest.mark.parametrize("initializer", CASES, ids=lambda i: type(i).__name__)
def test_seed_dtype_config(initializer):
    shape = (3, 3, 4, 8)
    restored = keras.initializers.get(keras.initializers.serialize(initializer))
    assert restored.get_config() == initializer.get_config()
    np.testing.assert_array_equal(array(initializer(shape)), array(initializer(shape)))
    np.testing.assert_array_equal(array(initializer(shape)), array(restored(shape)))
    for dtype in ("float16", "bfloat16"):
        assert keras.backend.standardize_dtype(initializer(shape, dtype).dtype) == dtype
    assert initializer((3, 3, 0, 8)).shape == (3, 3, 0, 8)


def test_errors():
    with pytest.raises(ValueError, match=r"even number of inputs.*shape=\(5, 4\)"):
        LooksLinear()((5, 4))
    with pytest.raises(ValueError, match="even number of outputs"):
        LooksLinear(position="first")((5, 3))
    with pytest.raises(ValueError, match="`position` must be one of"):
        LooksLinear(position="middle")
    with pytest.raises(ValueError, match=r"at least 3 inputs or outputs.*shape=\(2, 2\)"):
        Sinusoidal()((2, 2))
    with pytest.raises(ValueError, match=r"outputs that are multiples of 4.*shape=\(3, 3, 2, 6\)"):
        ICNR()((3, 3, 2, 6))
    with pytest.raises(ValueError, match="field sizes that are multiples of 2"):
        ICNR(layout="transposed")((3, 3, 2, 6))
    with pytest.raises(ValueError, match="`layout` must be one of"):
        ICNR(layout="dense")
