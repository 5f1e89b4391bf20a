"""Recurrent cells: every gate brought to the law's std by loops over the cell before its layer runs."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_initx._keras_internals import flatten_layers
from keras_initx._types import Layer, Model, Tensor
from keras_initx.calibration._aim import Aim
from keras_initx.calibration._draw import Update, drawn, with_stream
from keras_initx.calibration._report import FROZEN, CalibrationRow
from keras_initx.calibration._settings import Settings
from keras_initx.recurrence import fit_cells, gate_names, obstacle, scaled
from keras_initx.walk import KernelSite

__all__ = ["Cell", "find_cells", "fit"]

_TOGETHER = "the kernels of a cell are scaled together: choose both"


@dataclasses.dataclass(eq=False)
class Cell:
    """One recurrent cell, and what became of its gates.

    Attributes:
        owner: The layer that runs it.
        layer: The cell.
        sites: Its kernel and its recurrent kernel.
        aim: The aim of both.
        note: Why it is not to be calibrated; empty when it is.
        calls: Calls of the owner in the last pass.
        fits: What each pass made of it.
    """

    owner: Layer
    layer: Layer
    sites: list[KernelSite]
    aim: Aim
    note: str
    calls: int = 0
    fits: list[Any] = dataclasses.field(default_factory=list)

    def rows(self) -> list[CalibrationRow]:
        """Returns what the report tells of the two kernels."""
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
        frozen: As in `calibrate`.
        notes: Why kernels are to be left alone.
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
    if not (all(site.kernel.trainable for site in sites) or frozen):
        return FROZEN
    if len(sites) < 2:
        return _TOGETHER
    if aim.law is None or aim.law.scope != "layer":
        return "gates take laws of one mean and std, such as LSUV"
    return ""


def fit(cells: Sequence[Cell], settings: Settings, update: Update) -> Callable[..., None]:
    """Returns what is to be called before the layer of these cells runs, with what it runs on."""

    def before(
        inputs: Tensor,
        initial_state: Tensor | Sequence[Tensor] | None = None,
        mask: Tensor | None = None,
        training: bool | None = None,
    ) -> None:
        del training  # dropout is no part of the statistic
        for cell in cells:
            cell.calls += 1
        if cells[0].calls > 1:
            return
        if settings.redraw and not cells[0].fits:
            for cell in cells:
                _redraw(cell, settings.seed, update)
        found = fit_cells(
            cells[0].owner,
            inputs,
            cells[0].aim.rescale,  # type: ignore[arg-type]  # of a law of one mean and std: floats
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
        base = with_stream(law, site, seed, layout=site.layout and site.layout.to_dict())
        update(site.kernel, drawn(base, site))
