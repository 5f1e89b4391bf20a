"""Pairs the kernels of two models: by order, block by block, by name, or up to where the models part."""

from collections.abc import Sequence
from typing import Any

from keras_initx.donors._blocks import occurrences
from keras_initx.donors._named import named
from keras_initx.donors._names import Names, plain
from keras_initx.donors._pair import Pair, Place, is_head, paths_of, structure, told
from keras_initx.donors._place import by_place

__all__ = ["align"]


def align(
    own: list[Any], donor: list[Any], depth: str, names: tuple[Names, Names], strict: bool = True
) -> list[Pair]:
    """The pairs of weights: first by the names that the user gave, then by order and structure.

    Args:
        own: The weights of the model.
        donor: Those of the donor.
        depth: One of `DEPTHS`.
        names: The names of both.
        strict: Whether it is an error if nothing tells the pairs.
    """
    found, new = named(own, donor, names, structure)
    pairs = [Pair(w, found[id(w)]) for w in own if id(w) in found]
    pairs += [Pair(w, None, "the donor has none of its name", True) for w in own if id(w) in new]
    taken = {id(w) for w in found.values()}
    own = [w for w in own if id(w) not in found and id(w) not in new]
    donor = [w for w in donor if id(w) not in taken]
    if not own or not donor:
        return pairs + [Pair(w, None, "the donor has no weight left for it", True) for w in own]
    return pairs + (
        _in_order(own, donor)
        or by_place(own, donor, depth, names, whole=True)
        or _by_parts(own, donor, depth, names, strict)
        or _by_path(own, donor, names, bool(found), strict)
        or by_place(own, donor, depth, names)
        or ([] if found or not strict else _within(own, donor) or _up_to(own, donor, names))
        or _one_by_one(own, donor, names, strict)
    )


def _in_order(own: list[Any], donor: list[Any]) -> list[Pair]:
    """Pairs models of one depth; none if their structures differ.

    If both have the same names, apart from numbers, each weight goes to one of its name. So weights that two
    models call in another order find each other.
    """
    if len(own) != len(donor):
        return []
    named = _names(own) == _names(donor)
    mine, theirs = ([(structure(w), plain(w.path) if named else "") for w in side] for side in (own, donor))
    of = dict(zip(zip(theirs, occurrences(theirs), strict=True), donor, strict=True))
    found = [of.get(key) for key in zip(mine, occurrences(mine), strict=True)]
    same = [key[0] for key in mine] == [key[0] for key in theirs]
    if None in found or not (same or named):
        return []
    return [Pair(w, other) for w, other in zip(own, found, strict=True)]


def _by_parts(
    own: list[Any], donor: list[Any], depth: str, names: tuple[Names, Names], strict: bool
) -> list[Pair]:
    """Pairs encoder with encoder and decoder with decoder, if the names of their blocks tell them apart."""
    parts = [[one.part(w) for w in side] for side, one in zip((own, donor), names, strict=True)]
    if not (set(parts[0]) & set(parts[1])) - {""} or len({*parts[0], *parts[1]}) < 2:
        return []
    pairs = []
    for part in dict.fromkeys(parts[0]):
        mine, theirs = (
            [w for w, its in zip(side, found, strict=True) if its == part]
            for side, found in zip((own, donor), parts, strict=True)
        )
        found = theirs and (
            _in_order(mine, theirs)
            or by_place(mine, theirs, depth, names, whole=True)
            or _by_path(mine, theirs, names, False, strict)
            or by_place(mine, theirs, depth, names)
        )
        pairs += found or _one_by_one(mine, theirs, names, strict)
    return pairs


def _by_path(
    own: list[Any], donor: list[Any], names: tuple[Names, Names], some: bool, strict: bool
) -> list[Pair]:
    """Pairs the weights of equal names and structure, numbered ones too; none if too few agree.

    Args:
        own: The weights of the model.
        donor: Those of the donor.
        names: The names of both.
        some: Whether other weights agree already.
        strict: As in `align`.
    """
    by_name = {(names[1].of(w), structure(w)): w for w in donor if names[1].of(w)}
    of = {id(w): by_name[key] for w in own if (key := (names[0].of(w), structure(w))) in by_name}
    if not of or (2 * len(of) < min(len(own), len(donor)) and not some):
        return []
    taken = {id(w) for w in of.values()}
    left = [w for w in own if id(w) not in of]
    rest = [w for w in donor if id(w) not in taken]
    return [Pair(w, of[id(w)]) for w in own if id(w) in of] + _one_by_one(left, rest, names, strict)


