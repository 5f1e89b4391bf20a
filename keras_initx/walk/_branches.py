"""Finds the residual branches of a traced model, and the kernels that end them.

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
   normalizations and residual scales on the way belong to its end. Of a product one factor ends it.

Sums of attention scores and a bias are left out: they have no skip. So are sums that a kernel comes to again
and again in a recurrent loop.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

from keras_initx.walk._kernels import known_class
from keras_initx.walk._operations import MIXTURES, PRODUCTS, SUMS, class_name, is_gate, is_softmax
from keras_initx.walk._position import Branch
from keras_initx.walk._trace import Step, Trace

__all__ = ["Branches"]


class Branches:
    """The part of a `Flow` that finds its residual branches, and that files imported by `_flow` read.

    Attributes:
        trace: The trace.
        steps: The steps of the trace.
        weights: For each step, the number of its kernels in a row.
        takers: For each weight that is a kernel of operations, by its id, the steps that take it.
        children: For each step, the steps that take its output.
        ancestors: For each step, the steps that lead to it, as bits.
        free: For each step, its ancestors with no kernel in between, as bits.
        branches: For each step in a residual branch, the innermost one.
        ends: The steps that end a branch.
    """

    trace: Trace
    steps: list[Step]
    weights: list[int]
    takers: dict[int, list[int]]
    children: list[list[int]]
    ancestors: list[int]
    free: list[int]
    branches: dict[int, Branch]
    ends: set[int]

    def source(self, index: int) -> Any:
        """Returns the activation that made the output of a step; None if linear, UNKNOWN if not known."""
        raise NotImplementedError

    def find_branches(self) -> None:
        """Fills `branches` and `ends`."""
        found: list[tuple[int, int, int]] = []
        for index, step in enumerate(self.steps):
            # Attention scores plus a bias that layers share look like a skip and a branch: a Softmax follows.
            scores = any(is_softmax(self.steps, child) for child in self.children[index])
            if class_name(step) == "Add" and len(step.parents) > 1 and not scores:
                found += self._branches_into(step)
        number = 0
        for operand, members, length in found:
            ends = {end for end in self.last_kernels(operand, stop_at_sums=False) if members >> end & 1}
            if any(map(self._loops, ends)):
                continue
            branch, number = Branch(number, length), number + 1
            self.ends |= ends | set(self._scales_after(operand, members))
            for member in (index for index in range(len(self.steps)) if members >> index & 1):
                # Branches are found in order: an inner branch comes before the branches around it.
                self.branches.setdefault(member, branch)

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
            queue.extend(self._factor(step) if len(step.parents) > 1 else step.parents)

    def _factor(self, step: Step) -> tuple[int, ...]:
        """The operands of a step that are enough to make its output 0; all, if it is no product.

        If two factors of a product were 0, neither would ever get a gradient. One is chosen: no gate, and if
        there is one, a factor without an activation, as the values are beside the weights of an attention.
        """
        if class_name(step) not in PRODUCTS | MIXTURES:
            return step.parents
        signals = [p for p in step.parents if not is_gate(self.source(p))] or list(step.parents)
        linear = [p for p in signals if self.source(p) is None]
        return ((linear or signals)[-1],)

    def _loops(self, index: int) -> bool:
        """Whether a kernel of a step takes what it made before, as in a loop: its sums are not residual."""
        steps = [self.takers.get(id(weight), []) for weight in self.steps[index].weights]
        pairs = itertools.chain.from_iterable(map(itertools.pairwise, steps))
        return any(self.ancestors[later] >> first & 1 for first, later in pairs)

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
