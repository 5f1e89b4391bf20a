import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops
from scipy import stats

from keras_initx.fans import compute_fans
from keras_initx.initializers import LSUV, OrthogonalScaled, _haar
from support.sampling import cases


def matrix(initializer, shape, dtype="float32"):
    return np.asarray(ops.convert_to_numpy(ops.cast(initializer(shape, dtype), "float64")))


def assert_semi_orthogonal(kernel, gain=1.0, tolerance=1e-5):
    np.testing.assert_allclose(np.linalg.svd(kernel, compute_uv=False), gain, rtol=0, atol=tolerance * gain)


@settings(max_examples=cases(25), deadline=None)
@given(st.lists(st.integers(1, 7), min_size=2, max_size=5), st.floats(0.1, 10.0))
def test_all_singular_values_equal_the_gain(shape, gain):
    kernel = matrix(OrthogonalScaled(gain, seed=1), shape)
    assert_semi_orthogonal(kernel.reshape(-1, shape[-1]), gain)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("bfloat16", 2**-7), ("float16", 2**-10), ("float64", 1e-5)]
)
def test_other_dtypes_are_orthogonal_to_their_precision(dtype, tolerance):
    # Rounding entries of size 1/sqrt(n) by eps moves a singular value by at most eps * sqrt(n) / sqrt(n).
    assert_semi_orthogonal(matrix(OrthogonalScaled(seed=1), (64, 32), dtype), tolerance=2 * tolerance)


@settings(max_examples=cases(25), deadline=None)
@given(st.permutations(range(4)), st.data())
def test_axes_name_inputs_outputs_and_batches_in_any_order(order, data):
    sizes, inputs, outputs, batches = (2, 3, 4, 5), order[:2], order[2:3], order[3:]
    kernel = matrix(OrthogonalScaled(seed=2, input_axes=inputs, output_axes=outputs), sizes)
    blocks = np.moveaxis(kernel, [*batches, *inputs, *outputs], range(4))
    for block in blocks.reshape(blocks.shape[0], -1, blocks.shape[-1]):
        assert_semi_orthogonal(block)


# JAX compiles each for seconds. A tall matrix and a wide one, of odd sizes and in batches, are enough there.
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((700, 515), marks=pytest.mark.tensorflow),
        (600, 300),
        (300, 600),
        (2, 520, 514),
    ],
)
def test_large_kernels_by_reflections_are_orthogonal(shape):
    axes = {"input_axes": (1,), "output_axes": (2,)} if len(shape) == 3 else {}
    kernel = matrix(OrthogonalScaled(seed=3, **axes), shape)
    for block in kernel.reshape(-1, *shape[-2:]):
        assert_semi_orthogonal(block)


def test_reflections_have_the_haar_distribution(monkeypatch):
    """Entries of a Haar matrix have the law of a coordinate of a point on the sphere, every one of them."""
    monkeypatch.setattr(_haar, "_SMALL", 0)
    monkeypatch.setattr(_haar, "_WIDTH", 2)
    draws = matrix(OrthogonalScaled(seed=0, input_axes=(1,), output_axes=(2,)), (400, 5, 5))
    law = stats.beta(2, 2, loc=-1, scale=2)  # (1 - x^2)^((n - 3) / 2) for n = 5
    for row, column in [(0, 0), (0, 4), (2, 2), (4, 0), (4, 4)]:
        assert stats.kstest(draws[:, row, column], law.cdf).pvalue > 1e-4
    assert abs(np.linalg.det(draws).mean()) < 4 / math.sqrt(len(draws))  # both signs alike


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((64, 512), None),
        ((64, 256), {"kind": "gates", "gates": 4}),
        ((3, 3, 16, 1), "depthwise"),
        ((3, 3, 4, 64), {"kind": "conv", "groups": 4}),
        ((4, 4, 16, 32), {"kind": "transposed", "strides": 2}),
        ((100, 16), "embedding"),
    ],
)
def test_preserved_norm_gives_the_true_fans_unit_variance(shape, layout):
    """An output sums fan_in entries: unit inputs give it unit variance if their mean square is 1 / fan_in."""
    kernel = matrix(OrthogonalScaled(preserve_norm=True, layout=layout, seed=4), shape)
    assert math.isclose((kernel**2).mean() * compute_fans(shape, layout=layout).fan_in, 1, rel_tol=1e-4)


def test_each_gate_gets_an_orthogonal_matrix():
    kernel = matrix(OrthogonalScaled(layout={"kind": "gates", "gates": 4}, seed=5), (32, 128))
    for gate in np.split(kernel, 4, axis=1):
        assert_semi_orthogonal(gate)


def test_batch_axes_get_independent_blocks():
    kernel = matrix(OrthogonalScaled(seed=3, input_axes=(1,), output_axes=(2,)), (2, 6, 6))
    assert abs(kernel[0] - kernel[1]).max() > 0.1


def test_haar_distribution_has_no_preferred_sign():
    """Without the sign correction the diagonal of Q has one sign; under Haar each sign has chance 1/2."""
    draws = np.array([np.diag(matrix(OrthogonalScaled(seed=seed), (3, 3))) for seed in range(200)])
    positive = (draws > 0).mean()
    assert abs(positive - 0.5) < 4 * 0.5 / math.sqrt(draws.size)


@pytest.mark.parametrize("cls", [OrthogonalScaled, LSUV])
def test_query_key_value_projections_are_orthogonal_and_keep_variance(cls, rng):
    """Keras' own Orthogonal gives them 1/heads of the variance, since it never learns the axes."""
    attention = layers.MultiHeadAttention(8, 16, kernel_initializer=cls(seed=4))
    attention.build((None, 5, 128), (None, 5, 128))
    inputs = rng.standard_normal((500, 128))
    for name in ("query", "key", "value", "attention_output"):
        (kernel,) = (v for v in attention.weights if v.path.endswith(f"{name}/kernel"))
        square = np.asarray(ops.convert_to_numpy(kernel)).reshape(128, 128)
        assert_semi_orthogonal(square)
        # An isometry keeps the norm of each row of inputs exactly, so the mean square is the inputs' own.
        assert math.isclose(((inputs @ square) ** 2).mean(), (inputs**2).mean(), rel_tol=1e-5)


def test_expanding_layer_divides_the_variance_by_the_expansion(rng):
    kernel = matrix(OrthogonalScaled(gain=2.0, seed=5), (64, 256))
    outputs = rng.standard_normal((1000, 64)) @ kernel
    assert math.isclose((outputs**2).mean(), 4 * 64 / 256, rel_tol=4 * math.sqrt(2 / 64_000))


@pytest.mark.parametrize("shape", [(), (5,)])
def test_vectors_are_refused(shape):
    with pytest.raises(ValueError, match="`shape` must have at least two axes .* Received: shape="):
        OrthogonalScaled()(shape)
