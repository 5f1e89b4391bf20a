"""Kernels that a training call or a training step sets anew, whatever `calibrate` does to them.

Two mechanisms do this. A layer such as `SpectralNormalization` assigns to a kernel in each training call; the
model is run once in training mode, in a scope, to find these kernels. And Keras applies the constraint of a
kernel after each training step; the constraint is called on the kernel at other sizes to see if it sets the
size. Such a kernel is left as it is. If it is going to move soon, so is the input of all later kernels, and
their rows say it.
"""

import dataclasses
from collections.abc import Iterable

import keras_initx.probe as probe
from keras_initx._keras_internals import flatten_layers
from keras_initx._types import Batch, Model, Variable
from keras_initx.calibration._report import CalibrationRow
from keras_initx.state import constraint_note, constraint_of
from keras_initx.walk import KernelSite, is_of_users

__all__ = ["Rewritten", "find_rewritten", "tell_constraint"]

# A training call that moves a kernel by less, relative to its norm, has converged: the kernel stays there.
_MOVES = 1e-3
_NOTE = "each training call sets its kernel anew: left as it is"
# A constraint that changes the kernel at one of these scales does not let a law scale it.
_SCALES = (1.0, 1e-3)


@dataclasses.dataclass(frozen=True)
class Rewritten:
    """The kernels that a training call, or a constraint after a training step, sets anew.

    Attributes:
        notes: Why each of these kernels is left as it is.
        moving: The kernels that the next training call or step moves.
        step: Whether a training step moves them; False if a training call alone does.
        held: The variables that a pass in training mode changes, to be put back after it.
    """

    notes: dict[KernelSite, str]
    moving: tuple[KernelSite, ...]
    step: bool
    held: tuple[Variable, ...]

    @property
    def later(self) -> str:
        """The note of a kernel that runs after a kernel that moves; empty if no kernel moves."""
        if not self.moving:
            return ""
        event = "step" if self.step else "call"
        return (
            f"the next training {event} moves what reaches it, since it sets the kernel of "
            f"`{self.moving[0].path}` anew: run a few training {event}s first"
        )


def find_rewritten(model: Model, batch: Batch, sites: Iterable[KernelSite], redraw: bool) -> Rewritten:
    """Returns the kernels whose values, or whose biases, a training call or step of a model sets.

    Only a model with a wrapper, or with a layer from outside of Keras, is called.

    Args:
        model: The model.
        batch: The rows to call it on.
        sites: The kernels of the model.
        redraw: Whether the kernels will be drawn anew. The present values may fit a constraint that new
            values do not fit.
    """
    variables = {site: [v for v in (site.kernel, site.bias) if v is not None] for site in sites}
    constrained, at_once = _constrained(variables, redraw)
    every = [variable for group in variables.values() for variable in group]
    # Keras' own layers do not assign to kernels, so most models are spared this run.
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
    """Returns the row of a kernel, with a note if the kernel is now too large for its constraint.

    Args:
        row: The row.
        site: The kernel.
    """
    if row.note or not row.iterations:
        return row
    group = [variable for variable in (site.kernel, site.bias) if variable is not None]
    return dataclasses.replace(row, note=next(filter(None, map(constraint_note, group)), ""))


def _constrained(
    variables: dict[KernelSite, list[Variable]], redraw: bool
) -> tuple[dict[KernelSite, str], tuple[KernelSite, ...]]:
    """Returns notes for kernels with a constraint, and the kernels that the next step changes."""
    notes, moving = {}, []
    # A new draw has entries of both signs, which a constraint such as `NonNeg` does not let pass.
    factors = (*_SCALES, -1.0) if redraw else _SCALES
    for site, group in variables.items():
        if name := next(filter(None, (constraint_of(variable, *factors) for variable in group)), ""):
            notes[site] = f"its constraint {name} sets it anew after each training step: left as it is"
            if any(constraint_of(variable) for variable in group):
                moving.append(site)
    return notes, tuple(moving)
