"""`Cuts`: units that were cut into pieces, and whether the pieces are made of the same units again."""

from collections.abc import Callable, Sequence

from keras_initx._types import Tensor
from keras_initx.uses._operations import Operation, Shrink
from keras_initx.uses._units import Node, concatenated, tell, trailing, unify
from keras_initx.uses._views import shape_of

__all__ = ["Cuts"]


class Cuts:
    """The pieces of units that were cut in one run.

    Args:
        of: Returns the units on each axis of a tensor.
        give: Gives a tensor's axes units.
    """

    def __init__(
        self,
        of: Callable[[Tensor], Sequence[Node]],
        give: Callable[[Tensor, Sequence[Node | None]], None],
    ) -> None:
        self._of, self._give = of, give
        # Each with the units that were cut, and the number of its first unit.
        self._pieces: list[tuple[Node, int, Node]] = []

    def take(self, operation: Operation, effect: Shrink) -> None:
        """Takes an operation that has cut a tensor, and gives its outputs nodes."""
        own, first = self._of(operation.inputs[effect.source]), 0
        for output in operation.outputs:
            sizes = shape_of(output)
            axes = tuple(range(len(own))) if effect.axes is None else effect.axes
            if len(axes) != len(sizes):
                continue
            nodes: list[Node | None] = [None if axis is None else own[axis] for axis in axes]
            for place, (node, size) in enumerate(zip(nodes, sizes, strict=True)):
                if node is None or node.size == size:
                    continue
                piece = nodes[place] = Node(size)
                axis = axes[place]
                begin = effect.first.get(-1 if axis is None else axis)
                if len(operation.outputs) > 1:
                    begin, first = first, first + size
                if begin is not None:
                    self._pieces.append((node, begin, piece))
                else:
                    tell(node, across="a slice")
            self._give(output, nodes)

    def join(self) -> None:
        """Says of units that were cut into pieces which cover them that they are made of the pieces."""
        pieces: dict[Node, dict[tuple[int, int], Node]] = {}
        for node, begin, piece in self._pieces:
            known = pieces.setdefault(node.root, {})
            unify(known.setdefault((begin, piece.size), piece), piece)
        for node, known in pieces.items():
            at, parts = 0, []
            for (begin, size), piece in sorted(known.items(), key=lambda item: item[0]):
                if begin == at:
                    parts.append(piece)
                    at += size
            if at != node.size or len(parts) != len(known):
                tell(node, across="a slice")
            elif node.root.how != "product":
                unify(node, concatenated(parts))
            else:
                self._join_product(node.root, parts)

    @staticmethod
    def _join_product(node: Node, parts: list[Node]) -> None:
        """A reshape has told what the units are made of: each piece must be the whole of its last factors."""
        sizes = {part.size for part in parts}
        rest = trailing(node, len(parts)) if len(sizes) == 1 else None
        if rest is None:
            for part in (node, *parts):
                tell(part, across="a slice")
            return
        for part in parts:
            unify(part, rest)
