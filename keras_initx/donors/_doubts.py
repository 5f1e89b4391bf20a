"""Why the copies of a unit may compute something else than the unit: what the runs of both models tell."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from keras_initx.donors._pair import Pair
from keras_initx.uses import Coupling, Units

__all__ = ["REACHING", "UNEVEN", "doubts", "other_operations"]

REACHING = "its units reach the output: if they are classes or words, tell which by `rows` or `vocabulary`"
UNEVEN = "the width is no multiple of the donor's: means over it are others"


def doubts(own: Units, donor: Units, attention: bool) -> list[str]:
    """Returns why a model of more units does not compute the donor's function, or may not.

    Args:
        own: The units of an axis in the model.
        donor: Those of the donor.
        attention: Whether the axis is of queries or keys of Keras' attention, whose factor is known.
    """
    found = []
    for one, other in _grown(own, donor):
        uneven = bool(one.size % other.size)
        for name in sorted(one.across):
            found.append(f"`{name}` takes all its units together: the function may be another")
        if uneven and "averaged" in one.marks:
            found.append(UNEVEN)
        if uneven and "mixed" in one.marks and attention:
            found.append("the width of a head is no multiple of the donor's: its scores are others")
        if "mixed" in one.marks and not attention:
            found.append("two signals are multiplied and summed over its units: the function may be another")
        if "torn" in one.marks:
            found.append("its units meet others that are grouped in another way: the function may be another")
        if "turned" in one.marks and (uneven or "parts" in (one.how, other.how)):
            found.append("its units also stand in the reverse order: the function may be another")
        if "loop" in one.marks and one.how:
            found.append("its units come out of a loop, and how they are grouped is not known")
        mine, theirs = sorted(one.numbers - other.numbers), sorted(other.numbers - one.numbers)
        if (mine or theirs) and not attention:
            told = [", ".join(f"{number:g}" for number in side) or "none" for side in (mine, theirs)]
            found.append(
                f"its units are computed with other numbers ({told[0]}) than the donor's ({told[1]})"
            )
    return list(dict.fromkeys(found))


def _grown(own: Units, donor: Units) -> Iterator[tuple[Units, Units]]:
    """The units, and those that they are made of, of which the model has more than the donor."""
    if own.size <= donor.size:
        return
    yield own, donor
    if own.how == donor.how and len(own.of) == len(donor.of):
        for one, other in zip(own.of, donor.of, strict=True):
            yield from _grown(one, other)


def other_operations(pairs: Sequence[Pair], own: Coupling, donor: Coupling) -> dict[int, str]:
    """Returns, by the ids of weights, which operations follow the weight and not its counterpart.

    Args:
        pairs: The weights of the model and their counterparts. Where some have none, the models have other
            layers, and nothing is told.
        own: The run of the model.
        donor: That of the donor.
    """
    found: dict[int, str] = {}
    if any(pair.donor is None for pair in pairs) or not (own.flow.known and donor.flow.known):
        return found
    of = {id(pair.own.kernel): id(pair.donor.kernel) for pair in pairs if pair.donor is not None}
    for pair in pairs:
        assert pair.donor is not None
        beside = own.flow.beside(pair.own.kernel), donor.flow.beside(pair.donor.kernel)
        if _renamed(beside[0], of) != _renamed(beside[1], {key: key for key in of.values()}):
            found[id(pair.own)] = "it meets others in a sum or product than the donor's"
        mine, theirs = own.flow.after(pair.own.kernel), donor.flow.after(pair.donor.kernel)
        if mine != theirs:
            told = [_shown(mine - theirs), _shown(theirs - mine)]
            found[id(pair.own)] = f"{told[0]} follows where {told[1]} follows the donor's"
    return found


def _shown(names: Counter[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "nothing"


def _renamed(groups: Counter[frozenset[int]], of: Mapping[int, int]) -> Counter[frozenset[int]]:
    """Groups of ids by other ids, without those that have none, as the factors of LoRA."""
    return Counter(frozenset(of[key] for key in group if key in of) for group in groups.elements())
