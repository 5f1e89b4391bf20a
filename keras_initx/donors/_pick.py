"""`Pick`: which unit of a donor each unit of a model takes, along one axis of a weight.

An axis of both models is read the same way: as one list of units, as a product (rows x columns x channels
after a Flatten, heads x units of a head) or as parts side by side (after a concatenation). Each list of units
that is made of no others is picked by its two sizes alone, so that all weights which share the units pick the
same ones.
"""

import dataclasses
import random

import numpy as np

from keras_initx.uses import Units

__all__ = ["Pick", "identity", "pick"]


@dataclasses.dataclass(frozen=True)
class Pick:
    """Which unit of the donor each unit of the model takes.

    Attributes:
        index: For each unit of the model the unit of the donor.
        copies: For each unit of the model, how many units of the model take the same unit.
        followed: Whether the units were read the same way in both models.
    """

    index: np.ndarray
    copies: np.ndarray
    followed: bool = True

    @property
    def is_identity(self) -> bool:
        """Whether each unit takes its own in an axis of the same size."""
        return bool(np.array_equal(self.index, np.arange(len(self.index))))

    @property
    def grows(self) -> bool:
        """Whether some unit of the donor is taken more than once."""
        return bool((self.copies > 1).any())

    @property
    def even(self) -> bool:
        """Whether all units that are taken are taken equally often, so that means over them stay."""
        return len(set(self.copies.tolist())) <= 1


def identity(size: int) -> Pick:
    """Returns the pick of an axis that stays as it is."""
    return Pick(np.arange(size), np.ones(size, int))


def pick(own: Units, donor: Units, seed: int) -> Pick:
    """Returns the pick of an axis.

    Args:
        own: The units of the axis in the model.
        donor: Those of the donor.
        seed: Seed of the units that are taken twice, where a width is no multiple of the donor's.
    """
    if own.how == donor.how == "product":
        ones, others = _atoms(own), _atoms(donor)
        if len(ones) == len(others):
            return _product([pick(one, other, seed) for one, other in zip(ones, others, strict=True)], others)
    if own.how == donor.how == "parts" and len(own.of) == len(donor.of):
        return _parts([pick(one, other, seed) for one, other in zip(own.of, donor.of, strict=True)], donor.of)
    found = _by_size(own.size, donor.size, seed)
    same = own.how == donor.how or own.size == donor.size
    return dataclasses.replace(found, followed=same and not (own.how and own.size != donor.size))


def _atoms(units: Units) -> list[Units]:
    return [atom for part in units.of for atom in _atoms(part)] if units.how == "product" else [units]


def _product(picks: list[Pick], sizes: list[Units]) -> Pick:
    index, copies = np.zeros(1, int), np.ones(1, int)
    for one, units in zip(picks, sizes, strict=True):
        index = (index[:, None] * units.size + one.index).reshape(-1)
        copies = (copies[:, None] * one.copies).reshape(-1)
    return Pick(index, copies, all(one.followed for one in picks))


def _parts(picks: list[Pick], sizes: tuple[Units, ...]) -> Pick:
    starts = np.cumsum([0, *(units.size for units in sizes)])
    index = np.concatenate([one.index + start for one, start in zip(picks, starts[:-1], strict=True)])
    return Pick(index, np.concatenate([one.copies for one in picks]), all(one.followed for one in picks))


def _by_size(size: int, donor: int, seed: int) -> Pick:
    """The pick of a list of units that is made of no others.

    Fewer units: evenly spaced ones (Xu et al. 2024). More: the donor's again and again (HyperCloning), and of
    a width that is no multiple, some of them at random for the rest (Net2Net).
    """
    if size <= donor:
        if donor % size == 0:
            index = np.arange(size) * (donor // size)
        else:  # the last unit is the donor's last
            index = np.round(np.linspace(0, donor - 1, size)).astype(int)
        return Pick(index, np.ones(size, int))
    whole, rest = divmod(size, donor)
    more = sorted(random.Random(f"{seed}/{size}/{donor}").sample(range(donor), rest))
    index = np.concatenate([np.tile(np.arange(donor), whole), np.array(more, int)])
    return Pick(index, np.bincount(index, minlength=donor)[index])
