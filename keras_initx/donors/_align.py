"""Pairs the kernels of two models: by order, block by block, by name, or up to where the models part."""

import dataclasses
import itertools
import re
from collections.abc import Hashable, Sequence
from typing import Any, TypeAlias

from keras_initx.donors._blocks import occurrences, places, within_blocks
from keras_initx.donors._named import named, without_namesake
from keras_initx.donors._names import Names, plain
from keras_initx.tables import listed
from keras_initx.walk import KernelSite, Weight

__all__ = ["Pair", "Place", "align", "by_place", "fields_of", "in_order", "paths_of"]

# A weight of either kind: a kernel or scale, or a bias, statistic or other vector.
Place: TypeAlias = KernelSite | Weight
_FIELDS = ("conv", "depthwise", "transposed")  # kernels whose first axes are a receptive field


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """A weight of the model, and its counterpart in the donor.

    Attributes:
        own: The weight of the model.
        donor: The weight of the donor; None if there is none.
        reason: Why there is none.
        added: Whether the weight is in a block that the donor does not have.
    """

    own: Place
    donor: Place | None
    reason: str = ""
    added: bool = False


def align(own: list[Any], donor: list[Any], depth: str, names: tuple[Names, Names]) -> list[Pair]:
    """The pairs of weights: first by the names that the user gave, then by order and structure."""
    found = named(own, donor, names, _structure)
    new = without_namesake(own, donor, names, found, _structure)
    pairs = [Pair(w, found[id(w)]) for w in own if id(w) in found]
    pairs += [Pair(w, None, "the donor has none of its name", True) for w in own if id(w) in new]
    taken = {id(w) for w in found.values()}
    own = [w for w in own if id(w) not in found and id(w) not in new]
    donor = [w for w in donor if id(w) not in taken]
    if not own or not donor:
        return pairs + [Pair(w, None, "the donor has no weight left for it", True) for w in own]
    return pairs + (
        in_order(own, donor)
        or by_place(own, donor, depth, names)
        or _by_parts(own, donor, depth, names)
        or _by_path(own, donor, names, some=bool(found))
        or ([] if found else _within(own, donor) or _up_to(own, donor, names))
        or _one_by_one(own, donor, names)
    )


def in_order(own: list[Any], donor: list[Any]) -> list[Pair]:
    """Pairs models of one depth; none if their structures differ.

    If both have the same names, apart from numbers, each weight goes to one of its name. So weights that two
    models call in another order find each other.
    """
    if len(own) != len(donor):
        return []
    named = _names(own) == _names(donor)
    mine, theirs = ([(_structure(w), plain(w.path) if named else "") for w in side] for side in (own, donor))
    of = dict(zip(zip(theirs, occurrences(theirs), strict=True), donor, strict=True))
    found = [of.get(key) for key in zip(mine, occurrences(mine), strict=True)]
    same = [key[0] for key in mine] == [key[0] for key in theirs]
    if None in found or not (same or named):
        return []
    return [Pair(w, other) for w, other in zip(own, found, strict=True)]


def by_place(own: list[Any], donor: list[Any], depth: str, names: tuple[Names, Names]) -> list[Pair]:
    """Pairs two models block by block; none if one is not the other's structure, or the beginning of it."""
    mine, theirs = (_Places(side, one) for side, one in zip((own, donor), names, strict=True))
    shared = min(len(mine.keys), len(theirs.keys))
    if mine.keys[:shared] != theirs.keys[:shared]:
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
        pairs.append(Pair(w, other, reason, added=at is None))
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
        keys = [(_structure(w), _field(w)) for w in weights]
        shapes = [(key, tuple(w.kernel.shape), _is_head(w)) for key, w in zip(keys, weights, strict=True)]
        tears = [0, *(_tears(a, b, names) for a, b in itertools.pairwise(weights))]
        self.numbers, self.each = places(shapes, tears)
        self.weights: list[list[Any]] = [[] for _ in range(max(self.numbers) + 1)]
        for number, w in zip(self.numbers, weights, strict=True):
            self.weights[number].append(w)
        first = dict(zip(reversed(self.numbers), reversed(keys), strict=True))
        self.keys = [first[place] for place in range(len(self.weights))]


