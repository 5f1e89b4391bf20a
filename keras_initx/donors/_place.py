"""Pairs two models block by block, where the same layers come again and again."""

import itertools
from typing import Any

from keras_initx.donors._blocks import occurrences, places, within_blocks
from keras_initx.donors._names import Names
from keras_initx.donors._pair import Pair, field_of, is_head, structure

__all__ = ["by_place"]


def by_place(
    own: list[Any], donor: list[Any], depth: str, names: tuple[Names, Names], whole: bool = False
) -> list[Pair]:
    """Pairs two models block by block; none if one is not the other's structure, or the beginning of it.

    Args:
        own: The weights of the model.
        donor: Those of the donor.
        depth: One of `DEPTHS`.
        names: The names of both.
        whole: Whether a beginning is not enough.
    """
    mine, theirs = (_Places(side, one) for side, one in zip((own, donor), names, strict=True))
    shared = min(len(mine.keys), len(theirs.keys))
    if mine.keys[:shared] != theirs.keys[:shared] or (whole and len(mine.keys) != len(theirs.keys)):
        return []
    pairs = []
    for place, nth, w in zip(mine.numbers, occurrences(mine.numbers), own, strict=True):
        if place >= shared:
            pairs.append(Pair(w, None, "the donor has no such layer", True))
            continue
        counts = [(len(side.weights[place]), side.each[place]) for side in (mine, theirs)]
        at, blocks = within_blocks(nth, counts[0], counts[1], depth)
        reason = f"the donor has {blocks} such block{'s' * (blocks > 1)}" if at is None else ""
        other = None if at is None else theirs.weights[place][at]
        pairs.append(Pair(w, other, reason, added=at is None, deeper=at is None))
    return pairs


class _Places:
    """The weights of one model by their places, where the blocks of a model are one place.

    Attributes:
        numbers: The place of each weight.
        each: For each place, its weights in one block.
        weights: The weights of each place, in order.
        keys: For each place the properties that the place has in the other model, too.
    """

    def __init__(self, weights: list[Any], names: Names) -> None:
        keys = [(structure(w), field_of(w)) for w in weights]
        # Of two equal layers in a block, the names tell which is which.
        families = ["#" in names.family(w) and names.family(w) for w in weights]
        shapes = [
            (key, family, tuple(w.kernel.shape), is_head(w))
            for key, family, w in zip(keys, families, weights, strict=True)
        ]
        tears = [0, *(_tears(a, b, names) for a, b in itertools.pairwise(weights))]
        self.numbers, self.each = places(shapes, tears)
        self.weights: list[list[Any]] = [[] for _ in range(max(self.numbers) + 1)]
        for number, w in zip(self.numbers, weights, strict=True):
            self.weights[number].append(w)
        for place, held in enumerate(self.weights):
            self.each[place] = max(self.each[place], _each_of_names(held, names))
        first = dict(zip(reversed(self.numbers), reversed(keys), strict=True))
        self.keys = [first[place] for place in range(len(self.weights))]


def _tears(before: Any, after: Any, names: Names) -> int:
    """How much is torn apart if a block begins between two weights that follow one another."""
    pairs = zip(names.numbers(before), names.numbers(after), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    branch = getattr(after, "branch", None)
    if branch is not None:
        return 2 * (shared + (getattr(before, "branch", None) == branch))
    # A normalization outside of branches belongs to the kernel before it.
    return 2 * shared + (after.role == "scale" and before.role != "scale")


def _each_of_names(weights: list[Any], names: Names) -> int:
    """How many of some weights are in one block: those whose names have one number; 1 if no name tells."""
    for numbers in zip(*map(names.numbers, weights), strict=False):
        blocks = len(set(numbers))
        if blocks > 1:
            return len(weights) // blocks if list(numbers) == sorted(numbers, key=numbers.index) else 1
    return 1
