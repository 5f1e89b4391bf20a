"""The pass: the model runs once, and each pre-activation is measured and rescaled as it appears.

The pass changes outputs while the model runs, and each weight once, when the run is over:

    x -> [layer 1] -> y1 -> scale1 y1 + shift1 -> relu -> [layer 2] -> y2 -> scale2 y2 + shift2 -> ...
                      |                                               |
                      measured: the law gives scale1, shift1          measured on calibrated inputs

    after the run:    W1 <- scale1 W1,  b1 <- scale1 b1 + shift1,     W2 <- scale2 W2, ...

This is right since a pre-activation is linear in (W, b): the changed weights compute exactly the output that
flowed on. So every layer was measured on the inputs that it has in the finished model, and a sequence of any
depth needs one run. Events at one kernel, in order:

    check      only code outside of Keras: the layer is tried, and has a note if it is not linear (`_taught`)
    enter      first run only: the law draws the kernel, under `redraw` or from the inputs of the layer
    observe    the moments are added; the first call that varies fixes scale and shift; the output is rescaled
    write      after the run: the kernel and the biases get the same scale and shift

At any time, `read` tells that other code reads a kernel; the report names this code. Such a kernel, and a
layer that runs several times, may need further passes: `_by_layer` runs them, and `kept` holds the scales
that a layer has from the pass before.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from keras import ops

import keras_initx.probe as probe
from keras_initx._types import Layer, Tensor, Variable
from keras_initx.calibration._aim import LEAVE, Aim, Statistic
from keras_initx.calibration._draw import Update, drawn, with_stream
from keras_initx.calibration._filters import filters_for
from keras_initx.calibration._measurement import (
    Measurement,
    affine,
    check_scale,
    moments,
    to_bias,
    to_kernel,
    to_output,
    written,
)
from keras_initx.calibration._plan import Job, Plan
from keras_initx.calibration._taught import checker
from keras_initx.data import knows_inputs, refusal
from keras_initx.walk import KernelSite

__all__ = ["Measurements", "Pass", "starter"]

Measurements = dict[KernelSite, Measurement]


def starter(job: Job, plan: Plan, update: Update) -> Callable[[KernelSite, Tensor], None]:
    """Returns a function that draws a kernel by its law when its layer runs for the first time.

    A law that makes kernels from inputs always draws; other laws draw only under `redraw`.

    Args:
        job: The model and its data.
        plan: The aims of the kernels.
        update: Assigns a new value to a variable, so that an error can undo it.
    """
    # Passes repeat and layers share kernels, but a second draw would undo the calibration of the first.
    started: set[int] = set()

    def enter(site: KernelSite, inputs: Tensor) -> None:
        law = plan.aims[site].law
        if law is None or id(site.kernel) in started or not (job.settings.redraw or law.draws_from_inputs):
            return
        started.add(id(site.kernel))
        law = with_stream(law, site, job.settings.seed)
        if law.draws_from_inputs:
            update(site.kernel, lambda _: filters_for(site, law, inputs))
        else:
            update(site.kernel, drawn(law, site))

    return enter


@dataclasses.dataclass(eq=False)
class Pass:
    """A forward pass that measures and rescales; `run` may be called several times.

    Attributes:
        job: The model and its data.
        plan: The aims and notes of the kernels. A pass adds a note where a kernel cannot be calibrated.
        enter: Function of a kernel's site and its layer's inputs, called before the layer runs.
        before: Pairs of a layer and a function that is called with the layer's arguments before it runs.
        readers: For each kernel that other code reads, too, the name of this code. Passes add entries.
        late: The kernels that run after a kernel that the next training call moves. Passes add entries.
        near: Function from a kernel to the relative distance from its law up to which it is left as it is.
    """

    job: Job
    plan: Plan
    enter: Callable[[KernelSite, Tensor], None]
    before: list[tuple[Layer, Callable[..., None]]]
    readers: dict[KernelSite, str] = dataclasses.field(default_factory=dict)
    late: set[KernelSite] = dataclasses.field(default_factory=set)
    near: Callable[[KernelSite], float] = lambda _: 0.0

    def __post_init__(self) -> None:
        # Several layers may hold one kernel. It is measured at each of them that is linear in it, and counts
        # under the site that has the law: the "owner".
        self._owners = {
            one: site
            for site in self.plan.notes
            if not site.obstacle
            for one in (site, *filter(self._is_linear, site.shared))
        }
        self._check = checker(self.plan.aims, self.plan.notes)
        self._moved = False
        moving = {id(site.layer): site.layer for site in self.plan.rewritten.moving}
        self.before = [*self.before, *((layer, self._move) for layer in moving.values())]

    def _move(self, *_: object, **__: object) -> None:
        self._moved = True

    def _is_linear(self, site: KernelSite) -> bool:
        return not site.obstacle and not site.checked and site.unit_axes is not None

    def run(self, kept: Measurements) -> Measurements:
        """Runs the model once and returns the measurement of each kernel, in the order of the layers.

        Args:
            kept: Measurements that already have a scale. Other kernels get their scale in this run.
        """
        measured: Measurements = {}
        self._moved = False

        def observe(site: KernelSite, output: Tensor) -> Tensor:
            return self._rescaled(site, output, measured, kept)

        def enter(one: KernelSite, inputs: Tensor) -> None:
            if not self.plan.notes[self._owners[one]]:
                self.enter(self._owners[one], inputs)

        def read(one: KernelSite, reader: str) -> None:
            if not self.plan.notes[self._owners[one]]:
                self.readers.setdefault(self._owners[one], reader)

        model, batch, training = self.job.model, self.job.batch, self.job.settings.training
        # A run in training mode sets these kernels anew. They are put back when it is over.
        held = self.plan.rewritten.held if training else ()
        try:
            probe.run(
                model,
                batch,
                list(self._owners),
                observe,
                enter,
                training,
                before=self.before,
                check=self._check,
                read=read,
                held=held,
            )
        except (TypeError, ValueError) as error:
            # The inputs of a subclassed model are not known. If its first layer fails, the data is at fault.
            if measured or knows_inputs(model) or probe.is_refusal(error):
                raise
            raise refusal(model, batch, error) from error
        return measured

    def _rescaled(
        self, one: KernelSite, output: Tensor, measured: Measurements, kept: Measurements
    ) -> Tensor:
        """Measures a pre-activation, and returns it with the scale and the shift of its kernel."""
        site = self._owners[one]
        aim = self._aim(site)
        mean, variance = moments(output, one, aim)
        if not np.isfinite(variance).all():
            raise ValueError(
                f"`data` must keep every pre-activation finite. Received: mean={np.mean(mean)}, "
                f"variance={np.mean(variance)} at `{one.path}` (kernel shape {tuple(one.kernel.shape)}). "
                "Scale `data` or the weights down, or use float32 in place of half precision; the weights "
                "are unchanged."
            )
        if site not in measured:
            movable = all(layer.bias is not None for layer in self._layers(site))
            new = Measurement(aim, movable, len(output.shape), near=self.near(site))
            measured[site] = kept.get(site) or new
        if self._moved:
            self.late.add(site)
        measurement = measured[site]
        measurement.add(mean, variance)
        check_scale(one.path, aim, one.kernel.dtype, measurement.scale, measurement.shift)
        scale, shift = (to_output(v, one, len(output.shape)) for v in (measurement.scale, measurement.shift))
        return affine(output, scale, shift)

    def _aim(self, site: KernelSite) -> Aim:
        # Kernels with a note are measured for the report, but not changed. A note can come during the pass.
        return LEAVE if self.plan.notes[site] else self.plan.aims[site]

    def _layers(self, site: KernelSite) -> list[KernelSite]:
        """Returns the sites of all layers that hold the kernel of a site."""
        return [one for one, owner in self._owners.items() if owner is site]

    def write(self, measured: Measurements, update: Update) -> None:
        """Gives the weights the scales and shifts of a pass."""
        for site, measurement in measured.items():
            if measurement.changes:
                _write(site, self._layers(site), measurement, update)


def _write(site: KernelSite, layers: Sequence[KernelSite], measurement: Measurement, update: Update) -> None:
    """Changes one kernel, and the biases of all layers that hold it."""
    aim = measurement.aim

    def write(variable: Variable, scale: Statistic, shift: Statistic = 0.0) -> None:
        update(variable, lambda old: written(affine(old, scale, shift), site.path, aim, scale), fresh=True)

    write(site.kernel, to_kernel(measurement.scale, site))
    biases = {id(one.bias): one for one in layers if one.bias is not None}
    for one in biases.values():
        scale, shift = (to_bias(v, one, measurement.rank) for v in (measurement.scale, measurement.shift))
        # Most biases are zero and stay zero: looking first saves half of the updates.
        if np.any(shift) or ops.convert_to_numpy(ops.copy(one.bias.value)).any():
            write(one.bias, scale, shift)
