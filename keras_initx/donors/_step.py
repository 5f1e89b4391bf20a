"""`Step`: how one axis of a weight is carried from a donor to a model."""

import dataclasses
from collections.abc import Callable

import numpy as np

from keras_initx.donors._pick import Pick, identity

__all__ = ["Step", "of_channels", "of_field"]


@dataclasses.dataclass(frozen=True)
class Step:
    """How one axis is carried.

    Attributes:
        pick: The units that it takes.
        shared: Whether units that are taken several times are summed, so that each gets its share.
        factor: Factor of all values.
        change: Function of the donor's value with this axis first, in place of `pick`.
        note: What was done, for the report.
        share: Share of the entries that come from the donor.
    """

    pick: Pick
    shared: bool = False
    factor: float = 1.0
    change: Callable[[np.ndarray], np.ndarray] | None = None
    note: str = ""
    share: float = 1.0

    def take(self, value: np.ndarray, axis: int) -> np.ndarray:
        """Returns a value with this axis carried."""
        if self.change is not None:
            return np.moveaxis(self.change(np.moveaxis(value, axis, 0)), 0, axis)
        if len(self.pick.index) != value.shape[axis] or not self.pick.is_identity:
            value = value.take(self.pick.index, axis)
        if self.shared and self.pick.grows:
            value = value / self.pick.copies.reshape(-1, *(1,) * (value.ndim - 1 - axis)).astype(value.dtype)
        return value * np.asarray(self.factor, value.dtype) if self.factor != 1 else value


def of_channels(own: int, donor: int) -> Step:
    """Returns how a first kernel takes other channels.

    Grey is their sum. More channels, or fewer, are the donor's again and again, with their sum kept.
    """
    if own == 1:
        grey = lambda value: value.sum(axis=0, keepdims=True)  # noqa: E731
        return Step(identity(1), change=grey, note=f"the sum of {donor} channels")
    pick = Pick(np.arange(own) % donor, np.ones(own, int))
    return Step(pick, factor=donor / own, note=f"{donor} channels repeated to {own}")


def of_field(own: int, donor: int) -> Step | str:
    """Returns how a kernel takes a field along one axis, or the reason why it cannot."""
    if donor > 1:
        return f"its field has {own} taps where the donor's has {donor}"
    # A kernel of fewer dimensions, repeated along the new one, as if the input did not change along it.
    return Step(Pick(np.zeros(own, int), np.full(own, own)), shared=True, note=f"repeated over {own} taps")
