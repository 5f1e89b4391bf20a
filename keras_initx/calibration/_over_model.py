"""Calibration by a law over the whole model: a search for one scale of each weight.

The law sees a loss as a function of the scales (`_task`) and yields candidates; `_search` keeps the best. No
weight changes during the search, so Ctrl-C can end it at any time. The stds of the report are measured before
and after it.
"""

import functools
from typing import Any

import keras_initx.probe as probe
from keras_initx._types import Batch, Model, Tensor
from keras_initx.calibration._aim import Aim
from keras_initx.calibration._draw import drawn, with_stream
from keras_initx.calibration._heads import held_priors
from keras_initx.calibration._measurement import affine, written
from keras_initx.calibration._plan import Job, Plan, Update
from keras_initx.calibration._report import CONSTANT, CalibrationRow
from keras_initx.calibration._search import Found, make_task, search
from keras_initx.data import knows_inputs, refusal
from keras_initx.walk import KernelSite

__all__ = ["act_over_model"]


def act_over_model(job: Job, plan: Plan, update: Update) -> tuple[list[CalibrationRow], dict[str, Any]]:
    """Searches for the scales and writes them; returns the rows and the totals of the report."""
    sites = [site for site, note in plan.notes.items() if not note]
    law = plan.model_law
    if law is None or not sites:
        return [_row(site, note, 1.0, 0) for site, note in plan.notes.items()], {"forward_passes": 0}
    if job.settings.redraw:
        for site in sites:
            update(site.kernel, drawn(with_stream(plan.aims[site].law or law, site, job.settings.seed), site))
    priors = held_priors(job.model, sites)
    # After the draw: as under other laws, the report compares the drawn kernels with the scaled ones.
    before = _measure(job.model, job.batch)
    task = make_task(job, sites, [site.bias for site in priors])
    found = search(law, task)
    scales = {task.weights[number]: float(scale) for number, scale in enumerate(found.scales)}
    for place, scale in scales.items():
        variable = task.variables[place]
        update(variable, functools.partial(_scaled, variable.path, plan.aims[sites[0]], scale))
    after = _measure(job.model, job.batch)
    by_kernel = {id(task.variables[place]): scale for place, scale in scales.items()}
    rows = [
        _row(
            site,
            note or (f"{CONSTANT}, or too small to tell" if before.get(site.path) == 0 else ""),
            by_kernel.get(id(site.kernel), 1.0),
            found.steps,
            (before.get(site.path), after.get(site.path)),
            priors.get(site, ""),
        )
        for site, note in plan.notes.items()
    ]
    return rows, _totals(task.passes[0] + 2, found)


def _totals(passes: int, found: Found) -> dict[str, Any]:
    return {
        "forward_passes": passes,
        "steps": found.steps,
        "objective": found.objective,
        "ranked": found.ranked,
        "interrupted": found.interrupted,
    }


def _scaled(path: str, aim: Aim, scale: float, value: Tensor) -> Tensor:
    return written(affine(value, scale), path, aim, scale)


def _measure(model: Model, batch: Batch) -> dict[str, float]:
    """Returns the std of each pre-activation, by the path of its kernel."""
    try:
        return probe.preactivation_std(model, batch)
    except (TypeError, ValueError) as error:
        if knows_inputs(model) or probe.is_refusal(error):
            raise
        raise refusal(model, batch, error) from error


def _row(
    site: KernelSite,
    note: str,
    scale: float,
    steps: int,
    stds: tuple[float | None, float | None] = (None, None),
    bias: str = "",
) -> CalibrationRow:
    before, after = stds
    steps = 0 if note else steps
    return CalibrationRow(site.path, site.role, before, scale, after, steps, note, bias)
