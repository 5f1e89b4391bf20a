"""The aim of one kernel: the law that draws it, and the moments that its pre-activation is to have."""

import dataclasses
from collections.abc import Callable

import numpy as np

from keras_initx.initializers import Law

__all__ = ["LEAVE", "Aim", "Statistic", "aim_of", "aim_towards", "spreads"]

# A mean, std, scale or shift: a float over all units, or a float64 array of shape (units,).
Statistic = float | np.ndarray
Rescale = Callable[[Statistic, Statistic], tuple[Statistic, Statistic]]

# Rounding gives constant outputs a spread of about one unit in the last place. A spread below this many of
# these units says nothing about the data.
_ZERO_SPREAD = 8 * 2.0**-23


@dataclasses.dataclass(frozen=True)
class Aim:
    """The law of one kernel, as the passes use it.

    Attributes:
        law: The law that draws the kernel and that errors name; None if the kernel is not to be drawn.
        rescale: Function from the mean and std of the pre-activation to the law's scale and shift.
        per_unit: Whether `rescale` takes one mean and std for each unit instead of one over all.
        constants: Whether `rescale` also decides about units whose output is constant on the data.
        told: A sentence for the report about the bias, if the bias holds a prior; empty otherwise.
    """

    law: Law | None
    rescale: Rescale
    per_unit: bool = False
    constants: bool = False
    told: str = ""

    @property
    def rescales(self) -> bool:
        """Whether the law sets the size of the pre-activation, and so the scale of kernel and bias."""
        return self.rescale is not _stay

    @property
    def name(self) -> str:
        """Name of the law, for errors."""
        return "a prior of a bias" if self.law is None else type(self.law).__name__


def _stay(mean: Statistic, std: Statistic) -> tuple[Statistic, Statistic]:
    """Leaves a pre-activation as it is."""
    return 0.0 * mean + std / std, 0.0


LEAVE = Aim(None, _stay)


def aim_of(law: Law) -> Aim:
    """Returns the aim of a kernel under a law.

    A law that makes kernels from inputs, a law of heads or adapters, and a law over the whole model do not
    rescale single kernels.
    """
    if law.scope in ("adapter", "head", "model") or law.draws_from_inputs:
        return Aim(law, _stay)
    return Aim(law, law.rescale, per_unit=law.scope == "unit")


def aim_towards(base: Aim, means: np.ndarray | None, told: str, constants: bool) -> Aim:
    """Returns an aim with the scale of another one and with given means of the units.

    A law of one std over all units then takes this std about the units' own means.

    Args:
        base: The aim that sets the scale.
        means: Mean of each unit's pre-activation; None to keep the means that are measured.
        told: A sentence for the report about the bias.
        constants: Whether units get their means where their output is constant on the data, too.
    """

    def rescale(mean: Statistic, std: Statistic) -> tuple[Statistic, Statistic]:
        if base.per_unit:
            varies = spreads(mean, std)
            scale: Statistic = np.where(varies, base.rescale(mean, np.where(varies, std, 1.0))[0], 1.0)
        else:
            about = float(np.sqrt(np.mean(np.square(std))))
            varies = spreads(float(np.sqrt(np.mean(np.square(mean)))), about)
            scale = base.rescale(0.0, about)[0] if varies else 1.0
        wanted = mean if means is None else means
        return scale + 0.0 * std, wanted - scale * mean

    return Aim(base.law, rescale, per_unit=True, constants=constants, told=told)


def spreads(mean: Statistic, std: Statistic) -> bool | np.ndarray:
    """Tells whether values with this mean and std vary by more than rounding."""
    return std > _ZERO_SPREAD * np.hypot(mean, std)
