import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy.linalg import hadamard

from keras_initx.initializers._identity import Dirac, IdentityScaled, ZerO


def array(tensor):
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float64")))


def torch_dirac(shape, groups):
    """`torch.nn.init.dirac_` in Keras' axes: channel d of each group reaches output d of that group."""
    kernel, outputs = np.zeros(shape), shape[-1] // groups
    for group in range(groups):
        for d in range(min(outputs, shape[-2])):
            kernel[(*(size // 2 for size in shape[:-2]), d, group * outputs + d)] = 1
    return kernel


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3), (1, 4), (0, 3)])
def test_identity_has_the_gain_on_the_main_diagonal(shape):
    np.testing.assert_array_equal(array(IdentityScaled(gain=2.0)(shape)), 2 * np.eye(*shape))


def test_identity_serves_einsum_heads_and_gates():
    layer = layers.EinsumDense("abc,cde->abde", (None, 2, 3), kernel_initializer=IdentityScaled())
    layer.build((None, 5, 6))
    np.testing.assert_array_equal(array(layer.kernel), np.eye(6).reshape(6, 2, 3))
    gates = array(IdentityScaled(layout={"kind": "gates", "gates": 3})((4, 12)))
    np.testing.assert_array_equal(gates, np.tile(np.eye(4), 3))
    heads = array(IdentityScaled(input_axes=(2,), output_axes=(0,))((3, 2, 3)))
    np.testing.assert_array_equal(heads, np.broadcast_to(np.eye(3)[:, None], (3, 2, 3)))


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("shape", [(3, 4, 6), (5, 3, 2, 12), (1, 3, 3, 5, 6)])
def test_dirac_is_torchs_per_group(shape, groups):
    kernel = array(Dirac(gain=0.5, layout={"kind": "conv", "groups": groups})(shape))
    np.testing.assert_array_equal(kernel, 0.5 * torch_dirac(shape, groups))
    torch = pytest.importorskip("torch")
    rank = len(shape) - 2
    theirs = torch.empty(shape[-1], shape[-2], *shape[:-2])
    torch.nn.init.dirac_(theirs, groups)
    theirs = np.moveaxis(theirs.numpy(), [0, 1], [rank + 1, rank])
    np.testing.assert_array_equal(kernel, 0.5 * theirs)


@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize(("rank", "groups"), [(1, 1), (1, 2), (2, 1), (3, 1)])
def test_convolutions_copy_their_input(rank, groups, size, rng):
    cls = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[rank]
    initializer = Dirac(gain=2.0, layout={"kind": "conv", "groups": groups})
    layer = cls(4, size, padding="same", groups=groups, kernel_initializer=initializer)
    x = rng.normal(size=(2, *[5] * rank, 4)).astype("float32")
    np.testing.assert_allclose(array(layer(x)), 2 * x, atol=1e-5)


def test_depthwise_and_transposed_convolutions_copy_their_input(rng):
    x = rng.normal(size=(2, 5, 5, 3)).astype("float32")
    depthwise = layers.DepthwiseConv2D(3, padding="same", depthwise_initializer=Dirac(layout="depthwise"))
    np.testing.assert_allclose(array(depthwise(x)), x, atol=1e-6)
    transposed = layers.Conv2DTranspose(3, 3, padding="same", kernel_initializer=Dirac(layout="transposed"))
    np.testing.assert_allclose(array(transposed(x)), x, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 4), (6, 3), (3, 8), (3, 5), (1, 7)])
def test_zero_is_the_authors_matrix(shape):
    n, m = shape
    p = 1 << (m - 1).bit_length()
    expected = np.eye(m, n) if m <= n else (hadamard(p) / np.sqrt(p))[:m, :n]
    np.testing.assert_allclose(array(ZerO(gain=3.0)(shape, "float64")), 3 * expected.T, atol=1e-6)


def test_zero_stands_at_the_centre_of_each_group():
    kernel = array(ZerO(layout={"kind": "conv", "groups": 2})((3, 4, 3, 8)))
    np.testing.assert_allclose(kernel[1, 1, :, :4], hadamard(4)[:3] / 2)
    np.testing.assert_allclose(kernel[1, 1, :, 4:], hadamard(4)[:3] / 2)
    assert np.count_nonzero(kernel) == 24


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize(
    ("initializer", "shape"), [(IdentityScaled(), (4, 4)), (Dirac(), (3, 4, 4)), (ZerO(), (4, 4))]
)
def test_dtypes(initializer, shape, dtype):
    kernel = initializer(shape, dtype)
    assert keras.backend.standardize_dtype(kernel.dtype) == keras.backend.standardize_dtype(
        ops.zeros(1, dtype).dtype
    )
    assert array(kernel).sum() == 4


@pytest.mark.parametrize("cls", [IdentityScaled, Dirac, ZerO])
def test_config_round_trip(cls):
    initializer = cls(gain=2.0, layout={"kind": "conv", "groups": 2})
    config = keras.initializers.serialize(initializer)
    assert "seed" not in config["config"]
    restored = keras.initializers.get(config)
    assert type(restored) is cls
    assert restored.get_config() == initializer.get_config() == cls(**initializer.get_config()).get_config()


def test_errors_name_the_rule_and_the_cure():
    with pytest.raises(ValueError, match=r"must not have a receptive field.*shape=\(3, 4, 4\).*initx>Dirac"):
        IdentityScaled()((3, 4, 4))
    with pytest.raises(
        ValueError, match=r"must have a receptive field.*shape=\(4, 4\).*initx>IdentityScaled"
    ):
        Dirac()((4, 4))
    with pytest.raises(ValueError, match=r"at least two axes for ZerO.*shape=\(4,\)"):
        ZerO()((4,))
    with pytest.raises(ValueError, match="`gain` must be a positive"):
        Dirac(gain=0)
