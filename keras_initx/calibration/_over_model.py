"""Calibration by a law over the whole model: the search, and what becomes of the weights."""

import functools
from typing import Any

import keras_initx.probe as probe
from keras_initx.calibration._draw import drawn, seeded
from keras_initx.calibration._heads import held_priors
from keras_initx.calibration._measurement import affine, written
from keras_initx.calibration._report import CONSTANT, FROZEN, CalibrationRow
from keras_initx.calibration._rewritten import find_rewritten
from keras_initx.calibration._search import make_task, search
from keras_initx.data import knows_inputs, refusal
from keras_initx.gradients import Objective
from keras_initx.initializers import ModelLaw
from keras_initx.state import transaction
from keras_initx.walk import KernelSite

__all__ = ["calibrate_over_model", "find_model_law"]

Stds = dict[str, float]


def find_model_law(laws: dict[KernelSite, Any]) -> ModelLaw | None:
    """Returns the law over the whole model, if there is one among the laws of the kernels."""
    found = [law for law in laws.values() if isinstance(law, ModelLaw)]
    if not found:
        return None
    others = {type(law).__name__ for law in laws.values()} - {type(found[0]).__name__}
    if others:
        raise ValueError(
            "`initializer` must be given where the layers' own laws are of several kinds. Received: "
            f"{type(found[0]).__name__}, a law over the whole model, beside {sorted(others)}. Call "
            "`calibrate` once for each kind, with `initializer`."
        )
    return found[0]


def calibrate_over_model(
    model: Any,
    law: ModelLaw,
    laws: dict[KernelSite, Any],
    batch: Any,
    targets: Any,
    objective: Objective,
    patterns: tuple[Any, Any],
    frozen: bool,
    training: bool,
    redraw: bool,
    seed: int | None,
) -> tuple[tuple[CalibrationRow, ...], dict[str, Any]]:
    """Scales the weights of a model by what a law finds; arguments as in `calibrate`.

    Returns:
        The rows of the report, and its totals by name.
    """
    rewritten = find_rewritten(model, batch, laws, redraw).notes
    notes = {
        site: site.skip or rewritten.get(site, "") or ("" if site.kernel.trainable or frozen else FROZEN)
        for site in laws
    }
    sites = [site for site, note in notes.items() if not note]
    if not sites:
        return _rows(notes, {}, {}, {}, {}, 0), {"forward_passes": 0}
    priors = held_priors(model, sites)
    with transaction() as update:
        if redraw:
            for site in sites:
                update(site.kernel, drawn(seeded(laws[site], site, seed), site))
        before = _measure(model, batch)
        held = [site.bias for site in priors]
        task = make_task(model, sites, held, patterns, batch, targets, objective, training)
        found = search(law, task)
        for scale, place in zip(found.scales, task.weights, strict=True):
            variable = task.variables[place]
            update(variable, functools.partial(_scaled, variable.path, law, float(scale)))
        after = _measure(model, batch)
    scales = {id(task.variables[p]): float(s) for s, p in zip(found.scales, task.weights, strict=True)}
    return _rows(notes, priors, scales, before, after, found.steps), {
        "forward_passes": task.passes[0] + 2,
        "steps": found.steps,
        "objective": found.objective,
        "ranked": found.ranked,
        "interrupted": found.interrupted,
    }


def _scaled(path: str, law: ModelLaw, scale: float, value: Any) -> Any:
    return written(affine(value, scale), path, law, scale)


def _measure(model: Any, batch: Any) -> Stds:
    try:
        return probe.preactivation_std(model, batch)
    except (TypeError, ValueError) as error:
        if knows_inputs(model) or probe.is_refusal(error):
            raise
        raise refusal(model, batch, error) from error


def _rows(
    notes: dict[KernelSite, str],
    priors: dict[KernelSite, str],
    scales: dict[int, float],
    before: Stds,
    after: Stds,
    steps: int,
) -> tuple[CalibrationRow, ...]:
    rows = []
    for site, note in notes.items():
        note = note or (f"{CONSTANT}, or too small to tell" if before.get(site.path) == 0 else "")
        rows.append(
            CalibrationRow(
                path=site.path,
                role=site.role,
                std_before=before.get(site.path),
                scale=scales.get(id(site.kernel), 1.0),
                std_after=after.get(site.path),
                iterations=0 if note else steps,
                note=note,
                bias=priors.get(site, ""),
            )
        )
    return tuple(rows)
