"""Why the copies of a unit may compute something else than the unit: what the runs of both models tell."""

from collections.abc import Iterator

from keras_initx.uses import Units

__all__ = ["UNEVEN", "doubts"]

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
