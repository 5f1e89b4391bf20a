"""Finds the place of each kernel in the flow of a traced model: depth, activations, residual branches.

How residual branches are found. A trace lists the steps of a model in order, each after its parents. A sum
joins ways that left each other at a fork:

                   +---- f: kernel, ReLU, kernel ----+
    x --> fork ----+                                 +--> Add --> ...
                   +---- skip: no kernel, or one ----+

1. Ancestors. Each step has the set of all steps that lead to it, as the bits of one int: to unite or
   intersect two sets is one operation. `free` is the subset with no kernel in between.
2. Fork. Steps that lead to all operands of a sum are common. The fork is the last common step that one
   operand reaches without a kernel, while another operand does not. If there is none (a projection on each
   way), the fork is the last common step.
3. Ways. From the fork on, the fewest and the most kernels to each step are counted. The operand with the
   fewest kernels is the skip. With no kernel in the skip (the identity), each operand with a kernel on every
   way is a branch. With one kernel in the skip (a projection), each operand with more than one is. Two ways
   of several kernels each are a sum of equals, and no branch.
4. Members. The branch holds the steps that lead to its operand and come after the fork. Sums are visited in
   order, so that an inner branch takes its steps before an outer one, which gets the rest.
5. Ends. Going back from the operand, the first kernels that are met end the branch, and the scales of
   normalizations and residual scales on the way belong to its end.

Sums of attention scores and a bias are left out: they have no skip.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from keras import layers

from keras_initx._keras_internals import flatten_layers
from keras_initx._types import Layer, Variable
from keras_initx.walk._kernels import known_class, rule_of
from keras_initx.walk._layers import SCALES
from keras_initx.walk._operations import (
    MIXTURES,
    PASSING,
    PRODUCTS,
    SUMS,
    activation_of,
    class_name,
    is_gate,
    is_normalization,
    is_softmax,
    named,
)
from keras_initx.walk._position import Branch, Position
from keras_initx.walk._products import UNKNOWN, product_of
from keras_initx.walk._sinks import is_normalized_after, next_activation
from keras_initx.walk._trace import Step, Trace

__all__ = ["Flow", "in_steps"]


# Operations whose output is their input in another form.
_SAME = ("Cast", "ConvertToTensor", "ExpandDims", "Reshape", "Squeeze", "Transpose")


class Flow:
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
        self.took: dict[
            int, int
        ] = {}  # for each weight that is a kernel of operations, the first that takes it
        wanted = {id(kernel) for kernel in kernels}
        for index, step in enumerate(self.steps):
            taken = [id(weight) for weight in step.weights if id(weight) in wanted]
            self.weights[index] = max(self.weights[index], bool(taken))
            for weight in taken:
                self.took.setdefault(weight, index)
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
        self._find_branches()
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
        own_step = self.took.get(id(kernel))
        if own_step is None and id(layer) not in self.ran:
            return Position(note="the trace did not reach it, or did not see into a layer around it")
        index, place = self.ran[id(layer)] if own_step is None else (own_step, 0)
        _, rule = rule_of(layer)
        names = list(rule.kernels)
        inside = names.index(kernel.name) if rule.chained and kernel.name in names else place
        source = None if inside else self._source_of_inputs(index)
        last = inside == max(self.weights[index], 1) - 1
        note = "the activation that feeds it is not known" if source is UNKNOWN else ""
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
        activation = activation_of(operation)
        if activation is not None:
            return activation or None
        if self.weights[index]:
            if isinstance(operation, layers.SimpleRNN):
                return named(operation.activation)
            return UNKNOWN if isinstance(operation, layers.RNN | layers.Bidirectional) else None
        if name in SUMS or name in MIXTURES:
            return self.source(step.parents[0]) if len(step.parents) == 1 and name in SUMS else None
        if name in PRODUCTS:
            return product_of(self, step)
        if name == "ResidualScale" or name in PASSING or type(operation).__name__ in PASSING:
            sources = [self.source(parent) for parent in step.parents]
            if name == "Where":
                # The condition is unknown, and no matter unless it is of the signal itself, as in x > 0.
                condition, *rest = step.parents
                if any(self.free[condition] & self.free[parent] for parent in rest):
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

    def last_kernels(self, index: int, stop_at_sums: bool) -> Iterator[int]:
        """Yields the steps of the last kernels before a step: no other lies between them and the step."""
        queue, seen = [index], set()
        while queue:
            here = queue.pop()
            if here in seen:
                continue
            seen.add(here)
            step = self.steps[here]
            if self.weights[here]:
                yield here
                continue
            if stop_at_sums and class_name(step) in SUMS and len(step.parents) > 1:
                continue
            parents = step.parents
            if class_name(step) in PRODUCTS and len(parents) > 1:
                # The kernel that makes a gate does not end a branch: the signal that the gate scales does.
                gates = {p for p in parents if is_gate(self.source(p))}
                parents = tuple(p for p in parents if p not in gates) or parents
            queue.extend(parents)

    def _find_branches(self) -> None:
        found = []
        for index, step in enumerate(self.steps):
            # Attention scores plus a bias that layers share look like a skip and a branch: a Softmax follows.
            scores = any(is_softmax(self.steps, child) for child in self.children[index])
            if class_name(step) == "Add" and len(step.parents) > 1 and not scores:
                found += [(index, *branch) for branch in self._branches_into(step)]
        for number, (_, operand, members, length) in enumerate(found):
            branch = Branch(number, length)
            ends = {end for end in self.last_kernels(operand, stop_at_sums=False) if members >> end & 1}
            self.ends |= ends | set(self._scales_after(operand, members))
            for member in (index for index in range(len(self.steps)) if members >> index & 1):
                # Branches are found in order: an inner branch comes before the branches around it.
                self.branches.setdefault(member, branch)

    def _branches_into(self, step: Step) -> Iterator[tuple[int, int, int]]:
        """The operands of a sum that are residual branches: step of the operand, member steps, length."""
        common = functools.reduce(int.__and__, (self.ancestors[parent] for parent in step.parents))
        if not common:
            return
        fork = max(self._fork(parent, step.parents, common) for parent in step.parents)
        fork = common.bit_length() - 1 if fork < 0 else fork
        shortest, longest = self._ways(fork, max(step.parents))
        ways = [(shortest[parent], longest[parent], parent) for parent in step.parents]
        least, most, skip = min(ways)
        for short, long, operand in ways:
            # A skip may hold one projection. Ways of several kernels each are a sum of equals.
            longer = short > 0 if least == 0 else long > most == 1
            if operand != skip and longer:
                after = sum(1 << index for index in shortest if index != fork)
                yield operand, self.ancestors[operand] & after, long

    def _fork(self, skip: int, operands: tuple[int, ...], common: int) -> int:
        """The last common step that one operand reaches without a kernel and another does not; or -1."""
        others = functools.reduce(int.__and__, (self.free[other] for other in operands))
        return (common & self.free[skip] & ~others).bit_length() - 1

    def _ways(self, fork: int, last: int) -> tuple[dict[int, int], dict[int, int]]:
        """The numbers of kernels on the shortest and the longest way from the fork to each later step."""
        shortest, longest = {fork: 0}, {fork: 0}
        for index in range(fork + 1, last + 1):
            parents = [parent for parent in self.steps[index].parents if parent in shortest]
            if parents:
                shortest[index] = min(shortest[p] for p in parents) + self.weights[index]
                longest[index] = max(longest[p] for p in parents) + self.weights[index]
        return shortest, longest

    def _scales_after(self, operand: int, members: int) -> Iterator[int]:
        """The normalizations and residual scales between the last kernel of a branch and its sum."""
        queue = [operand]
        while queue:
            here = queue.pop()
            if not members >> here & 1 or self.weights[here]:
                continue
            if known_class(self.steps[here].operation):
                yield here
            queue.extend(self.steps[here].parents)


def in_steps(trace: Trace) -> set[int]:
    """Returns the ids of the layers that run within the steps of a trace."""
    return {id(layer) for step in trace.steps for layer, _ in _owners(step)}


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
