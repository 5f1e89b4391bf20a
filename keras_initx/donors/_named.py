"""Pairs weights by the names that the user gave: they tell more than order and structure."""

import collections
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias

from keras_initx.donors._blocks import occurrences
from keras_initx.donors._names import Names, stem

__all__ = ["named"]

# The weights of each family of names and structure.
_Families: TypeAlias = dict[tuple[str, Hashable], list[Any]]


def named(
    own: Sequence[Any], donor: Sequence[Any], names: tuple[Names, Names], told: Callable[[Any], Hashable]
) -> tuple[dict[int, Any], set[int]]:
    """Returns the donor's weight of equal name, by the ids of the model's weights; and the ids of new ones.

    Names with numbers count as names if both models have the same ones, or if what they name lies side by
    side. Blocks in a row of which one model has more are numbered only: they follow `depth`. A weight beside
    others that have a namesake is new, such as one more head.

    Args:
        own: The weights of the model.
        donor: Those of the donor.
        names: The names of both.
        told: The properties of a weight that it shares with its counterpart.
    """
    sides = [_families(side, one, told) for side, one in zip((own, donor), names, strict=True)]
    rows = _in_a_row(sides, names)
    found: dict[int, Any] = {}
    for family in sides[0].keys() & sides[1].keys():
        mine, theirs = (side[family] for side in sides)
        keys = [[one.of(w) for w in side] for side, one in zip((mine, theirs), names, strict=True)]
        if sorted(keys[0]) != sorted(keys[1]) and stem(family[0]) in rows:
            continue
        places = [list(zip(side, occurrences(side), strict=True)) for side in keys]
        of = dict(zip(places[1], theirs, strict=True))
        found |= {id(w): of[key] for key, w in zip(places[0], mine, strict=True) if key in of}
    beside = {(told(w), w.depth) for w in own if id(w) in found and getattr(w, "depth", None) is not None}
    known = {stem(family) for family, _ in sides[1]} & rows
    rest = [w for w in own if id(w) not in found and names[0].of(w)]
    new = {
        id(w)
        for w in rest
        if (told(w), getattr(w, "depth", None)) in beside and stem(names[0].family(w)) not in known
    }
    return found, new


def _families(side: Sequence[Any], names: Names, told: Callable[[Any], Hashable]) -> _Families:
    found: _Families = collections.defaultdict(list)
    for w in side:
        if names.of(w):
            found[names.family(w), told(w)].append(w)
    return found


def _in_a_row(sides: Sequence[_Families], names: tuple[Names, Names]) -> set[str]:
    """The stems of families of which a model has several that follow one another, as blocks do."""
    return {
        stem(family)
        for side, one in zip(sides, names, strict=True)
        for (family, _), weights in side.items()
        if len({one.of(w) for w in weights}) < len(weights) or not _side_by_side(weights)
    }


def _side_by_side(weights: Sequence[Any]) -> bool:
    """Whether as many kernels lead to each of some weights, as to heads and towers, and not to blocks."""
    depths = {getattr(w, "depth", None) for w in weights}
    return len(depths) == 1 and None not in depths
