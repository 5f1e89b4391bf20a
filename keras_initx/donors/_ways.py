"""Carries all weights of a model, or says at which it is wider than the donor, and at which narrower."""

import dataclasses
from collections.abc import Sequence

from keras_initx.donors._carry import Carried, Carrier, WrongWidthError
from keras_initx.donors._pair import Pair

__all__ = ["carry_all"]


def carry_all(carrier: Carrier, pairs: Sequence[Pair]) -> list[Carried]:
    """Returns what becomes of the weight of each pair.

    Raises:
        ValueError: If the model is wider than the donor under `select`, or narrower under `clone`; and as in
            `Carrier.carry`.
    """
    try:
        return [
            Carried(None, pair.reason) if pair.donor is None else carrier.carry(pair.own, pair.donor)
            for pair in pairs
        ]
    except WrongWidthError as error:
        ways = {width: _failures(carrier, pairs, width) for width in ("select", "clone")}
        if not all(ways.values()):
            raise ValueError(str(error)) from None
        grown, shrunk = (next(iter(ways[width].values())).told for width in ("select", "clone"))
        width = min("clone", "select", key=lambda one: len(ways[one]))
        left = ", ".join(f'"{path}": None' for path in ways[width])
        raise ValueError(
            "`width` must be 'clone' where the model is wider than the donor, and 'select' where it is "
            f"narrower. Received: width={carrier.width!r} for a model that is wider at {grown}, and narrower "
            f"at {shrunk}. Leave the weights of one kind out, which are drawn anew: "
            f"FromModel(donor, width={width!r}, mapping={{{left}}}), beside your own `mapping`."
        ) from None


def _failures(carrier: Carrier, pairs: Sequence[Pair], width: str) -> dict[str, WrongWidthError]:
    """The weights that cannot be carried at a width, by their paths."""
    other, found = dataclasses.replace(carrier, width=width, told=set()), {}
    for pair in pairs:
        try:
            if pair.donor is not None:
                other.carry(pair.own, pair.donor)
        except WrongWidthError as error:
            found[pair.own.path] = error
    return found