def _one_by_one(own: list[Any], donor: list[Any], names: tuple[Names, Names], strict: bool) -> list[Pair]:
    """Pairs each weight with the only one of its structure, or of its structure and last name."""
    pairs = []
    for w in own:
        others = [d for d in donor if structure(d) == structure(w)]
        alike = [d for d in others if names[0].last(w) and names[1].last(d) == names[0].last(w)]
        others = alike if len(alike) == 1 else others
        rivals = [v for v in own if structure(v) == structure(w) and not is_head(v)]
        if not others or is_head(w):
            pairs.append(Pair(w, None, "the donor has no weight of this path", True))
        elif len(others) == 1 and (alike or len(rivals) == 1):
            pairs.append(Pair(w, others[0]))
        elif not strict:
            pairs.append(Pair(w, None, "the donor has several that it could be", True))
        else:
            raise _unclear(w, others, rivals)
    return pairs


def _within(own: list[Any], donor: list[Any]) -> list[Pair]:
    """Pairs a model that holds the donor whole, or is a part of it; none if neither is so."""
    long, short = (own, donor) if len(own) > len(donor) else (donor, own)
    if len(short) < 2 or len(long) == len(short):
        return []
    starts = range(len(long) - len(short) + 1)
    for key in (lambda w: structure(w), lambda w: (structure(w), tuple(w.kernel.shape))):
        keys, wanted = [*map(key, long)], [*map(key, short)]
        starts = [at for at in starts if keys[at : at + len(short)] == wanted]  # type: ignore[assignment]
        if len(starts) < 2:
            break
    if not starts:
        return []
    if len(starts) > 1:
        first = long[starts[0] : starts[0] + len(short)]
        pairs = zip(short, first, strict=True) if long is donor else zip(first, short, strict=True)
        shown = ", ".join(f'"{w.path}": "{other.path}"' for w, other in pairs)
        whose = ("model", "donor") if long is donor else ("donor", "model")
        raise ValueError(
            f"`donor` must fit the model in one place. Received: a {whose[0]} of {len(short)} kernels that "
            f"the {whose[1]} has {len(starts)} times, from {paths_of([long[at] for at in starts])} on. "
            f"Name the pairs, as for the first: mapping={{{shown}}}."
        )
    part = long[starts[0] : starts[0] + len(short)]
    mine, theirs = (short, part) if long is donor else (part, short)
    of = {id(w): other for w, other in zip(mine, theirs, strict=True)}
    return [Pair(w, of.get(id(w)), "" if id(w) in of else "the donor has no such layer") for w in own]


def _up_to(own: list[Any], donor: list[Any], names: tuple[Names, Names]) -> list[Pair]:
    """Pairs the weights from the input on, up to the first that differs."""
    same = 0
    for w, other in zip(own, donor, strict=False):
        if structure(w) != structure(other):
            break
        same += 1
    if not same:
        raise ValueError(
            "`donor` must have layers like those of the model. Received: a donor that begins with "
            f"{told(donor[0])} where the model begins with {told(own[0])}. Name the pairs: "
            f'mapping={{"{own[0].path}": "..."}}. The donor has {paths_of(donor)}.'
        )
    pairs = [Pair(w, other) for w, other in zip(own[:same], donor[:same], strict=True)]
    if same < min(len(own), len(donor)) - 1 or abs(len(own) - len(donor)) > 1:
        return pairs + _one_by_one(own[same:], donor[same:], names, strict=True)
    return pairs + [Pair(w, None, "the donor's layers are others from here on", True) for w in own[same:]]


def _names(weights: Sequence[Place]) -> set[str]:
    return {plain(w.path) for w in weights}


def _unclear(w: Place, others: Sequence[Place], rivals: Sequence[Place]) -> ValueError:
    received = (
        f"a donor with {len(others)} candidates: {paths_of(others)}"
        if len(others) > 1
        else f"a donor with {paths_of(others)} alone, for {len(rivals)} of the model: {paths_of(rivals)}"
    )
    return ValueError(
        f"`donor` must have one counterpart for {told(w)}. Received: {received}. "
        f'Name it: mapping={{"{w.path}": "{others[0].path}"}}, or None for no counterpart.'
    )
