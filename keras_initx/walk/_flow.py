"""Finds the place of each kernel in the flow of a traced model: depth, activations, residual branches."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from keras import layers

from keras_initx._keras_internals import flatten_layers
from keras_initx._types import Layer, Variable
from keras_initx.uses import affine
from keras_initx.walk._affine import with_numbers
from keras_initx.walk._branches import Branches
from keras_initx.walk._kernels import rule_of
from keras_initx.walk._layers import SCALES
from keras_initx.walk._operations import (
    MIXTURES,
    PASSING,
    PRODUCTS,
    SUMS,
    activation_at,
    class_name,
    is_normalization,
    named,
    numbers_of,
)
from keras_initx.walk._position import Branch, Position
from keras_initx.walk._products import UNKNOWN, product_of
from keras_initx.walk._sinks import is_normalized_after, next_activation
from keras_initx.walk._trace import Step, Trace

__all__ = ["Flow", "in_steps"]


# Operations whose output is their input in another form.
_SAME = ("Cast", "ConvertToTensor", "ExpandDims", "Reshape", "Squeeze", "Transpose")


class Flow(Branches):
    """The flow of a model, computed from its trace.

    Args:
        trace: The trace.
        chain: Returns how many kernels in a row a layer has.
        kernels: Weights that are kernels of the operations which take them, and of no layer that is a step.
    """

    def __init__(self, trace: Trace, chain: Callable[[Layer], int], kernels: Iterable[Variable] = ()) -> None:
        self.trace, self.steps = trace, trace.steps
        folds = [isinstance(s.operation, layers.TimeDistributed) and not s.opaque for s in self.steps]
        is_layer = [
            isinstance(s.operation, layers.Layer) and not f for s, f in zip(self.steps, folds, strict=True)
        ]
        self.weights = [chain(s.operation) if own else 0 for s, own in zip(self.steps, is_layer, strict=True)]
        self.takers: dict[int, list[int]] = {}  # for each weight of `kernels`, the steps that take it
        # The weights that are multiplied with a signal.
        self.multiplied = {id(w) for s in self.steps if class_name(s) in MIXTURES for w in s.weights}
        wanted = {id(kernel) for kernel in kernels}
        for index, step in enumerate(self.steps):
            taken = [id(weight) for weight in step.weights if id(weight) in wanted]
            self.weights[index] = max(self.weights[index], bool(taken))
            for weight in taken:
                self.takers.setdefault(weight, []).append(index)
        self.children: list[list[int]] = [[] for _ in self.steps]
        self.ancestors: list[int] = []  # for each step, the steps that lead to it, as bits
        self.free: list[int] = []  # for each step, its ancestors with no kernel in between, as bits
        self.before: list[int] = []  # for each step, the kernels on the longest way to it
        self.ran: dict[int, tuple[int, int]] = {}  # for each layer, its first step and place there
        for index, step in enumerate(self.steps):
            bits, free, longest = 1 << index, 1 << index, 0
            for parent in step.parents:
                self.children[parent].append(index)
                bits |= self.ancestors[parent]
                free |= 0 if self.weights[index] else self.free[parent]
                longest = max(longest, self.before[parent] + self.weights[parent])
            self.ancestors.append(bits)
            self.free.append(free)
            self.before.append(longest)
            for layer, place in _owners(step) if is_layer[index] else ():
                self.ran.setdefault(id(layer), (index, place))
        self._sources: dict[int, Any] = {}
        self.branches: dict[int, Branch] = {}
        self.ends: set[int] = set()
        self.find_branches()
        self.outputs = {
            end for output in trace.outputs for end in self.last_kernels(output, stop_at_sums=True)
        }

    def place(self, layer: Layer, kernel: Variable, role: str) -> Position:
        """Returns the position of a kernel.

        Args:
            layer: The layer that owns the kernel.
            kernel: The kernel's variable.
            role: Role of the kernel.
        """
        if not self.steps:
            return Position(note=f"the model was not traced: {self.trace.failure}")
        takers = self.takers.get(id(kernel), ())
        if not takers and id(layer) not in self.ran:
            return Position(note="the trace did not reach it, or did not see into a layer around it")
        index, place = (takers[0], 0) if takers else self.ran[id(layer)]
        _, rule = rule_of(layer)
        names = list(rule.kernels)
        inside = names.index(kernel.name) if rule.chained and kernel.name in names else place
        source = None if inside else self._source_of_inputs(index)
        last = inside == max(self.weights[index], 1) - 1
        note = "the activation that feeds it is not known" if source is UNKNOWN else ""
        if any(self._source_of_inputs(taker) != source for taker in takers[1:]):
            source, note = UNKNOWN, "different activations feed it in its uses"
        # No law gives these roles a gain, so that the activation before them does not matter.
        if role == "recurrent" or role in SCALES:
            source, note = None, ""
        feeds, feeds_layer, feeds_normalized = next_activation(self, index) if last else (None, None, False)
        return Position(
            activation=None if source is UNKNOWN else source,
            feeds=feeds,
            feeds_layer=feeds_layer,
            feeds_normalized=feeds_normalized,
            normalized=(last or rule.chained) and is_normalized_after(self, index),
            depth=self.before[index] + inside,
            branch=self.branches.get(index),
            ends_branch=index in self.ends and last,
            is_output=index in self.outputs and last,
            position=index,
            note=note,
        )

    def _source_of_inputs(self, index: int) -> Any:
        return next((self.source(parent) for parent in self.steps[index].parents), None)

    def source(self, index: int) -> Any:
        """Returns the activation that made the output of a step; None if linear, UNKNOWN if not known."""
        if index not in self._sources:
            self._sources[index] = self._find_source(self.steps[index], index)
        return self._sources[index]

    def _find_source(self, step: Step, index: int) -> Any:
        operation, name = step.operation, class_name(step)
        if operation is None or is_normalization(operation) or not step.parents:
            return None
        if step.opaque:
            return UNKNOWN
        activation = activation_at(step)
        if activation is not None:
            return activation or None
        if self.weights[index]:
            if isinstance(operation, layers.SimpleRNN):
                return named(operation.activation)
            return UNKNOWN if isinstance(operation, layers.RNN | layers.Bidirectional) else None
        if numbers := _numbers(step):
            return with_numbers(self.source(step.parents[0]), *numbers)
        if name in SUMS or name in MIXTURES:
            return self.source(step.parents[0]) if len(step.parents) == 1 and name in SUMS else None
        if name in PRODUCTS:
            return product_of(self, step)
        if name == "ResidualScale" or name in PASSING or type(operation).__name__ in PASSING:
            sources = [self.source(parent) for parent in step.parents]
            if name == "Where":
                # The condition is unknown, and no matter unless it is of the signal itself, as in x > 0.
                condition, *rest = step.parents
                shared = [self.free[condition] & self.free[parent] for parent in rest]
                if any(bits >> at & 1 for bits in shared for at, own in enumerate(self.weights) if own):
                    return UNKNOWN
                sources = [source for source in sources if source is not UNKNOWN] or sources
            return sources[0] if all(source == sources[0] for source in sources) else UNKNOWN
        return UNKNOWN

    def input_of(self, index: int) -> int | None:
        """The step that made the first input of a step, looking through casts and new shapes."""
        origin = next(iter(self.steps[index].parents), None)
        while origin is not None and class_name(self.steps[origin]) in _SAME:
            origin = next(iter(self.steps[origin].parents), None)
        return origin


def in_steps(trace: Trace) -> set[int]:
    """Returns the ids of the layers that run within the steps of a trace."""
    return {id(layer) for step in trace.steps for layer, _ in _owners(step)}


def _numbers(step: Step) -> tuple[float, float] | None:
    """The numbers a and b of a step that makes a x + b of its one operand x; None for another step."""
    if step.affine or len(step.parents) != 1 or step.weights:
        return step.affine
    numbers = numbers_of(step)
    return affine(class_name(step), *numbers) if len(numbers) == 2 else None


def _owners(step: Step) -> Iterator[tuple[Layer, int]]:
    """The layers that run within a step, each with the number of the step's kernels before it."""
    operation = step.operation
    if not isinstance(operation, layers.Layer) or step.opaque:
        return
    yield operation, 0
    for layer in flatten_layers(operation, include_self=False):
        yield layer, 0
        if isinstance(layer, layers.StackedRNNCells):
            yield from ((cell, place) for place, cell in enumerate(layer.cells) if place)
