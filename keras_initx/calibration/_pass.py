"""The pass: each pre-activation is measured as it appears, and flows on rescaled."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

import keras_initx.probe as probe
from keras_initx.calibration._draw import drawn, seeded
from keras_initx.calibration._filters import FILTERED, filters_for
from keras_initx.calibration._gates import Cell, fit
from keras_initx.calibration._heads import drawing_law
from keras_initx.calibration._measurement import (
    Measurement,
    affine,
    check_scale,
    to_bias,
    to_kernel,
    to_output,
    written,
)
from keras_initx.calibration._taught import checker
from keras_initx.data import knows_inputs, refusal
from keras_initx.initializers import DataDependent, DataFilters
from keras_initx.walk import KernelSite

__all__ = ["calibrate_sites"]

Measurements = dict[KernelSite, Measurement]
Update = Callable[..., None]


def calibrate_sites(
    model: Any,
    batch: Any,
    laws: dict[KernelSite, Any],
    notes: dict[KernelSite, str],
    cells: list[Cell],
    update: Update,
    *,
    training: bool,
    redraw: bool,
    tolerance: float,
    max_iterations: int,
    seed: int | None,
) -> tuple[Measurements, dict[KernelSite, int], int]:
    """Calibrates the sites without a note, and the cells; arguments as in `calibrate`.

    Returns:
        What was measured in the last pass, the number of scales that each layer that runs several times had,
        and of passes. A registered layer that is not what it was said to be gets a note.
    """
    sites = [site for site, note in notes.items() if not note]
    enter = _starter(laws, redraw, seed, update)
    loops = _loops(cells, redraw, seed, tolerance, max_iterations, update)
    run = functools.partial(_run, model, batch, sites, laws, enter, training, loops, checker(laws, notes))
    measured, rounds, passes = _iterate(run, tolerance, max_iterations)
    for site, measurement in measured.items():
        _write(site, measurement, update)
    return measured, rounds, passes


def _starter(
    laws: dict[KernelSite, Any], redraw: bool, seed: int | None, update: Update
) -> Callable[[KernelSite, Any], None]:
    """Returns what gives a site its law's base or filters the first time that its layer runs."""
    started: set[int] = set()

    def enter(site: KernelSite, inputs: Any) -> None:
        law = drawing_law(laws[site])
        if law is None or id(site.kernel) in started or not (redraw or isinstance(law, DataFilters)):
            return
        started.add(id(site.kernel))
        law = seeded(law, site, seed)
        if isinstance(law, DataFilters):
            update(site.kernel, lambda _: filters_for(site, law, inputs))
        else:
            update(site.kernel, drawn(law, site))

    return enter


def _loops(
    cells: list[Cell], redraw: bool, seed: int | None, tolerance: float, max_iterations: int, update: Update
) -> dict[Any, tuple[list[Cell], Callable[..., None]]]:
    """For each recurrent layer its cells, and what is to be called before it runs."""
    by_owner: dict[Any, list[Cell]] = {}
    for cell in cells:
        by_owner.setdefault(cell.owner, []).append(cell)
    return {
        owner: (group, fit(group, redraw, seed, tolerance, max_iterations, update))
        for owner, group in by_owner.items()
        if not any(cell.note for cell in group)
    }


def _iterate(
    run: Callable[[Measurements], Measurements], tolerance: float, max_iterations: int
) -> tuple[Measurements, dict[KernelSite, int], int]:
    """Runs the model until the scales of all layers that run several times fit their pooled moments.

    Returns:
        What was measured in the last pass, the number of scales that each such layer had, and of passes.
    """
    kept: Measurements = {}
    rounds: dict[KernelSite, int] = {}
    for passes in range(1, max_iterations + 1):
        measured = run(kept)
        off = [site for site, m in measured.items() if m.calls > 1 and m.settled and m.error() > tolerance]
        if not off or passes == max_iterations:
            break
        kept = {site: m.again(site in off) for site, m in measured.items() if m.calls > 1}
        rounds |= {site: rounds.get(site, 1) + 1 for site in off}
    return measured, rounds, passes


def _run(
    model: Any,
    batch: Any,
    sites: list[KernelSite],
    laws: dict[KernelSite, Any],
    enter: Callable[[KernelSite, Any], None],
    training: bool,
    loops: dict[Any, tuple[list[Cell], Callable[..., None]]],
    check: Callable[..., bool],
    kept: Measurements,
) -> Measurements:
    """Runs the model once, on the scales that are kept and on those that appear."""
    measured: Measurements = {}
    observe = _observer(laws, measured, kept)
    for cells, _ in loops.values():
        for cell in cells:
            cell.calls = 0
    before = [(layer, function) for layer, (_, function) in loops.items()]
    try:
        probe.run(model, batch, sites, observe, enter, training, before, check)
    except (TypeError, ValueError) as error:
        # Where the inputs are not known beforehand, data that does not fit shows in the first layer.
        if measured or knows_inputs(model) or probe.TRACED in str(error):
            raise
        raise refusal(model, batch, error) from error
    return measured


def _observer(
    laws: dict[KernelSite, Any], measured: Measurements, kept: Measurements
) -> Callable[[KernelSite, Any], Any]:
    """Returns what measures a pre-activation, fixes the site's scale at its first call, and rescales."""

    def observe(site: KernelSite, output: Any) -> Any:
        law = laws[site] if isinstance(laws[site], DataDependent) else FILTERED
        if law.per_unit:
            mean, variance = probe.unit_moments(output, site.unit_axes[1])  # type: ignore[index]
        else:
            mean, variance = probe.mean_and_variance(output)  # type: ignore[assignment]
        if not np.isfinite(variance).all():
            raise ValueError(
                f"`data` must keep every pre-activation finite. Received: mean={np.mean(mean)}, "
                f"variance={np.mean(variance)} at `{site.path}` (kernel shape {tuple(site.kernel.shape)}). "
                "Scale `data` or the weights down, or use float32 in place of half precision; the weights "
                "are unchanged."
            )
        if site not in measured:
            measured[site] = kept.get(site) or Measurement(law, site.bias is not None, len(output.shape))
        measurement = measured[site]
        measurement.add(mean, variance)
        check_scale(site.path, law, site.kernel.dtype, measurement.scale, measurement.shift)
        scale, shift = (to_output(v, site, len(output.shape)) for v in (measurement.scale, measurement.shift))
        return affine(output, scale, shift)

    return observe


def _write(site: KernelSite, measurement: Measurement, update: Update) -> None:
    law = measurement.law

    def write(variable: Any, scale: Any, shift: Any = 0.0) -> None:
        update(variable, lambda old: written(affine(old, scale, shift), site.path, law, scale), fresh=True)

    write(site.kernel, to_kernel(measurement.scale, site))
    if site.bias is None:
        return
    scale, shift = (to_bias(v, site, measurement.rank) for v in (measurement.scale, measurement.shift))
    # Most biases are zero and stay it; half of the updates are saved by looking.
    if np.any(shift) or ops.convert_to_numpy(ops.copy(site.bias.value)).any():
        write(site.bias, scale, shift)
