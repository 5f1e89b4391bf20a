"""Pairs weights by the names that the user gave: they tell more than order and structure."""

import collections
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from keras_initx.donors._blocks import occurrences
from keras_initx.donors._names import Names

__all__ = ["named", "without_namesake"]


def named(
    own: Sequence[Any], donor: Sequence[Any], names: tuple[Names, Names], told: Callable[[Any], Hashable]
) -> dict[int, Any]:
    """Returns the donor's weight of equal name, by the ids of the model's weights.

    Names with numbers count as names if both models have the same ones, or if what they name lies side by
    side. Blocks in a row of which one model has more are numbered only: they follow `depth`.

    Args:
        own: The weights of the model.
        donor: Those of the donor.
        names: The names of both.
        told: The properties of a weight that it shares with its counterpart.
    """
    mine, theirs = (_families(side, one, told) for side, one in zip((own, donor), names, strict=True))
    found = {}
    for family in mine.keys() & theirs.keys():
        sides = mine[family], theirs[family]
        keys = [[one.of(w) for w in side] for side, one in zip(sides, names, strict=True)]
        if sorted(keys[0]) != sorted(keys[1]) and not all(map(_side_by_side, sides)):
            continue
        places = [list(zip(side, occurrences(side), strict=True)) for side in keys]
        of = dict(zip(places[1], sides[1], strict=True))
        found |= {id(w): of[key] for key, w in zip(places[0], sides[0], strict=True) if key in of}
    return found


def without_namesake(
    own: Sequence[Any],
    donor: Sequence[Any],
    names: tuple[Names, Names],
    found: dict[int, Any],
    told: Callable[[Any], Hashable],
) -> set[int]:
    """Returns the ids of weights beside others that have a namesake: these are new, such as one more head."""
    families = {names[1].family(w) for w in donor} - {""}
    beside = {(told(w), w.depth) for w in own if id(w) in found and getattr(w, "depth", None) is not None}
    return {
        id(w)
        for w in own
        if id(w) not in found
        and names[0].of(w)
        and (told(w), getattr(w, "depth", None)) in beside
        and (
            names[0].family(w) not in families
            or _side_by_side([v for v in own if names[0].family(v) == names[0].family(w)])
        )
    }


def _families(
    side: Sequence[Any], names: Names, told: Callable[[Any], Hashable]
) -> dict[Hashable, list[Any]]:
    found: dict[Hashable, list[Any]] = collections.defaultdict(list)
    for w in side:
        if names.of(w):
            found[names.family(w), told(w)].append(w)
    return found


def _side_by_side(weights: Sequence[Any]) -> bool:
    """Whether as many kernels lead to each of some weights, as to heads and towers, and not to blocks."""
    depths = {getattr(w, "depth", None) for w in weights}
    return len(depths) == 1 and None not in depths
