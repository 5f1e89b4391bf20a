"""The parts of a kernel that start an adapter, against NumPy."""

import numpy as np
import pytest
from keras import ops

from keras_initx.adapters import leading_svd, loftq, olora, pissa


def _decaying(rows, columns, seed=0):
    generator = np.random.default_rng(seed)
    left = np.linalg.qr(generator.normal(size=(rows, columns)))[0]
    right = np.linalg.qr(generator.normal(size=(columns, columns)))[0]
    return ((left * 0.8 ** np.arange(columns)) @ right).astype("float32")


@pytest.mark.parametrize("iterations", [None, 4])
def test_the_leading_values_and_their_projection_are_those_of_numpy(iterations):
    matrix = _decaying(60, 40)
    left, values, right = (ops.convert_to_numpy(part) for part in leading_svd(matrix, 5, iterations, seed=1))
    expected = np.linalg.svd(matrix)[1][:5]
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    best = np.linalg.norm(matrix - (left * values) @ right)
    np.testing.assert_allclose(best, np.linalg.norm(np.linalg.svd(matrix)[1][5:]), rtol=1e-3)


def test_a_small_matrix_is_decomposed_exactly_whatever_the_iterations():
    matrix = np.random.default_rng(0).normal(size=(12, 9)).astype("float32")
    np.testing.assert_allclose(
        ops.convert_to_numpy(leading_svd(matrix, 4, iterations=0)[1]), np.linalg.svd(matrix)[1][:4], rtol=1e-4
    )


@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_pissa_takes_the_best_approximation_and_leaves_the_rest(scale):
    kernel = np.random.default_rng(0).normal(size=(20, 12)).astype("float32")
    parts = pissa(kernel, 3, scale)
    base, a, b = (ops.convert_to_numpy(part) for part in (parts.base, parts.a, parts.b))
    left, values, right = np.linalg.svd(kernel)
    np.testing.assert_allclose(scale * a @ b, (left[:, :3] * values[:3]) @ right[:3], atol=1e-4)
    np.testing.assert_allclose(base + scale * a @ b, kernel, atol=1e-5)
    # Both factors share the singular values evenly.
    np.testing.assert_allclose(np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=1), rtol=1e-4)


def test_olora_is_the_lead_of_a_whole_qr_decomposition():
    kernel = np.random.default_rng(0).normal(size=(20, 12)).astype("float32")
    parts = olora(kernel, 3, 2.0)
    base, a, b = (ops.convert_to_numpy(part) for part in (parts.base, parts.a, parts.b))
    q, r = np.linalg.qr(kernel.T)
    np.testing.assert_allclose(a @ b, (q[:, :3] @ r[:3]).T, atol=1e-4)
    np.testing.assert_allclose(b @ b.T, np.eye(3), atol=1e-5)
    np.testing.assert_allclose(base + 2.0 * a @ b, kernel, atol=1e-5)


def test_loftq_is_nearer_after_each_round_and_its_first_base_is_plain():
    kernel = np.random.default_rng(0).normal(size=(40, 24)).astype("float32")

    def rounded(matrix):
        return ops.round(2 * matrix) / 2

    def error(rounds):
        parts = loftq(kernel, 4, 2.0, rounded, rounds)
        made = parts.base + 2.0 * ops.matmul(parts.a, parts.b)
        return np.linalg.norm(ops.convert_to_numpy(made) - kernel)

    plain = np.round(2 * kernel) / 2
    first = loftq(kernel, 4, 2.0, rounded)
    np.testing.assert_array_equal(ops.convert_to_numpy(first.base), plain)
    assert np.linalg.norm(plain - kernel) > error(1) > error(5)
