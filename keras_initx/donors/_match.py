"""Pairs the weights of a model with those of a donor: by the user's mapping, by order, by name."""

import dataclasses
import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeAlias

from keras_initx.donors._blocks import counterpart, occurrences, places
from keras_initx.tables import listed
from keras_initx.walk import KernelSite, Weight

__all__ = ["Pair", "match"]

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


def match(
    own: Sequence[Place], donor: Sequence[Place], depth: str, mapping: Mapping[str, str | None]
) -> list[Pair]:
    """Returns each weight of a model with its counterpart.

    Args:
        own: The weights of the model, kernels first, in call order.
        donor: Those of the donor.
        depth: Which blocks of the donor the blocks of a model of another depth take.
        mapping: Paths of layers or weights of the model, and those of the donor. None for a part that takes
            nothing.

    Raises:
        ValueError: If the mapping has a path that does not exist, or nothing tells the pairs.
    """
    pairs = _mapped(own, donor, mapping)
    given = {id(pair.own) for pair in pairs}
    used = {id(pair.donor) for pair in pairs}
    kernels, others = (
        [w for w in own if id(w) not in given and isinstance(w, kind)] for kind in (KernelSite, Weight)
    )
    theirs, rest = (
        [w for w in donor if id(w) not in used and isinstance(w, kind)] for kind in (KernelSite, Weight)
    )
    pairs += _aligned(kernels, theirs, depth)
    return pairs + _beside(others, rest, pairs, depth)


def _mapped(own: Sequence[Place], donor: Sequence[Place], mapping: Mapping[str, str | None]) -> list[Pair]:
    """The pairs that the user names, by the paths of weights or of layers that hold them."""
    by_path = {w.path: w for w in donor}
    pairs = []
    for mine, other in mapping.items():
        found = [w for w in own if _below(w.path, mine) is not None]
        if not found:
            raise ValueError(
                f"`mapping` must have paths of the model as its keys. Received: {mine!r}, which is none of "
                f"{_paths(own)} and no layer above them."
            )
        for weight in found:
            if other is None:
                pairs.append(Pair(weight, None, "`mapping` gives it nothing"))
                continue
            path = f"{other}{_below(weight.path, mine)}"
            if path not in by_path:
                raise ValueError(
                    f"`mapping` must have paths of the donor as its values. Received: {mine!r}: {other!r} for "
                    f"`{weight.path}`, and the donor has no `{path}`. It has {_paths(donor)}."
                )
            pairs.append(Pair(weight, by_path[path]))
    return pairs


def _below(path: str, start: str) -> str | None:
    """The rest of a path that begins with another; None if it does not."""
    return path[len(start) :] if path == start or path.startswith(f"{start}/") else None


def _aligned(own: list[Any], donor: list[Any], depth: str) -> list[Pair]:
    """The pairs of kernels and scales: of whole models, of a model in another, or up to where they part."""
    if not own or not donor:
        return [Pair(w, None, "the donor has no weight left for it") for w in own]
    named = {_plain(w.path) for w in own} == {_plain(w.path) for w in donor}
    pairs = _by_place(own, donor, depth, named)
    return pairs or _within(own, donor) or _by_name(own, donor) or _up_to(own, donor)


def _by_place(own: list[Any], donor: list[Any], depth: str, named: bool) -> list[Pair]:
    """Pairs two models block by block; none if one is not the other's structure, or the beginning of it.

    If both have the same names, apart from numbers, each weight goes to one of its name. So weights that two
    models call in another order find each other.
    """
    mine, theirs = _Places(own, named), _Places(donor, named)
    of = {place: theirs.by_key.get(key) for place, key in mine.keys.items()}
    kept = [other for other in of.values() if other is not None]
    whole = len(kept) == min(len(mine.keys), len(theirs.keys))
    if not whole or (not named and (kept != list(range(len(kept))) or [*of.values()][: len(kept)] != kept)):
        return []
    pairs = []
    for place, nth, w in zip(mine.numbers, occurrences(mine.numbers), own, strict=True):
        candidates = theirs.weights.get(of[place], [])
        if not candidates:
            pairs.append(Pair(w, None, "the donor has no such layer"))
            continue
        at = counterpart(nth, len(mine.weights[place]), len(candidates), depth)
        reason = f"the donor has {len(candidates)} such blocks" if at is None else ""
        pairs.append(Pair(w, None if at is None else candidates[at], reason, added=at is None))
    return pairs


