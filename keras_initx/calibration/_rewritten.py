"""Kernels that each training call sets anew, whatever was done to them before."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import keras_initx.probe as probe
from keras_initx.walk import KernelSite, is_of_users

__all__ = ["Rewritten", "find_rewritten"]

_MOVES = 1e-3  # of its size: a kernel that a training call moves less is where it is going to stay
_NOTE = "each training call sets its kernel anew: left as it is"


@dataclasses.dataclass(frozen=True)
class Rewritten:
    """The kernels that a training call sets.

    Attributes:
        notes: Why they are left alone.
        moving: Those that the next training call moves.
        held: The variables, which a pass as in training would change.
    """

    notes: dict[KernelSite, str]
    moving: tuple[KernelSite, ...]
    held: tuple[Any, ...]

    @property
    def later(self) -> str:
        """What is to be said of the kernels that run after those that move."""
        if not self.moving:
            return ""
        return (
            "the next training call moves what reaches it, since it sets the kernel of "
            f"`{self.moving[0].path}` anew: run a few training calls first"
        )


def find_rewritten(model: Any, batch: Any, sites: Iterable[KernelSite]) -> Rewritten:
    """Returns the kernels that a training call of a model assigns to, or whose biases it does.

    Only models with a layer that is not Keras' own, or with a wrapper, are called.
    """
    if not any(is_of_users(layer) for layer in model._flatten_layers()):
        return Rewritten({}, (), ())
    variables = {site: [v for v in (site.kernel, site.bias) if v is not None] for site in sites}
    every = [variable for group in variables.values() for variable in group]
    moves = probe.rewritten_by_training(model, batch, every)
    found = [site for site, group in variables.items() if any(id(v) in moves for v in group)]
    return Rewritten(
        notes=dict.fromkeys(found, _NOTE),
        moving=tuple(s for s in found if any(moves.get(id(v), 0.0) > _MOVES for v in variables[s])),
        held=tuple({id(v): v for v in every if id(v) in moves}.values()),
    )
