"""Recurrent cells: loops over a cell bring each gate to the law's std before the cell's layer runs.

The pass cannot do this. A gate's pre-activation x W + h U + b depends on its own scale through the state h,
so one division by the std does not reach the target. And a backend may run the loop over time as one
operation, where no hook sees a pre-activation. So when the pass comes to a recurrent layer, `fit` runs the
layer's cells step by step on the inputs of the layer, which are calibrated by then. It finds one factor for
each gate and writes the weights at once. Then the layer runs with its new weights, and the pass goes on.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from keras_initx._keras_internals import flatten_layers
from keras_initx._types import Layer, Model, Tensor
from keras_initx.calibration._aim import Aim
from keras_initx.calibration._draw import Update, drawn, with_stream
from keras_initx.calibration._report import FROZEN, CalibrationRow
from keras_initx.calibration._settings import Settings
from keras_initx.recurrence import GateFit, fit_cells, gate_names, obstacle, scaled
from keras_initx.walk import KernelSite

__all__ = ["Cell", "find_cells", "fit"]

_TOGETHER = "the kernels of a cell are scaled together: choose both"


@dataclasses.dataclass(eq=False)
class Cell:
    """One recurrent cell and the fits of its gates.

    Attributes:
        owner: The layer that runs the cell.
        layer: The cell.
        sites: The cell's kernel and recurrent kernel.
        aim: The aim of both kernels.
        note: Why the cell is left as it is; empty if it is calibrated.
        calls: Number of calls of the owner in the present pass.
        fits: The fit of each pass.
    """

    owner: Layer
    layer: Layer
    sites: list[KernelSite]
    aim: Aim
    note: str
    calls: int = 0
    fits: list[GateFit] = dataclasses.field(default_factory=list)

    def rows(self) -> list[CalibrationRow]:
        """Returns the rows of the report; both kernels have the same numbers."""
        if not self.fits:
            note = self.note or "the data never reached it"
            return [CalibrationRow(site.path, site.role, note=note) for site in self.sites]
        last, note = self.fits[-1], ""
        if not last.converged:
            stds = ", ".join(
                f"{name} {std:.3g}" for name, std in zip(gate_names(self.layer), last.std_after, strict=True)
            )
            note = f"not all gates are within the tolerance: {stds}"
        elif self.calls > 1:
            note = f"ran {self.calls} times; its gates fit the first"
        # Each pass starts from the weights of the pass before.
        factors = np.prod([one.factors for one in self.fits], axis=0)
        return [
            CalibrationRow(
                path=site.path,
                role=site.role,
                std_before=_rms(self.fits[0].std_before),
                scale=float(np.exp(np.mean(np.log(factors)))),
                std_after=_rms(last.std_after),
                iterations=sum(max(one.iterations, 1) for one in self.fits),
                note=note,
            )
            for site in self.sites
        ]


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / len(values))


def find_cells(
    model: Model, aims: Mapping[KernelSite, Aim], frozen: bool, notes: Mapping[KernelSite, str]
) -> list[Cell]:
    """Returns the cells of known classes whose kernels have an aim.

    Args:
        model: The model.
        aims: The aim of each kernel.
        frozen: Whether to calibrate cells that are not trainable, too.
        notes: Why kernels are left as they are.
    """
    found = []
    owners = {id(layer): layer for layer in flatten_layers(model) if hasattr(layer, "cell")}
    for owner in owners.values():
        if obstacle(owner):
            continue
        for cell in getattr(owner.cell, "cells", [owner.cell]):
            sites = [site for site in aims if site.layer is cell]
            if sites:
                aim = aims[sites[0]]
                note = next((notes[site] for site in sites if site in notes), "")
                note = note or _reason(sites, aim, frozen)
                found.append(Cell(owner, cell, sites, aim, note))
    return found


def _reason(sites: list[KernelSite], aim: Aim, frozen: bool) -> str:
    """Returns why a cell is left as it is; empty if it is calibrated."""
    if not (all(site.kernel.trainable for site in sites) or frozen):
        return FROZEN
    if len(sites) < 2:
        return _TOGETHER
    if aim.law is None or aim.law.scope != "layer":
        return "gates take laws of one mean and std, such as LSUV"
    return ""


def fit(cells: Sequence[Cell], settings: Settings, update: Update) -> Callable[..., None]:
    """Returns a function to call before the layer of some cells runs, with the arguments of the layer's call.

    Args:
        cells: The cells of one layer.
        settings: The settings of the call.
        update: Assigns a new value to a variable, so that an error can undo it.
    """

    def before(
        inputs: Tensor,
        initial_state: Tensor | Sequence[Tensor] | None = None,
        mask: Tensor | None = None,
        training: bool | None = None,
    ) -> None:
        del training  # dropout is not part of the statistic
        for cell in cells:
            cell.calls += 1
        if cells[0].calls > 1:  # the gates fit the first call; the row of the report says so
            return
        if settings.redraw and not cells[0].fits:
            for cell in cells:
                _redraw(cell, settings.seed, update)
        found = fit_cells(
            cells[0].owner,
            inputs,
            cells[0].aim.rescale,  # type: ignore[arg-type]  # a law of one mean and std: floats in and out
            tolerance=settings.tolerance,
            max_iterations=settings.max_iterations,
            initial_state=initial_state,
            mask=mask,
        )
        for cell, (_, result) in zip(cells, found, strict=True):
            cell.fits.append(result)
            gates = len(gate_names(cell.layer))
            for name in ("kernel", "recurrent_kernel", "bias"):
                variable = getattr(cell.layer, name, None)
                if variable is not None:
                    update(variable, functools.partial(_scaled, name, result.factors, gates))

    return before


def _scaled(name: str, factors: Sequence[float], gates: int, value: Tensor) -> Tensor:
    return scaled(name, value, factors, gates)


def _redraw(cell: Cell, seed: int | None, update: Update) -> None:
    law = cell.aim.law
    if law is None:
        return
    for site in cell.sites:
        # The gates lie side by side in one array. Only the layout tells the law where each gate begins.
        base = with_stream(law, site, seed, layout=site.layout and site.layout.to_dict())
        update(site.kernel, drawn(base, site))
