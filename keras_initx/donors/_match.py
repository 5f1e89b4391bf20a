"""Pairs the weights of a model with those of a donor: by the user's mapping, by order, by name."""

from collections.abc import Mapping, Sequence

from keras_initx._types import Model
from keras_initx.donors._align import align
from keras_initx.donors._names import Names
from keras_initx.donors._pair import Pair, Place, paths_of
from keras_initx.walk import KernelSite, Weight

__all__ = ["match"]


def match(
    own: Sequence[Place],
    donor: Sequence[Place],
    depth: str,
    mapping: Mapping[str, str | None],
    models: tuple[Model, Model],
) -> list[Pair]:
    """Returns each weight of a model with its counterpart.

    Args:
        own: The weights of the model, kernels first, in call order.
        donor: Those of the donor.
        depth: Which blocks of the donor the blocks of a model of another depth take.
        mapping: Paths of layers or weights of the model, and those of the donor. None for a part that takes
            nothing.
        models: The model and the donor, which tell the names.

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
    names = Names(models[0], own), Names(models[1], donor)
    pairs += align(kernels, theirs, depth, names)
    holders = {id(w.layer) for w in donor if isinstance(w, KernelSite)}
    return pairs + _beside(others, rest, pairs, holders, depth, names)


def _mapped(own: Sequence[Place], donor: Sequence[Place], mapping: Mapping[str, str | None]) -> list[Pair]:
    """The pairs that the user names, by the paths of weights or of layers that hold them."""
    by_path = {w.path: w for w in donor}
    pairs = []
    for mine, other in mapping.items():
        found = [w for w in own if _below(w.path, mine) is not None]
        if not found:
            raise ValueError(
                f"`mapping` must have paths of the model as its keys. Received: {mine!r}, which is none of "
                f"{paths_of(own)} and no layer above them."
            )
        for weight in found:
            if other is None:
                pairs.append(Pair(weight, None, "`mapping` gives it nothing"))
                continue
            path = f"{other}{_below(weight.path, mine)}"
            if path not in by_path:
                raise ValueError(
                    f"`mapping` must have paths of the donor as its values. Received: {mine!r}: {other!r} "
                    f"for `{weight.path}`, and the donor has no `{path}`. It has {paths_of(donor)}."
                )
            pairs.append(Pair(weight, by_path[path]))
    return pairs


def _below(path: str, start: str) -> str | None:
    """The rest of a path that begins with another; None if it does not."""
    return path[len(start) :] if path == start or path.startswith(f"{start}/") else None


def _beside(
    own: list[Place],
    donor: list[Place],
    kernels: Sequence[Pair],
    holders: set[int],
    depth: str,
    names: tuple[Names, Names],
) -> list[Pair]:
    """The pairs of biases, statistics and other weights: those of the paired layers, the others by order.

    Args:
        own: The weights of the model.
        donor: Those of the donor.
        kernels: The pairs of kernels and scales.
        holders: The ids of the donor's layers that have kernels or scales.
        depth: As in `match`.
        names: The names of both models.
    """
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
    rest = [w for w in donor if id(w.layer) not in holders]
    return pairs + align(left, rest, depth, names, strict=False)
