"""`Together`: what a model computes from several units at once, and with which numbers.

An operation that takes each unit alone makes equal outputs of the copies of a unit. A mean over the units
stays as it is, if all of them are copied equally often. Other operations change: a softmax over twice as many
units, a fixed table of another width, a product with the root of the width. The nodes hold their names.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from keras_initx._types import Tensor
from keras_initx.uses._axes import Axes
from keras_initx.uses._constants import ALONE, Constants, plain
from keras_initx.uses._operations import (
    Across,
    Combine,
    Concatenate,
    Contract,
    Convolve,
    Effect,
    Gather,
    Move,
    Operation,
    Other,
    Reduce,
    Reshape,
)
from keras_initx.uses._units import Node
from keras_initx.uses._views import shape_of

__all__ = ["Together"]

_MEANS = ("amax", "amin", "max", "mean", "min", "reducemax", "reducemin", "std", "var")


class Together:
    """Tells the nodes of units what is computed from several of them at once.

    Args:
        axes: The nodes of each tensor.
        is_constant: Whether a tensor is made of no input and no weight.
        is_adapter: Whether a tensor is a part of a kernel trained apart, whose factor is in its value.
    """

    def __init__(
        self,
        axes: Axes,
        is_constant: Callable[[Tensor], bool],
        is_adapter: Callable[[Tensor], bool] = lambda _: False,
    ) -> None:
        self._axes, self._is_constant, self._is_adapter = axes, is_constant, is_adapter
        # Sums that may turn out to be means: the summed nodes and their number of entries.
        self._sums: dict[int, tuple[Tensor, list[Node]]] = {}
        self._constants = Constants(is_constant)

    def see(self, operation: Operation, effect: Effect) -> None:
        """Takes an operation that has run, before its outputs have nodes."""
        tensors = [t for t in operation.inputs if hasattr(t, "shape")]
        if all(map(self._is_constant, tensors)):
            self._constants.follow(operation, effect)
            return
        for tensor in tensors:
            self._settle(tensor, operation, effect)
        if isinstance(effect, Reduce):
            own = self._axes.of(operation.inputs[0])
            self._reduce(operation, [own[axis] for axis in effect.axes if axis < len(own)])
        elif isinstance(effect, Combine):
            self._combine(operation, effect)
        elif isinstance(effect, Across):
            own = self._axes.of(operation.inputs[0])
            self._mark(own if effect.axes is None else [own[axis] for axis in effect.axes], operation.name)
        elif isinstance(effect, Concatenate | Contract | Convolve):
            self._tell_constants(operation, effect)
        elif isinstance(effect, Gather) and self._axes.is_signal(operation.inputs[effect.table]):
            self._look_up(operation, effect, tensors)
        elif isinstance(effect, Other):
            self._unknown(operation, tensors)

    def _tell_constants(self, operation: Operation, effect: Concatenate | Contract | Convolve) -> None:
        """Tells the units of constants that signals are multiplied with, or stand beside."""
        count = effect.count if isinstance(effect, Concatenate) else 3
        for tensor in operation.inputs[:count]:
            self._tell_table(tensor, ())
        if isinstance(effect, Convolve):
            rank = len(shape_of(operation.outputs[0]))
            # TensorFlow's transposed convolution begins with a shape.
            signals = (t for t in operation.inputs[:3:2] if hasattr(t, "shape") and len(t.shape) == rank)
            own = self._axes.of(next(signals, operation.outputs[0]))
            places = (place for place in range(1, rank) if place != effect.channels)
            self._mark([own[place] for place in places], operation.name)

    def _look_up(self, operation: Operation, effect: Gather, tensors: Sequence[Tensor]) -> None:
        """A lookup in a signal: its units, and those of the output, are numbered in a way of their own."""
        table = operation.inputs[effect.table]
        self._mark([self._axes.of(table)[effect.axis]], operation.name)
        for index in (tensor for tensor in tensors if tensor is not table):
            self._mark(self._axes.of(index), operation.name)

    def finish(self) -> None:
        """Says of all sums that have not turned out to be means that they are sums."""
        for _, nodes in self._sums.values():
            self._mark(nodes, "sum")
        self._sums.clear()

    def _reduce(self, operation: Operation, nodes: list[Node]) -> None:
        name = plain(operation.name)
        if name in _MEANS:
            for atom in _atoms(nodes):
                atom.marks.add("averaged")
        elif name in ("sum", "reducesum"):
            self._sums.update({id(t): (t, nodes) for t in operation.outputs})
        else:
            self._mark(nodes, operation.name)

    def _settle(self, tensor: Tensor, operation: Operation, effect: Effect) -> None:
        """Decides whether a sum is a mean, when something takes it."""
        if id(tensor) not in self._sums:
            return
        nodes = self._sums.pop(id(tensor))[1]
        if isinstance(effect, Move | Reshape):
            self._sums.update({id(t): (t, nodes) for t in operation.outputs})
            return
        count = 1
        for node in nodes:
            count *= node.size
        factors = {"divides": 1 / count, "scales": count}
        others = [t for t in operation.inputs if t is not tensor]
        number = self._constants.number(others[0]) if len(others) == 1 else None
        how = effect.how if isinstance(effect, Combine) else ""
        if number and how in factors and abs(number * factors[how] - 1) < 1e-5:
            for atom in _atoms(nodes):
                atom.marks.add("averaged")
        else:
            self._mark(nodes, "sum")

    def _combine(self, operation: Operation, effect: Combine) -> None:
        operands = [operation.inputs[place] for place in effect.operands]
        numbers = [self._constants.number(operand) for operand in operands]
        for signal, other, number in zip(operands, operands[::-1], numbers[::-1], strict=True):
            if not hasattr(signal, "shape") or self._is_constant(signal):
                continue
            own = self._axes.of(signal)
            if number is not None and own and not self._is_adapter(signal):
                for atom in _atoms(own[-1:]):
                    atom.numbers.add(float(f"{number:.4g}"))
            self._tell_table(other, [signal])

    def _tell_table(self, constant: Any, signals: Iterable[Tensor]) -> None:
        """Tells the units that stand beside the entries of a constant, where these differ."""
        own = self._axes.of(constant) if (varied := self._constants.varied(constant)) else ()
        for axis in varied:
            nodes = (
                self._axes.of(t)[axis - len(own) :][:1] for t in signals if self._has(t, len(own) - axis)
            )
            beside = [node for found in nodes for node in found if node.size == own[axis].size]
            self._mark([own[axis], *beside], "a table of constants")

    def _has(self, tensor: Tensor, place: int) -> bool:
        """Whether a tensor has an axis at a place from the right."""
        return len(shape_of(tensor)) >= place

    def _unknown(self, operation: Operation, tensors: Sequence[Tensor]) -> None:
        name = plain(operation.name)
        signals = [t for t in tensors if not self._is_constant(t)]
        if name == "nativelayernorm":
            for atom in _atoms(self._axes.of(signals[0])[1:]):
                atom.marks.add("averaged")
        elif name in ALONE or not operation.outputs:
            # Pooling changes the size of the axes that it runs over.
            sizes = shape_of(operation.outputs[0]) if operation.outputs else ()
            for tensor in tensors:
                self._tell_table(tensor, signals)
            for tensor in signals:
                own = self._axes.of(tensor)
                if len(own) == len(sizes):
                    pairs = zip(own, sizes, strict=True)
                    self._mark([n for n, size in pairs if n.size not in (1, size)], operation.name)
        elif "scaleddotproduct" not in name and "tensorlist" not in name:
            for tensor in signals:
                self._mark(self._axes.of(tensor)[1:], operation.name)

    @staticmethod
    def _mark(nodes: Iterable[Node], name: str) -> None:
        for atom in _atoms(nodes):
            atom.across.add(name.strip("_"))


def _atoms(nodes: Iterable[Node]) -> list[Node]:
    """Nodes and all that they are made of."""
    found = []
    for node in nodes:
        root = node.root
        found += [root, *_atoms(root.of)]
    return found
