"""One forward and backward pass that reads signal and gradient at every kernel.

    input ──> enter ──> [ kernel ] ──> observe ──> activation ──> after ──> ...
              tap 2n                   tap 2n + 1

`enter`, `observe` and `after` are called as the model runs, and read statistics of the tensors that pass. A
tap is a scalar that changes nothing: its gradient is the squared length of the gradient of the loss at this
place (see `tapped`). One backward pass gives the gradients of all variables and of all taps.

For a kernel that an operation shows, `take` does the work of `enter` and taps both gradients. On TensorFlow
and torch no tap fits behind an operation. There its output is kept, and the backward pass gives the gradient
at it.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops, tree

import keras_initx.probe as probe
from keras_initx._types import Activation, Arrays, Batch, Layer, Model, Tensor, Variable
from keras_initx.diagnostics._reading import Reading, reading_of
from keras_initx.diagnostics._statistics import (
    agreement,
    dead_fraction,
    saturated_fraction,
    signal,
    squared_length,
    tapped,
    tapped_through,
)
from keras_initx.gradients import to_numpy, value_and_gradients
from keras_initx.losses import Objective
from keras_initx.state import repeated_masks
from keras_initx.uses import Taken, gradient_at_operand
from keras_initx.walk import KernelSite

__all__ = ["loss_at", "measure"]


def measure(
    model: Model,
    batch: Batch,
    targets: Arrays | None,
    objective: Objective,
    sites: Sequence[KernelSite],
    training: bool,
) -> tuple[float, dict[KernelSite, Reading], list[Variable], list[Tensor]]:
    """Runs a model forward and backward once. Its variables stay as they are.

    Args:
        model: A built Keras model.
        batch: NumPy arrays in the structure of the model's inputs.
        targets: The targets that the objective compares the outputs with, or None.
        objective: Function of batch, targets and outputs that returns the loss.
        sites: Kernels without an obstacle, so that their pre-activations can be shown.
        training: Whether the model runs as in training.

    Returns:
        The loss, a reading per site, the trainable variables, and the gradients with respect to them.
    """
    variables = list(model.trainable_variables)
    batch, targets = tensors_of(batch), tensors_of(targets)
    run = functools.partial(probe.run, model, training=training, gradients=True)

    def loss(values: Sequence[Tensor]) -> tuple[Tensor, list[dict[str, list[Tensor]]]]:
        *own, anchor = values[len(variables) :]
        pass_ = Pass(sites, own, kept)
        state = list(zip(variables, values[: len(variables)], strict=True))
        # The scope gives variables the values that are differentiated, and catches all assignments.
        with keras.StatelessScope(state, collect_losses=True):
            inputs = _anchored(batch, anchor) if any(site.uses for site in sites) else batch
            outputs = run(inputs, sites, pass_.observe, pass_.enter, take=pass_.take, after=pass_.after())
            value = ops.cast(objective(batch, targets, outputs), "float32")
        return value, pass_.found

    kept: list[tuple[int, Taken]] = []
    values = [ops.convert_to_tensor(variable.value) for variable in variables]
    # The last tap is at the inputs: behind frozen weights, too, a gradient then has a way to go on.
    taps = [ops.zeros((), "float32") for _ in range(2 * len(sites) + 1)]
    # Dropout draws the same masks in each pass, so that losses before and after a step can be compared.
    with repeated_masks():
        (value, found), gradients = value_and_gradients(
            loss, [*values, *taps], has_aux=True, nested=False, inside=lambda: [t.output for _, t in kept]
        )
    found = tree.map_structure(to_numpy, found)
    lengths = _lengths(gradients[len(variables) :], kept)
    readings = {
        site: reading_of(found[number], lengths[2 * number], lengths[2 * number + 1])
        for number, site in enumerate(sites)
    }
    return float(to_numpy(value)), readings, variables, gradients[: len(variables)]


def _anchored(batch: Batch, anchor: Tensor) -> Batch:
    """Makes the float inputs depend on a tap."""
    return tree.map_structure(
        lambda leaf: tapped(leaf, anchor) if "float" in str(leaf.dtype) else leaf, batch
    )


def _lengths(gradients: Sequence[Tensor], kept: Sequence[tuple[int, Taken]]) -> list[float | None]:
    """Returns the length of the gradient at each tap, from the gradients of the taps and of what was kept."""
    end = len(gradients) - len(kept)
    # A tap has the gradient that `tapped` defines, a squared length, summed over the calls of its layer.
    squares: list[float] = [float(to_numpy(gradient)) for gradient in gradients[:end]]
    unknown = set()
    for (number, taken), gradient in zip(kept, gradients[end:], strict=True):
        if gradient is None:
            unknown |= {2 * number, 2 * number + 1}
            continue
        squares[2 * number + 1] += float(squared_length(gradient))
        at_operand = gradient_at_operand(taken, gradient)
        squares[2 * number] += 0.0 if at_operand is None else float(squared_length(at_operand))
    return [None if tap in unknown else math.sqrt(square) for tap, square in enumerate(squares)]


def loss_at(
    model: Model,
    batch: Batch,
    targets: Arrays | None,
    objective: Objective,
    training: bool,
    values: Sequence[Tensor],
) -> float:
    """Returns the loss for other values of the trainable variables, with the same random masks as `measure`.

    Args:
        model: A built Keras model.
        batch: NumPy arrays in the structure of the model's inputs.
        targets: The targets that the objective compares the outputs with, or None.
        objective: Function of batch, targets and outputs that returns the loss.
        training: Whether the model runs as in training.
        values: A tensor for each trainable variable.
    """
    batch, targets = tensors_of(batch), tensors_of(targets)
    state = list(zip(model.trainable_variables, values, strict=True))
    with repeated_masks(), keras.StatelessScope(state, collect_losses=True):
        outputs = probe.run(model, batch, [], lambda _, output: output, training=training)
        return float(to_numpy(ops.cast(objective(batch, targets, outputs), "float32")))


def tensors_of(structure: Arrays | None) -> Any:
    """Returns the tensors of arrays, in their structure."""
    return tree.map_structure(lambda leaf: None if leaf is None else ops.convert_to_tensor(leaf), structure)


class Pass:
    """The functions that are called as a model runs.

    `found` collects their statistics: for each site a list by name, with one tensor per call of the layer.
    `kept` gets the operations whose outputs no tap follows, each with the number of its site.
    """

    def __init__(
        self, sites: Sequence[KernelSite], taps: Sequence[Tensor], kept: list[tuple[int, Taken]]
    ) -> None:
        self.sites, self.taps, self.kept = sites, taps, kept
        self.numbers = {site: number for number, site in enumerate(sites)}
        self.found: list[dict[str, list[Tensor]]] = [{} for _ in sites]

    def _add(self, site: KernelSite, name: str, value: Tensor | None) -> None:
        if value is not None:
            self.found[self.numbers[site]].setdefault(name, []).append(value)

    def enter(self, site: KernelSite, inputs: Tensor) -> Tensor | None:
        """Reads the input of a layer, and taps its gradient."""
        # A table is looked up by integers or a shape, which are not a signal.
        if site.role == "embedding":
            return None
        self._enter(site, inputs)
        return tapped(inputs, self.taps[2 * self.numbers[site]])

    def take(self, site: KernelSite, taken: Taken) -> Tensor:
        """Reads the signal of an operation that takes a kernel, and taps its gradient and the output's."""
        if site.role != "embedding":
            self._enter(site, taken.operand)
        number = self.numbers[site]
        if keras.backend.backend() == "jax":
            return tapped_through(taken, *self.taps[2 * number : 2 * number + 2])
        self.kept.append((number, taken))
        return taken.output

    def _enter(self, site: KernelSite, inputs: Tensor) -> None:
        self._add(site, "inputs", signal(inputs)[1])
        if site.depth == 0:
            self._add(site, "input_agreement", agreement(inputs))

    def observe(self, site: KernelSite, output: Tensor) -> Tensor:
        """Reads a pre-activation, and taps its gradient."""
        self._read(site, output)
        if site.uses:
            return output
        return tapped(output, self.taps[2 * self.numbers[site] + 1])

    def _read(self, site: KernelSite, output: Tensor) -> None:
        # Only statistics are kept. The tensors of a large model would not fit into the memory together.
        self._add(site, "signal", signal(output))
        own = _without_bias(site, output) if site.is_output else output
        self._add(site, "agreement", agreement(own))
        if site.is_output:
            self._add(site, "own", signal(own))
            if site.feeds is not None:
                self._add(site, "saturated", saturated_fraction(_activate(site.feeds, own), site.feeds))
        # An activation layer, or a normalization in between, shows the activation itself, later: see `after`.
        if site.feeds is None or not (site.feeds_layer or site.feeds_normalized):
            active = output if site.feeds is None else _activate(site.feeds, output)
            self._activated(site, active)

    def after(self) -> list[tuple[Layer, Callable[[Tensor], None]]]:
        """Pairs of a layer that ends with a kernel's activation, and a function that reads its output."""

        def reader(site: KernelSite) -> Callable[[Tensor], None]:
            return lambda output: self._activated(site, output)

        return [(site.feeds_layer, reader(site)) for site in self.sites if site.feeds_layer]

    def _activated(self, site: KernelSite, output: Tensor) -> None:
        # A layer of the user's may return a structure. Its activation is not known then.
        if not hasattr(output, "shape"):
            return
        self._add(site, "activation", signal(output))
        if site.feeds is not None and site.unit_axes is not None:
            self._add(site, "dead", dead_fraction(output, site.unit_axes[1]))
            if not site.is_output:
                self._add(site, "saturated", saturated_fraction(output, site.feeds))


def _without_bias(site: KernelSite, output: Tensor) -> Tensor:
    """Returns the part of a head's pre-activation that its kernel makes.

    A bias that holds a prior adds the same numbers to all rows. With it, healthy rows would look collapsed.
    """
    if site.bias is None or site.unit_axes is None:
        return output
    axes = {axis % len(output.shape) for axis in site.unit_axes[1]}
    shape = [size if axis in axes else 1 for axis, size in enumerate(output.shape)]
    if math.prod(shape) != math.prod(site.bias.shape):
        return output
    bias = ops.reshape(ops.cast(ops.convert_to_tensor(site.bias.value), output.dtype), shape)
    return ops.stop_gradient(output) - ops.stop_gradient(bias)


def _activate(activation: Activation, output: Tensor) -> Tensor:
    return keras.activations.get(activation)(ops.stop_gradient(output))
