"""The pass: each pre-activation is measured as it appears, and flows on rescaled."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

import keras_initx.probe as probe
from keras_initx.calibration._draw import drawn, seeded
from keras_initx.calibration._filters import FILTERED, filters_for
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
from keras_initx.calibration._rewritten import Rewritten
from keras_initx.calibration._taught import checker
from keras_initx.data import knows_inputs, refusal
from keras_initx.initializers import DataDependent, DataFilters
from keras_initx.walk import KernelSite

__all__ = ["Measurements", "Pass", "starter"]

Measurements = dict[KernelSite, Measurement]
Update = Callable[..., None]


def starter(
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


@dataclasses.dataclass(eq=False)
class Pass:
    """What one forward pass over a model needs to know, and what it finds besides the measurements.

    Attributes:
        model: The model.
        batch: What it is called on.
        laws: The law of each site.
        notes: Why a site is left alone; empty where it is not. A site that is not what it seems gets a note.
        enter: As `probe.run` takes it.
        training: Whether the model runs as in training.
        before: As `probe.run` takes it.
        rewritten: The kernels that a training call sets.
        readers: The name of what else reads the kernel or bias of a site; what a pass sees is added.
        late: The sites that run after a kernel that the next training call moves.
        near: How far, relatively, a pre-activation may be from its law and be left as it is.
    """

    model: Any
    batch: Any
    laws: dict[KernelSite, Any]
    notes: dict[KernelSite, str]
    enter: Callable[[KernelSite, Any], None]
    training: bool
    before: list[tuple[Any, Callable[..., None]]]
    rewritten: Rewritten
    readers: dict[KernelSite, str] = dataclasses.field(default_factory=dict)
    late: set[KernelSite] = dataclasses.field(default_factory=set)
    near: Callable[[KernelSite], float] = lambda _: 0.0

    def __post_init__(self) -> None:
        # A kernel that several layers hold is measured at all of them, under the site that has its law.
        self._owners = {
            one: site
            for site in self.notes
            if not site.obstacle
            for one in (site, *filter(self._is_linear, site.shared))
        }
        self._check = checker(self.laws, self.notes)
        self._moved = False
        moving = {id(site.layer): site.layer for site in self.rewritten.moving}
        self.before = [*self.before, *((layer, self._move) for layer in moving.values())]

    def _move(self, *_: Any, **__: Any) -> None:
        self._moved = True

    def _is_linear(self, site: KernelSite) -> bool:
        return not site.obstacle and not site.checked and site.unit_axes is not None

    def run(self, kept: Measurements) -> Measurements:
        """Runs the model once, on the scales that are kept and on those that appear."""
        measured: Measurements = {}
        self._moved = False

        def observe(site: KernelSite, output: Any) -> Any:
            return self._rescaled(site, output, measured, kept)

        def enter(one: KernelSite, inputs: Any) -> None:
            if not self.notes[self._owners[one]]:
                self.enter(self._owners[one], inputs)

        def read(one: KernelSite, reader: str) -> None:
            if not self.notes[self._owners[one]]:
                self.readers.setdefault(self._owners[one], reader)

        held = self.rewritten.held if self.training else ()
        try:
            probe.run(
                self.model,
                self.batch,
                list(self._owners),
                observe,
                enter,
                self.training,
                before=self.before,
                check=self._check,
                read=read,
                held=held,
            )
        except (TypeError, ValueError) as error:
            # Where the inputs are not known beforehand, data that does not fit shows in the first layer.
            if measured or knows_inputs(self.model) or probe.is_refusal(error):
                raise
            raise refusal(self.model, self.batch, error) from error
        return measured

    def _rescaled(self, one: KernelSite, output: Any, measured: Measurements, kept: Measurements) -> Any:
        """Measures a pre-activation, fixes its kernel's scale at the first call that varies, and rescales."""
        site = self._owners[one]
        law = self._law(site)
        if law.per_unit:
            mean, variance = probe.unit_moments(output, one.unit_axes[1])  # type: ignore[index]
        else:
            mean, variance = probe.mean_and_variance(output)  # type: ignore[assignment]
        if not np.isfinite(variance).all():
            raise ValueError(
                f"`data` must keep every pre-activation finite. Received: mean={np.mean(mean)}, "
                f"variance={np.mean(variance)} at `{one.path}` (kernel shape {tuple(one.kernel.shape)}). "
                "Scale `data` or the weights down, or use float32 in place of half precision; the weights "
                "are unchanged."
            )
        if site not in measured:
            movable = all(layer.bias is not None for layer in self._layers(site))
            new = Measurement(law, movable, len(output.shape), near=self.near(site))
            measured[site] = kept.get(site) or new
        if self._moved:
            self.late.add(site)
        measurement = measured[site]
        measurement.add(mean, variance)
        check_scale(one.path, law, one.kernel.dtype, measurement.scale, measurement.shift)
        scale, shift = (to_output(v, one, len(output.shape)) for v in (measurement.scale, measurement.shift))
        return affine(output, scale, shift)

    def _law(self, site: KernelSite) -> Any:
        """What becomes of a site's output: nothing where it is left alone, or has new filters."""
        law = self.laws[site]
        return law if isinstance(law, DataDependent) and not self.notes[site] else FILTERED

    def _layers(self, site: KernelSite) -> list[KernelSite]:
        return [one for one, owner in self._owners.items() if owner is site]

    def write(self, measured: Measurements, update: Update) -> None:
        """Multiplies the weights by what the pass found."""
        for site, measurement in measured.items():
            if measurement.changes:
                _write(site, self._layers(site), measurement, update)


def _write(site: KernelSite, layers: Sequence[KernelSite], measurement: Measurement, update: Update) -> None:
    law = measurement.law

    def write(variable: Any, scale: Any, shift: Any = 0.0) -> None:
        update(variable, lambda old: written(affine(old, scale, shift), site.path, law, scale), fresh=True)

    write(site.kernel, to_kernel(measurement.scale, site))
    biases = {id(one.bias): one for one in layers if one.bias is not None}
    for one in biases.values():
        scale, shift = (to_bias(v, one, measurement.rank) for v in (measurement.scale, measurement.shift))
        # Most biases are zero and stay it; half of the updates are saved by looking.
        if np.any(shift) or ops.convert_to_numpy(ops.copy(one.bias.value)).any():
            write(one.bias, scale, shift)
