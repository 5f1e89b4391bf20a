"""One forward and backward pass that reads what every kernel makes of the signal."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

import keras_initx.probe as probe
from keras_initx._keras_internals import flatten_layers
from keras_initx.diagnostics._statistics import agreement, dead_fraction, saturated_fraction, signal, tapped
from keras_initx.gradients import Objective, to_numpy, value_and_gradients
from keras_initx.recurrence import fit_cells, obstacle
from keras_initx.state import repeated_masks
from keras_initx.walk import KernelSite

__all__ = ["Reading", "gate_readings", "loss_at", "measure"]


@dataclasses.dataclass(frozen=True)
class Reading:
    """What one pass tells of one kernel; means over its calls, None for what does not apply.

    Attributes:
        input_square: Second moment of what reaches it, None where that is integers.
        input_agreement: Mean cosine between two rows of what reaches a first kernel.
        signal: Mean, second moment and non-finite fraction of its pre-activation.
        own: The same of a head's pre-activation without its bias, which may be a prior; None for others.
        agreement: Mean cosine between the pre-activations of two rows, of a head's without its bias.
        activation: Mean, second moment and non-finite fraction of its activation.
        dead: Fraction of units whose activation is 0 on all rows.
        saturated: Fraction of its activation near a bound.
        input_gradient: Length of the gradient of the loss with respect to what reaches it.
        gradient: Length of the gradient with respect to its pre-activation.
    """

    input_square: float | None = None
    input_agreement: float | None = None
    signal: tuple[float, ...] | None = None
    own: tuple[float, ...] | None = None
    agreement: float | None = None
    activation: tuple[float, ...] | None = None
    dead: float | None = None
    saturated: float | None = None
    input_gradient: float | None = None
    gradient: float | None = None


def measure(
    model: Any,
    batch: Any,
    targets: Any,
    objective: Objective,
    sites: Sequence[KernelSite],
    training: bool,
) -> tuple[float, dict[KernelSite, Reading], list[Any], list[Any]]:
    """Runs a model forward and backward once; its variables stay as they are.

    Args:
        model: A built Keras model.
        batch: NumPy arrays in the structure of its inputs.
        targets: What the objective compares its outputs with, or None.
        objective: From batch, targets and outputs to the loss.
        sites: Its kernels whose pre-activations can be shown.
        training: Whether it runs as in training.

    Returns:
        The loss, what was read of each site, the trainable variables, and the gradients by them.
    """
    variables = list(model.trainable_variables)
    batch, targets = _tensors(batch), _tensors(targets)

    def loss(values: Sequence[Any]) -> Any:
        pass_ = _Pass(sites, values[len(variables) :])
        state = list(zip(variables, values[: len(variables)], strict=True))
        with keras.StatelessScope(state, collect_losses=True):
            outputs = probe.run(
                model,
                batch,
                sites,
                pass_.observe,
                pass_.enter,
                training,
                after=pass_.after(),
                gradients=True,
            )
            value = ops.cast(objective(batch, targets, outputs), "float32")
        return value, pass_.found

    values = [ops.convert_to_tensor(variable.value) for variable in variables]
    taps = [ops.zeros((), "float32") for _ in range(2 * len(sites))]
    with repeated_masks():
        (value, found), gradients = value_and_gradients(loss, [*values, *taps], has_aux=True, nested=False)
    found = tree.map_structure(to_numpy, found)
    lengths = [float(to_numpy(gradient)) ** 0.5 for gradient in gradients[len(variables) :]]
    readings = {
        site: _reading(found[number], lengths[2 * number], lengths[2 * number + 1])
        for number, site in enumerate(sites)
    }
    return float(to_numpy(value)), readings, variables, gradients[: len(variables)]


def loss_at(model: Any, batch: Any, targets: Any, objective: Objective, training: bool, values: Any) -> float:
    """Returns the loss where the trainable variables have these values; random masks are `measure`'s.

    Args:
        model: As in `measure`.
        batch: As in `measure`.
        targets: As in `measure`.
        objective: As in `measure`.
        training: As in `measure`.
        values: Tensors.
    """
    batch, targets = _tensors(batch), _tensors(targets)
    state = list(zip(model.trainable_variables, values, strict=True))
    with repeated_masks(), keras.StatelessScope(state, collect_losses=True):
        outputs = probe.run(model, batch, [], lambda _, output: output, training=training)
        return float(to_numpy(ops.cast(objective(batch, targets, outputs), "float32")))


def _tensors(structure: Any) -> Any:
    return tree.map_structure(lambda leaf: None if leaf is None else ops.convert_to_tensor(leaf), structure)


class _Pass:
    """What is called as a model runs, and the tensors that it has read: by site, by name, one per call."""

    def __init__(self, sites: Sequence[KernelSite], taps: Sequence[Any]) -> None:
        self.sites, self.taps = sites, taps
        self.numbers = {site: number for number, site in enumerate(sites)}
        self.found: list[dict[str, list[Any]]] = [{} for _ in sites]

    def _add(self, site: KernelSite, name: str, value: Any) -> None:
        if value is not None:
            self.found[self.numbers[site]].setdefault(name, []).append(value)

    def enter(self, site: KernelSite, inputs: Any) -> Any:
        # What a table is looked up by, integers or a shape, is no signal.
        if site.role == "embedding":
            return None
        self._add(site, "inputs", signal(inputs)[1])
        if site.depth == 0:
            self._add(site, "input_agreement", agreement(inputs))
        return tapped(inputs, self.taps[2 * self.numbers[site]])

    def observe(self, site: KernelSite, output: Any) -> Any:
        self._add(site, "signal", signal(output))
        own = _without_bias(site, output) if site.is_output else output
        self._add(site, "agreement", agreement(own))
        if site.is_output:
            self._add(site, "own", signal(own))
            if site.feeds is not None:
                self._add(site, "saturated", saturated_fraction(_activate(site.feeds, own), site.feeds))
        if site.feeds is None or not (site.feeds_layer or site.feeds_normalized):
            active = output if site.feeds is None else _activate(site.feeds, output)
            self._activated(site, active)
        return tapped(output, self.taps[2 * self.numbers[site] + 1])

    def after(self) -> list[tuple[Any, Callable[[Any], None]]]:
        """Layers that end with a kernel's activation, and what is to be called with their outputs."""

        def reader(site: KernelSite) -> Callable[[Any], None]:
            return lambda output: self._activated(site, output)

        return [(site.feeds_layer, reader(site)) for site in self.sites if site.feeds_layer]

    def _activated(self, site: KernelSite, output: Any) -> None:
        if not hasattr(output, "shape"):
            return
        self._add(site, "activation", signal(output))
        if site.feeds is not None and site.unit_axes is not None:
            self._add(site, "dead", dead_fraction(output, site.unit_axes[1]))
            if not site.is_output:
                self._add(site, "saturated", saturated_fraction(output, site.feeds))


