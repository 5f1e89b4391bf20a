"""Kernels that each training call or step sets anew, whatever was done to them before."""

import dataclasses
from collections.abc import Iterable

import keras_initx.probe as probe
from keras_initx._keras_internals import flatten_layers
from keras_initx._types import Batch, Model, Variable
from keras_initx.calibration._report import CalibrationRow
from keras_initx.state import constraint_note, constraint_of
from keras_initx.walk import KernelSite, is_of_users

__all__ = ["Rewritten", "find_rewritten", "tell_constraint"]

_MOVES = 1e-3  # of its size: a kernel that a training call moves less is where it is going to stay
_NOTE = "each training call sets its kernel anew: left as it is"
_SCALES = (1.0, 1e-3)  # a constraint that one of these breaks is not for a law that scales


@dataclasses.dataclass(frozen=True)
class Rewritten:
    """The kernels that a training call sets, or a constraint after a training step.

    Attributes:
        notes: Why they are left alone.
        moving: Those that the next training call or step moves.
        step: Whether it takes a step, not a call alone.
        held: The variables, which a pass as in training would change.
    """

    notes: dict[KernelSite, str]
    moving: tuple[KernelSite, ...]
    step: bool
    held: tuple[Variable, ...]

    @property
    def later(self) -> str:
        """What is to be said of the kernels that run after those that move."""
        if not self.moving:
            return ""
        what = "step" if self.step else "call"
        return (
            f"the next training {what} moves what reaches it, since it sets the kernel of "
            f"`{self.moving[0].path}` anew: run a few training {what}s first"
        )


def find_rewritten(model: Model, batch: Batch, sites: Iterable[KernelSite], redraw: bool) -> Rewritten:
    """Returns the kernels that a training call or step of a model sets, or whose biases it does.

    Only models with a layer that is not Keras' own, or with a wrapper, are called.

    Args:
        model: The model.
        batch: What it is called on.
        sites: Its kernels.
        redraw: Whether they are to be drawn anew, which a constraint that fits today's values may not fit.
    """
    variables = {site: [v for v in (site.kernel, site.bias) if v is not None] for site in sites}
    constrained, at_once = _constrained(variables, redraw)
    every = [variable for group in variables.values() for variable in group]
    called = any(is_of_users(layer) for layer in flatten_layers(model))
    moves = probe.rewritten_by_training(model, batch, every) if called else {}
    found = [site for site, group in variables.items() if any(id(v) in moves for v in group)]
    moving = tuple(s for s in found if any(moves.get(id(v), 0.0) > _MOVES for v in variables[s]))
    return Rewritten(
        notes=constrained | dict.fromkeys(found, _NOTE),
        moving=moving or at_once,
        step=not moving,
        held=tuple({id(v): v for v in every if id(v) in moves}.values()),
    )


def tell_constraint(row: CalibrationRow, site: KernelSite) -> CalibrationRow:
    """Returns the row of a kernel, with a note if the kernel has become too large for its constraint."""
    if row.note or not row.iterations:
        return row
    group = [variable for variable in (site.kernel, site.bias) if variable is not None]
    return dataclasses.replace(row, note=next(filter(None, map(constraint_note, group)), ""))


def _constrained(
    variables: dict[KernelSite, list[Variable]], redraw: bool
) -> tuple[dict[KernelSite, str], tuple[KernelSite, ...]]:
    """Why kernels are left to their constraints, and those that the next step changes as they are."""
    notes, moving = {}, []
    factors = (*_SCALES, -1.0) if redraw else _SCALES
    for site, group in variables.items():
        if name := next(filter(None, (constraint_of(variable, *factors) for variable in group)), ""):
            notes[site] = f"its constraint {name} sets it anew after each training step: left as it is"
            if any(constraint_of(variable) for variable in group):
                moving.append(site)
    return notes, tuple(moving)
