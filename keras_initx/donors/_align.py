"""Pairs the kernels of two models: by order, block by block, by name, or up to where the models part."""

import dataclasses
import re
from collections.abc import Hashable, Sequence
from typing import Any, TypeAlias

from keras_initx.donors._blocks import counterpart, occurrences, places
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


def align(own: list[Any], donor: list[Any], depth: str) -> list[Pair]:
    """The pairs of kernels and scales: of whole models, of a model in another, or up to where they part."""
    if not own or not donor:
        return [Pair(w, None, "the donor has no weight left for it") for w in own]
    return (
        in_order(own, donor)
        or by_place(own, donor, depth)
        or _by_name(own, donor)
        or _within(own, donor)
        or _up_to(own, donor)
    )


def in_order(own: list[Any], donor: list[Any]) -> list[Pair]:
    """Pairs models of one depth; none if their structures differ.

    If both have the same names, apart from numbers, each weight goes to one of its name. So weights that two
    models call in another order find each other.
    """
    if len(own) != len(donor):
        return []
    named = _names(own) == _names(donor)
    mine, theirs = ([(_structure(w), _plain(w.path) if named else "") for w in side] for side in (own, donor))
    of = dict(zip(zip(theirs, occurrences(theirs), strict=True), donor, strict=True))
    found = [of.get(key) for key in zip(mine, occurrences(mine), strict=True)]
    same = [key[0] for key in mine] == [key[0] for key in theirs]
    if None in found or not (same or named):
        return []
    return [Pair(w, other) for w, other in zip(own, found, strict=True)]


def by_place(own: list[Any], donor: list[Any], depth: str) -> list[Pair]:
    """Pairs two models block by block; none if one is not the other's structure, or the beginning of it."""
    mine, theirs = _Places(own), _Places(donor)
    shared = min(len(mine.keys), len(theirs.keys))
    if mine.keys[:shared] != theirs.keys[:shared]:
        return []
    pairs = []
    for place, nth, w in zip(mine.numbers, occurrences(mine.numbers), own, strict=True):
        if place >= shared:
            pairs.append(Pair(w, None, "the donor has no such layer"))
            continue
        candidates = theirs.weights[place]
        at = counterpart(nth, len(mine.weights[place]), len(candidates), depth)
        reason = f"the donor has {len(candidates)} such blocks" if at is None else ""
        pairs.append(Pair(w, None if at is None else candidates[at], reason, added=at is None))
    return pairs


class _Places:
    """The weights of one model by their places, where the blocks of a model are one place.

    Attributes:
        numbers: The place of each weight.
        weights: The weights of each place, in order.
        keys: For each place the properties that the place has in the other model, too.
    """

    def __init__(self, weights: list[Any]) -> None:
        keys = [(_structure(w), _field(w)) for w in weights]
        shapes = [(key, tuple(w.kernel.shape), _is_head(w)) for key, w in zip(keys, weights, strict=True)]
        self.numbers = places(shapes)
        self.weights: list[list[Any]] = [[] for _ in range(max(self.numbers) + 1)]
        for number, w in zip(self.numbers, weights, strict=True):
            self.weights[number].append(w)
        first = dict(zip(reversed(self.numbers), reversed(keys), strict=True))
        self.keys = [first[place] for place in range(len(self.weights))]


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


def _by_name(own: list[Any], donor: list[Any]) -> list[Pair]:
    """Pairs the weights of equal paths and structure, if the user named the layers; none if too few agree."""
    by_path = {w.path: w for w in donor}
    of = {
        id(w): by_path[w.path]
        for w in own
        if w.path in by_path and _structure(w) == _structure(by_path[w.path]) and not _is_automatic(w)
    }
    order = [donor.index(of[id(w)]) for w in own if id(w) in of]
    if 2 * len(of) < min(len(own), len(donor)) or order != sorted(order):
        return []
    taken = {id(w) for w in of.values()}
    for w in own:
        others = [d for d in donor if id(d) not in taken and _structure(d) == _structure(w)]
        if id(w) not in of and others and not _is_head(w):
            raise _unclear(w, others)
    return [
        Pair(w, of.get(id(w)), "" if id(w) in of else "the donor has no weight of this path") for w in own
    ]


def _up_to(own: list[Any], donor: list[Any]) -> list[Pair]:
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
    if same < min(len(own), len(donor)) - 1 or abs(len(own) - len(donor)) > 1:
        w = own[same] if same < len(own) else own[-1]
        others = [d for d in donor[same:] if _structure(d) == _structure(w)]
        if others and not _is_head(w):
            raise _unclear(w, others)
    return [
        Pair(
            w,
            donor[n] if n < same else None,
            "" if n < same else "the donor's layers are others from here on",
        )
        for n, w in enumerate(own)
    ]


def _structure(w: Place) -> tuple[Hashable, ...]:
    """The properties that a weight shares with its weight of another width, field or number of dimensions."""
    flat = re.sub(r"\dD", "", type(w.layer).__name__)
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
    return {_plain(w.path) for w in weights}


def _plain(path: str) -> str:
    """A path without the numbers in it."""
    return re.sub(r"_?\d+", "", path)


def _is_automatic(w: Place) -> bool:
    """Whether Keras made the name of the layer: from its class, with a number."""
    name = re.sub(r"(?<!^)(?=[A-Z][a-z])", "_", type(w.layer).__name__).lower()
    return _plain(w.layer.name) == _plain(name)


def _unclear(w: Place, others: Sequence[Place]) -> ValueError:
    return ValueError(
        f"`donor` must have one counterpart for {_told(w)}. Received: a donor with {len(others)} candidates: "
        f'{paths_of(others)}. Name it: mapping={{"{w.path}": "{others[0].path}"}}, or None for no '
        "counterpart."
    )


def _told(w: Place) -> str:
    return f"`{w.path}` ({w.role}, shape {tuple(w.kernel.shape)})"


def paths_of(weights: Sequence[Place]) -> str:
    """Returns the first paths of some weights, for a message."""
    return listed([f"`{w.path}`" for w in weights], 6)