class _Places:
    """The weights of one model by their places, where the blocks of a model are one place.

    Attributes:
        numbers: The place of each weight.
        weights: The weights of each place, in order.
        keys: For each place a key that the place has in the other model, too.
        by_key: The place of each key.
    """

    def __init__(self, weights: list[Any], named: bool) -> None:
        def key(w: Any) -> Hashable:
            return (_structure(w), _plain(w.path) if named else "")

        self.numbers = places([(key(w), tuple(w.kernel.shape), _is_head(w)) for w in weights])
        self.weights: dict[int | None, list[Any]] = {}
        for number, w in zip(self.numbers, weights, strict=True):
            self.weights.setdefault(number, []).append(w)
        first = [key(members[0]) for members in self.weights.values()]
        # Equal keys, such as the same layer in two stages, are told apart by their order.
        keys = zip(first, occurrences(first), strict=True)
        self.keys = dict(zip([*self.weights], keys, strict=True))
        self.by_key = {found: place for place, found in self.keys.items()}


def _within(own: list[Any], donor: list[Any]) -> list[Pair]:
    """Pairs a model that holds the donor whole, or is a part of the donor; none if it does not, or not once."""
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
        raise _unclear(short[0], [long[at] for at in starts])
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
            f'mapping={{"{own[0].path}": "..."}}. The donor has {_paths(donor)}.'
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


def _beside(own: list[Any], donor: list[Any], kernels: Sequence[Pair], depth: str) -> list[Pair]:
    """The pairs of biases, statistics and other weights: those of the paired layers, the others by order."""
    partner = {id(p.own.layer): p for p in kernels}
    known = {(id(w.layer), w.kernel.name): w for w in donor}
    pairs, left = [], []
    for w in own:
        pair = partner.get(id(w.layer))
        if pair is None:
            left.append(w)
            continue
        found = pair.donor and known.get((id(pair.donor.layer), w.kernel.name))
        reason = "" if found else pair.reason or "the donor's layer has no such weight"
        pairs.append(Pair(w, found or None, reason, pair.added))
    taken = {id(p.donor.layer) for p in kernels if p.donor}
    rest = [w for w in donor if id(w.layer) not in taken]
    if not left or not rest:
        return pairs + [Pair(w, None, "the donor has no such weight") for w in left]
    named = {_plain(w.path) for w in left} == {_plain(w.path) for w in rest}
    return pairs + (_by_place(left, rest, depth, named) or _by_path(left, rest))


def _by_path(own: list[Any], donor: list[Any]) -> list[Pair]:
    by_path = {w.path: w for w in donor}
    return [
        Pair(w, by_path.get(w.path), "" if w.path in by_path else "the donor has no weight of this path")
        for w in own
    ]


def _structure(w: Place) -> tuple[Hashable, ...]:
    """The properties that a weight shares with its weight of another width, field or number of dimensions."""
    flat = re.sub(r"\dD", "", type(w.layer).__name__)
    inflated = w.layout is not None and w.layout.kind in _FIELDS and w.role != "bias"
    return w.role, flat, "" if inflated else len(w.kernel.shape)


def _is_head(w: Place) -> bool:
    """Whether a kernel makes the model's output, and not as the end of a block."""
    return isinstance(w, KernelSite) and w.is_output and w.branch is None


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
        f'{_paths(others)}. Name it: mapping={{"{w.path}": "{others[0].path}"}}, or None for no counterpart.'
    )


def _told(w: Place) -> str:
    return f"`{w.path}` ({w.role}, shape {tuple(w.kernel.shape)})"


def _paths(weights: Sequence[Place]) -> str:
    return listed([f"`{w.path}`" for w in weights], 6)