def _without_bias(site: KernelSite, output: Any) -> Any:
    """A head's pre-activation by its kernel alone: what its bias adds, a prior, is the same for all rows."""
    if site.bias is None or site.unit_axes is None:
        return output
    axes = {axis % len(output.shape) for axis in site.unit_axes[1]}
    shape = [size if axis in axes else 1 for axis, size in enumerate(output.shape)]
    if math.prod(shape) != math.prod(site.bias.shape):
        return output
    bias = ops.reshape(ops.cast(ops.convert_to_tensor(site.bias.value), output.dtype), shape)
    return ops.stop_gradient(output) - ops.stop_gradient(bias)


def _activate(activation: Any, output: Any) -> Any:
    return keras.activations.get(activation)(ops.stop_gradient(output))


def _reading(found: dict[str, list[np.ndarray]], input_gradient: float, gradient: float) -> Reading:
    mean = {name: np.mean(values, axis=0, dtype="float64") for name, values in found.items()}

    def number(name: str) -> float | None:
        return float(mean[name]) if name in mean else None

    def moments(name: str) -> tuple[float, ...] | None:
        return tuple(map(float, mean[name])) if name in mean else None

    return Reading(
        input_square=number("inputs"),
        input_agreement=number("input_agreement"),
        signal=moments("signal"),
        own=moments("own"),
        agreement=number("agreement"),
        activation=moments("activation"),
        dead=number("dead"),
        saturated=number("saturated"),
        input_gradient=input_gradient if "inputs" in mean else None,
        gradient=gradient if "signal" in mean else None,
    )


def gate_readings(model: Any, batch: Any, sites: Sequence[KernelSite]) -> dict[KernelSite, Reading]:
    """Reads the gates of recurrent cells by loops over them; one more pass, where there are such cells."""
    owners = {id(layer): layer for layer in flatten_layers(model) if hasattr(layer, "cell")}
    known = [layer for layer in owners.values() if not obstacle(layer)]
    if not known:
        return {}
    found: dict[KernelSite, Reading] = {}

    def reader(owner: Any) -> Callable[..., None]:
        def read(inputs: Any, initial_state: Any = None, mask: Any = None, training: Any = None) -> None:
            del training
            # The law that wants each gate as it is: one loop, and nothing to scale.
            cells = fit_cells(owner, inputs, lambda *_: (1.0, 0.0), initial_state=initial_state, mask=mask)
            for cell, fit in cells:
                square = sum(std**2 for std in fit.std_before) / len(fit.std_before)
                reading = Reading(signal=(0.0, square, 0.0 if math.isfinite(square) else 1.0))
                found.update({site: reading for site in sites if site.layer is cell})

        return read

    probe.run(model, batch, [], lambda _, output: output, before=[(layer, reader(layer)) for layer in known])
    return found
