import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.util import tensor_util

from keras_initx.summaries import buckets

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites

FLOATS = st.floats(-1e30, 1e30, allow_nan=False)


@settings(max_examples=200, deadline=None)
@given(hnp.arrays("float64", hnp.array_shapes(max_dims=3, max_side=20), elements=FLOATS))
def test_buckets_are_those_of_tensorboards_own_summary(array):
    # Where a thirtieth of the range underflows, theirs divides by zero.
    assume(array.size == 0 or np.ptp(array) == 0 or np.ptp(array) > 1e-300)
    theirs = tensor_util.make_ndarray(histogram_pb("tag", array).value[0].tensor)
    table, nonfinite = buckets(array)
    assert nonfinite == 0
    np.testing.assert_array_equal(table, theirs)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays("float32", st.integers(0, 60), elements=st.floats(width=32)), st.integers(1, 40))
def test_buckets_count_every_finite_value_once(array, bins):
    table, nonfinite = buckets(array, bins)
    finite = np.isfinite(array)
    assert table.shape == (bins, 3)
    assert table[:, 2].sum() == finite.sum()
    assert nonfinite == pytest.approx(1 - finite.mean() if array.size else 0)
    assert np.isfinite(table).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "bool"])
def test_dtypes(dtype):
    table, _ = buckets(np.array([0, 1, 1, 1], dtype), bins=2)
    np.testing.assert_array_equal(table, [[0, 0.5, 1], [0.5, 1, 3]])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_buckets_of_many_chunks_are_those_of_tensorboards_own_summary(rng, dtype):
    array = rng.standard_normal((300, 700)).astype(dtype)[:, ::-1]
    theirs = tensor_util.make_ndarray(histogram_pb("tag", array).value[0].tensor)
    np.testing.assert_array_equal(buckets(array)[0], theirs)
    holed = array.copy()
    holed[::7] = np.nan
    holed[5, 5] = -np.inf
    theirs = tensor_util.make_ndarray(histogram_pb("tag", holed[np.isfinite(holed)]).value[0].tensor)
    table, nonfinite = buckets(holed)
    np.testing.assert_array_equal(table, theirs)
    assert nonfinite == 1 - np.isfinite(holed).mean()


def test_the_extremes_of_float64_do_not_overflow():
    table, nonfinite = buckets([-1.7e308, 0.0, 1.7e308, np.inf], bins=2)
    np.testing.assert_array_equal(table, [[-1.7e308, 0, 1], [0, 1.7e308, 2]])
    assert nonfinite == 0.25


def test_a_large_array_is_not_copied_as_a_whole(rng):
    array = rng.standard_normal(2_000_000).astype("float32")
    tracemalloc.start()
    try:
        buckets(array)
        assert tracemalloc.get_traced_memory()[1] < array.nbytes
    finally:
        tracemalloc.stop()
