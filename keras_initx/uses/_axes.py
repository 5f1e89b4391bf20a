"""`Axes`: the units on each axis of each tensor of a run.

Most operations only hand the units on. An unknown one hands on the axes of equal place and size.
"""

from collections.abc import Callable, Sequence
from typing import Any

from keras_initx._types import Tensor
from keras_initx.uses._cuts import Cuts
from keras_initx.uses._operations import (
    Combine,
    Concatenate,
    Contract,
    Convolve,
    Effect,
    Gather,
    Inner,
    Move,
    Operation,
    Reduce,
    Reshape,
    Shrink,
    Tile,
)
from keras_initx.uses._units import Node, concatenated, grouped, multiplied, tear, tell, unify
from keras_initx.uses._views import shape_of

__all__ = ["Axes"]


class Axes:
    """The units on each axis of each tensor of a run."""

    def __init__(self) -> None:
        self._nodes: dict[int, tuple[Tensor, tuple[Node, ...]]] = {}  # with the tensors, so that they stay
        self._cuts = Cuts(self.of, self.give)
        self.is_signal: Callable[[Tensor], bool] = lambda _: True

    def knows(self, tensor: object) -> bool:
        """Whether a tensor was seen before."""
        return id(tensor) in self._nodes

    def _mark_all(self, tensors: Sequence[Tensor], mark: str) -> None:
        for node in (node for tensor in tensors for node in self.of(tensor)):
            node.marks.add(mark)

    def mark(self, tensor: Tensor, mark: str) -> None:
        """Marks the units of a tensor's axes, without the batch axis."""
        if hasattr(tensor, "shape"):
            for node in self.of(tensor)[1:]:
                node.root.marks.add(mark)

    def of(self, tensor: Any) -> tuple[Node, ...]:
        """The nodes of a tensor's axes; new ones for a tensor that was not seen before, as a constant."""
        found = self._nodes.get(id(tensor))
        if found is None or found[0] is not tensor:
            found = self._nodes[id(tensor)] = tensor, tuple(Node(size) for size in shape_of(tensor))
        return found[1]

    def give(self, tensor: Tensor, nodes: Sequence[Node | None]) -> None:
        """Gives a tensor's axes nodes; None, and a node of another size, stand for new units."""
        sizes = shape_of(tensor)
        if len(nodes) != len(sizes):
            return
        kept = (
            node if node is not None and node.size == size else Node(size)
            for node, size in zip(nodes, sizes, strict=True)
        )
        self._nodes[id(tensor)] = tensor, tuple(kept)

    def hold(self, tensor: Tensor, nodes: tuple[Node, ...]) -> None:
        """Gives a tensor nodes as they are: a list of tensors has those of one of them."""
        self._nodes[id(tensor)] = tensor, nodes

    def join_cuts(self) -> None:
        """Says of units that were cut into pieces which cover them that they are made of the pieces."""
        self._cuts.join()

    def hand_on(self, operation: Operation, effect: Effect, signals: bool) -> None:
        """Gives the outputs of an operation that has run nodes.

        Args:
            operation: The operation.
            effect: What it does to the axes of its operands.
            signals: Whether no operand holds a weight.
        """
        inputs, output = operation.inputs, operation.outputs[0] if operation.outputs else None
        if output is None:
            return
        if isinstance(effect, Inner):
            self._mark_all(operation.outputs, "loop")
        elif isinstance(effect, Contract):
            self._multiply(operation, effect, signals)
        elif isinstance(effect, Convolve):
            self._convolve(operation, effect)
        elif isinstance(effect, Gather):
            self._look_up(operation, effect)
        elif isinstance(effect, Move):
            self._move(inputs[0], output, effect)
        elif isinstance(effect, Reshape):
            self._reshape(inputs[0], output)
        elif isinstance(effect, Shrink):
            self._cuts.take(operation, effect)
        elif isinstance(effect, Tile):
            self._tile(inputs[0], output)
        elif isinstance(effect, Concatenate):
            self._concatenate(operation, effect)
        elif isinstance(effect, Reduce):
            self._reduce(inputs[0], output, effect)
        elif isinstance(effect, Combine):
            self._combine([inputs[place] for place in effect.operands], output)
        else:
            self._other(operation, output)

    def _other(self, operation: Operation, output: Tensor) -> None:
        inputs = operation.inputs
        if operation.name == "TensorListFromTensor":
            self.hold(output, self.of(inputs[0])[1:])
        elif operation.name == "TensorListGetItem":
            self.give(output, self.of(inputs[0]))
        elif operation.name == "TensorListStack":  # of a list that a loop has made
            self._mark_all([output], "loop")
        elif "scaled_dot_product" in operation.name:  # of (batch, heads, positions, units)
            queries, keys, values = map(self.of, inputs[:3])
            for others in (keys, values):
                for axis in range(len(others) - 2):
                    unify(queries[axis], others[axis])
            unify(queries[-1], keys[-1])
            queries[-1].root.marks.add("mixed")
            self.give(output, [*queries[:-1], values[-1]])
        elif operation.name == "native_layer_norm":  # torch's: its scale and shift have the last axes
            self._combine(inputs, output)
        else:
            for made in operation.outputs:
                self._keep_places(inputs, made)

    def _multiply(self, operation: Operation, effect: Contract, signals: bool) -> None:
        left, right = (operation.inputs[place] for place in effect.operands)
        of: dict[Any, Node] = {}
        for labels, tensor in ((effect.left, left), (effect.right, right)):
            for label, node in zip(labels, self.of(tensor), strict=True):
                if label is not None and label in of:
                    unify(of[label], node)
                    if signals and label not in effect.out:
                        node.root.marks.add("mixed")
                elif label is not None:
                    of[label] = node
        self.give(operation.outputs[0], [of.get(label) for label in effect.out])
        if effect.shift is not None:
            self._combine([operation.inputs[effect.shift], operation.outputs[0]], operation.outputs[0])

    def _convolve(self, operation: Operation, effect: Convolve) -> None:
        kernel, output = self.of(operation.inputs[1]), operation.outputs[0]
        rank = len(shape_of(output))
        places = (0, 2) if effect.transposed else (0,)  # TensorFlow's transposed one begins with a shape
        given = (operation.inputs[p] for p in places if p < len(operation.inputs))
        signal = next((t for t in given if len(shape_of(t)) == rank), None)
        if signal is None:
            return
        own, outputs = self.of(signal), kernel[effect.outputs]
        if effect.depthwise:
            unify(own[effect.channels], kernel[effect.inputs])
            outputs = multiplied([kernel[effect.inputs], outputs])
        elif effect.groups > 1:
            group = Node(effect.groups)
            unify(own[effect.channels], multiplied([group, kernel[effect.inputs]]))
            unify(outputs, multiplied([group, Node(outputs.size // effect.groups)]))
        else:
            unify(own[effect.channels], kernel[effect.inputs])
        nodes: list[Node | None] = [None] * rank
        nodes[0], nodes[effect.channels] = own[0], outputs
        self.give(output, nodes)
        if effect.shift is not None:
            bias = self.of(operation.inputs[effect.shift])
            unify(bias[0], outputs)

    def _look_up(self, operation: Operation, effect: Gather) -> None:
        table, output = self.of(operation.inputs[effect.table]), operation.outputs[0]
        rank = len(shape_of(output))
        nodes: list[Node | None] = [None] * rank
        others = [place for place in range(len(table)) if place != effect.axis]
        if len(others) != len(effect.rest) or any(place >= rank for place in effect.rest):
            return
        for own, place in zip(others, effect.rest, strict=True):
            nodes[place] = table[own]
        free = [place for place in range(rank) if place not in effect.rest]
        index = operation.inputs[1 - min(effect.table, 1)] if len(operation.inputs) > 1 else None
        if index is not None and hasattr(index, "shape"):
            for place, node in zip(free, self.of(index), strict=False):
                nodes[place] = node
        self.give(output, nodes)

    def _move(self, source: Tensor, output: Tensor, effect: Move) -> None:
        own = self.of(source) if hasattr(source, "shape") else ()
        if not all(axis is None or axis < len(own) for axis in effect.axes):
            return
        nodes = [None if axis is None else own[axis] for axis in effect.axes]
        for place, (before, after) in effect.pads.items():
            node = nodes[place]
            if node is None or not (before or after):
                continue
            if min(before, after) < 0:
                tell(node, across="pad")
            else:
                nodes[place] = concatenated([Node(before), node, Node(after)])
        for place in effect.turned:
            node = nodes[place]
            if node is not None:
                tell(node, mark="turned")
        self.give(output, nodes)

    def _reshape(self, source: Tensor, output: Tensor) -> None:
        own, sizes = self.of(source), shape_of(output)
        found = None if -1 in sizes else grouped(own, sizes)
        if found is None:  # the last axes may still be the same
            pairs = zip(reversed(shape_of(source)), reversed(sizes), strict=False)
            differ = (n for n, (one, other) in enumerate(pairs) if one != other)
            count = next(differ, min(len(own), len(sizes)))
            tear(*own[: len(own) - count])
            found = [*(None,) * (len(sizes) - count), *own[len(own) - count :]]  # type: ignore[list-item]
        self.give(output, found)

    def _tile(self, source: Tensor, output: Tensor) -> None:
        own, sizes = self.of(source), shape_of(output)
        padded: list[Node | None] = [*(None,) * (len(sizes) - len(own)), *own]
        for place, (node, size) in enumerate(zip(padded, sizes, strict=True)):
            if node is not None and node.size != size and node.size and size % node.size == 0:
                padded[place] = multiplied([Node(size // node.size), node])
        self.give(output, padded)

    def _concatenate(self, operation: Operation, effect: Concatenate) -> None:
        output = operation.outputs[0]
        parts = [list(self.of(tensor)) for tensor in operation.inputs[: effect.count]]
        if effect.stacked:
            for part in parts:
                part.insert(effect.axis, Node(1))
        if len({len(part) for part in parts}) != 1:
            return
        nodes: list[Node | None] = []
        for axis, column in enumerate(zip(*parts, strict=True)):
            if axis == effect.axis:
                nodes.append(None if effect.stacked else concatenated(column))
                continue
            for node in column[1:]:
                unify(column[0], node)
            nodes.append(column[0])
        self.give(output, nodes)

    def _reduce(self, source: Tensor, output: Tensor, effect: Reduce) -> None:
        own = self.of(source)
        kept: list[Node | None] = [
            None if axis in effect.axes else node
            for axis, node in enumerate(own)
            if effect.keeps or axis not in effect.axes
        ]
        self.give(output, kept)

    def _combine(self, operands: Sequence[Any], output: Tensor) -> None:
        sizes = shape_of(output)
        found: list[Node | None] = [None] * len(sizes)
        for tensor in operands:
            if not hasattr(tensor, "shape"):
                continue
            own = self.of(tensor)
            for place, node in enumerate(reversed(own)):
                at = len(sizes) - 1 - place
                if at < 0 or node.size != sizes[at]:
                    continue
                if found[at] is None:
                    found[at] = node
                else:
                    unify(found[at], node)  # type: ignore[arg-type]
        self.give(output, found)

    def _keep_places(self, inputs: Sequence[Any], output: Tensor) -> None:
        """Hands on the axes of equal place and size."""
        sizes = shape_of(output)
        same = [t for t in inputs if hasattr(t, "shape") and len(t.shape) == len(sizes) and len(sizes)]
        if same and 0 not in sizes:
            self._combine(same, output)
        elif id(output) not in self._nodes:
            self.give(output, [None] * len(sizes))
