import numpy as np
import pytest

from keras_initx.donors._blocks import counterpart, places, within_blocks
from keras_initx.donors._pick import pick
from keras_initx.uses import Units

pytestmark = pytest.mark.tensorflow  # it depends on no backend


def atom(size, key=0):
    return Units(key, size)


def product(*parts):
    return Units(9, int(np.prod([part.size for part in parts])), "product", parts)


def parts(*of):
    return Units(8, sum(part.size for part in of), "parts", of)


@pytest.mark.parametrize(
    ("own", "donor", "index"),
    [
        (2, 8, [0, 4]),
        (4, 4, [0, 1, 2, 3]),
        (3, 8, [0, 4, 7]),  # 0, 3.5 and 7, rounded to even
        (6, 3, [0, 1, 2, 0, 1, 2]),
        (1, 5, [0]),
    ],
)
def test_units_of_a_list(own, donor, index):
    found = pick(atom(own), atom(donor), 0)
    assert found.index.tolist() == index
    assert found.copies.tolist() == [index.count(i) for i in index]
    assert found.followed


def test_a_width_that_is_no_multiple_has_drawn_copies_that_follow_the_seed():
    found = [pick(atom(10), atom(4), seed).index.tolist() for seed in range(20)]
    assert all(index[:8] == [0, 1, 2, 3] * 2 for index in found)
    assert all(len(set(index[8:])) == 2 for index in found)
    assert len({tuple(index[8:]) for index in found}) > 1
    assert pick(atom(10), atom(4), 3).index.tolist() == found[3]
    assert not pick(atom(10), atom(4), 3).even


def test_units_of_a_product_are_picked_factor_by_factor():
    found = pick(product(atom(3), atom(4)), product(atom(3), atom(2)), 0)
    assert found.index.tolist() == [0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5]
    assert set(found.copies.tolist()) == {2}


def test_units_side_by_side_are_picked_part_by_part():
    found = pick(parts(atom(4), atom(2)), parts(atom(2), atom(2)), 0)
    assert found.index.tolist() == [0, 1, 0, 1, 2, 3]
    assert found.copies.tolist() == [2, 2, 2, 2, 1, 1]


def test_units_that_are_made_otherwise_are_not_followed():
    assert not pick(product(atom(2), atom(4)), atom(4), 0).followed
    assert not pick(parts(atom(4), atom(4)), product(atom(2), atom(2)), 0).followed


@pytest.mark.parametrize(
    ("depth", "blocks", "donor", "taken"),
    [
        ("first", 3, 5, [0, 1, 2]),
        ("first", 5, 3, [0, 1, 2, None, None]),
        ("identity", 4, 3, [0, 1, 2, None]),
        ("uniform", 3, 6, [0, 2, 4]),
        ("uniform", 4, 2, [0, 0, 1, 1]),
        ("stack", 5, 2, [0, 1, 0, 1, 0]),
        ("stack", 2, 2, [0, 1]),
    ],
)
def test_the_block_that_a_block_takes(depth, blocks, donor, taken):
    assert [counterpart(block, blocks, donor, depth) for block in range(blocks)] == taken


def test_places_of_nested_repetitions():
    numbers, each = places(["s", "a", "a", "b", "a", "a", "b", "h"])
    assert numbers == [0, 1, 1, 2, 1, 1, 2, 3]
    assert each == {0: 1, 1: 2, 2: 1, 3: 1}
    assert places([]) == ([], {})


def test_a_repetition_begins_where_it_tears_least():
    keys = ["b", "a", "b", "a", "b"]
    assert places(keys)[0] == [0, 1, 0, 1, 2]
    assert places(keys, [1, 0, 1, 0, 1])[0] == [0, 1, 2, 1, 2]


@pytest.mark.parametrize("depth", ["uniform", "stack", "first"])
def test_a_block_of_two_equal_layers_comes_from_one_block(depth):
    for blocks, others in ((4, 2), (2, 4), (3, 1), (1, 3)):
        own, donor = (2 * blocks, 2 if blocks > 1 else 1), (2 * others, 2 if others > 1 else 1)
        taken = [within_blocks(nth, own, donor, depth)[0] for nth in range(2 * blocks)]
        expected = [counterpart(block, blocks, others, depth) for block in range(blocks)]
        assert taken == [None if at is None else 2 * at + k for at in expected for k in (0, 1)]
