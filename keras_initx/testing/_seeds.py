"""Checks of seeds: which draws are equal and which differ."""

import keras
import numpy as np

from keras_initx.testing._case import Case, shapes_of
from keras_initx.testing._models import array, drawn_by
from keras_initx.testing._rule import expect, rule

__all__ = [
    "draw_repeats",
    "int_seed_repeats",
    "no_seed_draws_afresh",
    "one_instance_gives_two_layers_different_weights",
    "seed_generator_advances_and_is_saved",
]


@rule("draw new values at each call without a seed, ruled by `keras.utils.set_random_seed`")
def no_seed_draws_afresh(case: Case) -> None:
    """Checks seed=None. It calls `keras.utils.set_random_seed`.

    Args:
        case: The initializer under test.

    Raises:
        AssertionError: If two calls give equal values, or `set_random_seed` does not repeat them.
    """
    initializer, shape = case.make(seed=None), shapes_of(case)[0]
    keras.utils.set_random_seed(5)
    first, second = array(initializer(shape)), array(initializer(shape))
    expect(not np.array_equal(first, second), "two calls give equal values")
    keras.utils.set_random_seed(5)
    repeats = np.array_equal(first, array(initializer(shape)))
    expect(repeats, "`set_random_seed(5)` does not bring the first values back")


@rule("repeat its values with an int seed, and draw others with another seed")
def int_seed_repeats(case: Case) -> None:
    """Checks seed=3 against seed=3 and seed=4.

    Args:
        case: The initializer under test.

    Raises:
        AssertionError: If equal seeds give different values, or different seeds give equal values.
    """
    initializer, shape = case.make(seed=3), shapes_of(case)[0]
    first = array(initializer(shape))
    expect(np.array_equal(first, array(initializer(shape))), "two calls with seed=3 differ")
    expect(np.array_equal(first, array(case.make(seed=3)(shape))), "two initializers with seed=3 differ")
    expect(not np.array_equal(first, array(case.make(seed=4)(shape))), "seed=3 and seed=4 give equal values")


@rule("advance a `keras.random.SeedGenerator` at each call, and keep it in its config")
def seed_generator_advances_and_is_saved(case: Case) -> None:
    """Checks seed=keras.random.SeedGenerator(3).

    Args:
        case: The initializer under test.

    Raises:
        AssertionError: If two calls give equal values, or the initializer made from the config does not start
            with the same values.
    """
    initializer, shape = case.make(seed=keras.random.SeedGenerator(3)), shapes_of(case)[0]
    first, second = array(initializer(shape)), array(initializer(shape))
    expect(not np.array_equal(first, second), "two calls give equal values")
    restored = keras.initializers.get(keras.initializers.serialize(initializer))
    same = np.array_equal(first, array(restored(shape)))
    expect(same, "the initializer made from its config starts with other values")


@rule("give two layers different weights where one instance without a seed serves both")
def one_instance_gives_two_layers_different_weights(case: Case) -> None:
    """Checks one unseeded instance in two layers of equal shape.

    Args:
        case: The initializer under test.

    Raises:
        AssertionError: If both layers have equal weights.
    """
    initializer = case.make(seed=None)
    equal = np.array_equal(drawn_by(case, initializer), drawn_by(case, initializer))
    expect(not equal, "both layers have equal weights")


@rule("repeat its values at each call, as it takes no `seed`")
def draw_repeats(case: Case) -> None:
    """Checks that an initializer is not random if neither its config nor a config within it has a `seed`.

    Args:
        case: The initializer under test.

    Raises:
        AssertionError: If two calls differ. Such a class needs an argument `seed`.
    """
    initializer, shape = case.make(), shapes_of(case)[0]
    expect(np.array_equal(array(initializer(shape)), array(initializer(shape))), "two calls differ")
