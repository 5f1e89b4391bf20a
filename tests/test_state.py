import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_initx.state import stream_seed, transaction


def value(variable):
    return keras.ops.convert_to_numpy(variable)


@pytest.mark.tensorflow  # it has no backend: once, from one of the suites
@given(st.integers(), st.text())
def test_stream_seed_is_a_31_bit_int(seed, path):
    assert 0 <= stream_seed(seed, path) < 2**31


# To change one of these changes the weights of everybody who wrote down a seed.
@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("seed", "path", "stream"),
    [
        (0, "", 268142436),
        (7, "dense/kernel", 1812910907),
        (7, "dense/bias", 897196317),
        (2**40, "über", 1115115116),
    ],
)
def test_stream_seeds_stay_from_release_to_release(seed, path, stream):
    assert stream_seed(seed, path) == stream


def test_stream_seeds_of_paths_and_seeds_differ():
    seeds = {stream_seed(seed, path) for seed in range(50) for path in ("query", "key", "value", "1/query")}
    assert len(seeds) == 200


def test_update_assigns_what_the_function_makes_of_the_value():
    variable = keras.Variable(np.arange(3.0, dtype="float32"))
    with transaction() as update:
        update(variable, lambda old: old * 2)
        update(variable, lambda old: old + 1)
    np.testing.assert_array_equal(value(variable), [1, 3, 5])


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_any_exception_puts_back_the_first_value_to_the_bit(error, rng):
    before = rng.standard_normal((50, 3)).astype("float32")
    changed, untouched = keras.Variable(before), keras.Variable(before)
    with pytest.raises(error), transaction() as update:
        update(changed, lambda old: old * 3)
        update(changed, lambda old: old / 7)
        raise error
    np.testing.assert_array_equal(value(changed), before)
    np.testing.assert_array_equal(value(untouched), before)


def test_an_error_inside_the_function_undoes_earlier_updates():
    first, second = keras.Variable([1.0]), keras.Variable([1.0])
    with pytest.raises(ZeroDivisionError), transaction() as update:
        update(first, lambda old: old * 2)
        update(second, lambda old: 1 / 0)
    assert value(first) == 1
    assert value(second) == 1


def test_old_values_are_not_shared_with_what_an_initializer_returns_twice():
    constant = keras.ops.convert_to_tensor(np.ones((2, 2), "float32"))
    one, other = keras.Variable(np.zeros((2, 2), "float32")), keras.Variable(np.zeros((2, 2), "float32"))
    with transaction() as update:
        update(one, lambda _: constant)
        update(other, lambda _: constant)
    one.assign(one.value * 3)
    np.testing.assert_array_equal(value(other), 1)
    np.testing.assert_array_equal(value(constant), 1)