def _tears(before: Any, after: Any, names: Names) -> int:
    """How much is torn apart if a block begins between two weights that follow one another."""
    pairs = zip(names.numbers(before), names.numbers(after), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    branch = getattr(after, "branch", None)
    if branch is not None:
        return 2 * shared + 2 * (getattr(before, "branch", None) == branch)
    # A normalization outside of branches belongs to the kernel before it.
    return 2 * shared + (after.role == "scale" and before.role != "scale")


def _by_parts(own: list[Any], donor: list[Any], depth: str, names: tuple[Names, Names]) -> list[Pair]:
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
        pairs += (
            (in_order(mine, theirs) or by_place(mine, theirs, depth, names)) if theirs else []
        ) or _one_by_one(mine, theirs, names)
    return pairs


def _by_path(own: list[Any], donor: list[Any], names: tuple[Names, Names], some: bool) -> list[Pair]:
    """Pairs the weights of equal names and structure, numbered ones too; none if too few agree.

    Args:
        own: The weights of the model.
        donor: Those of the donor.
        names: The names of both.
        some: Whether other weights agree already.
    """
    by_name = {(names[1].of(w), _structure(w)): w for w in donor if names[1].of(w)}
    of = {id(w): by_name[key] for w in own if (key := (names[0].of(w), _structure(w))) in by_name}
    if not of or (2 * len(of) < min(len(own), len(donor)) and not some):
        return []
    taken = {id(w) for w in of.values()}
    left = [w for w in own if id(w) not in of]
    rest = [w for w in donor if id(w) not in taken]
    return [Pair(w, of[id(w)]) for w in own if id(w) in of] + _one_by_one(left, rest, names)


def _one_by_one(own: list[Any], donor: list[Any], names: tuple[Names, Names]) -> list[Pair]:
    """Pairs each weight with the only one of its structure, or of its structure and last name."""
    pairs = []
    for w in own:
        others = [d for d in donor if _structure(d) == _structure(w)]
        tail = names[0].of(w).rpartition("/")[2]
        alike = [d for d in others if tail and names[1].of(d).rpartition("/")[2] == tail]
        others = alike if len(alike) == 1 else others
        rivals = [v for v in own if _structure(v) == _structure(w) and not _is_head(v)]
        if not others or _is_head(w):
            pairs.append(Pair(w, None, "the donor has no weight of this path", True))
        elif len(others) == 1 and (alike or len(rivals) == 1):
            pairs.append(Pair(w, others[0]))
        else:
            raise _unclear(w, others, rivals)
    return pairs


def _within(own: list[Any], donor: list[Any]) -> list[Pair]:
    """Pairs a model that holds the donor whole, or is a part of it; none if neither is so."""
    long, short = (own, donor) if len(own) > len(donor) else (donor, own)
    if len(short) < 2 or len(long) == len(short):
        return []
    starts = range(len(long) - len(short) + 1)
    for told in (lambda w: _structure(w), lambda w: (_structure(w), tuple(w.kernel.shape))):
        keys, wanted = [*map(told, long)], [*map(told, short)]
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
        if _structure(w) != _structure(other):
            break
        same += 1
    if not same:
        raise ValueError(
            "`donor` must have layers like those of the model. Received: a donor that begins with "
            f"{_told(donor[0])} where the model begins with {_told(own[0])}. Name the pairs: "
            f'mapping={{"{own[0].path}": "..."}}. The donor has {paths_of(donor)}.'
        )
    pairs = [Pair(w, other) for w, other in zip(own[:same], donor[:same], strict=True)]
    if same < min(len(own), len(donor)) - 1 or abs(len(own) - len(donor)) > 1:
        return pairs + _one_by_one(own[same:], donor[same:], names)
    return pairs + [Pair(w, None, "the donor's layers are others from here on", True) for w in own[same:]]


def _structure(w: Place) -> tuple[Hashable, ...]:
    """The properties that a weight shares with its weight of another width, field or number of dimensions."""
    # Tables that also make the logits are tables.
    flat = "Embedding" if w.role == "embedding" else re.sub(r"\dD", "", type(w.layer).__name__)
    return w.role, flat, "" if _field(w) else len(w.kernel.shape)


def fields_of(w: Place) -> int:
    """Returns the number of axes of a kernel that are a receptive field."""
    held = w.layout is not None and w.layout.kind in _FIELDS and w.role != "bias"
    return len(w.kernel.shape) - 2 if held else 0


def _field(w: Place) -> tuple[int, ...]:
    """The receptive field of a kernel, over its last two axes at most."""
    return tuple(w.kernel.shape[: fields_of(w)])[-2:]


def _is_head(w: Place) -> bool:
    """Whether a kernel makes the model's output, and not as the end of a block."""
    return isinstance(w, KernelSite) and w.is_output and w.branch is None


def _names(weights: Sequence[Place]) -> set[str]:
    return {plain(w.path) for w in weights}


def _unclear(w: Place, others: Sequence[Place], rivals: Sequence[Place]) -> ValueError:
    told = (
        f"a donor with {len(others)} candidates: {paths_of(others)}"
        if len(others) > 1
        else f"a donor with {paths_of(others)} alone, for {len(rivals)} of the model: {paths_of(rivals)}"
    )
    return ValueError(
        f"`donor` must have one counterpart for {_told(w)}. Received: {told}. "
        f'Name it: mapping={{"{w.path}": "{others[0].path}"}}, or None for no counterpart.'
    )


def _told(w: Place) -> str:
    return f"`{w.path}` ({w.role}, shape {tuple(w.kernel.shape)})"


def paths_of(weights: Sequence[Place]) -> str:
    """Returns the first paths of some weights, for a message."""
    return listed([f"`{w.path}`" for w in weights], 6)
