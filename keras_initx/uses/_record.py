"""`record`: the operations that a layer runs, where only the backend sees them."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from keras import tree

from keras_initx._types import Layer, Tensor, Variable
from keras_initx.uses._backend import reader
from keras_initx.uses._find import run_and_see
from keras_initx.uses._operations import (
    Combine,
    Concatenate,
    Contract,
    Convolve,
    Effect,
    Gather,
    Move,
    Operation,
    Reshape,
    Shrink,
)
from keras_initx.uses._tracker import Tracker
from keras_initx.uses._views import shape_of

__all__ = ["Ran", "record"]

_BY_EFFECT: dict[type[Effect], str] = {
    Concatenate: "Concatenate",
    Contract: "Matmul",
    Convolve: "Conv",
    Gather: "Take",
    Move: "Transpose",
    Reshape: "Reshape",
    Shrink: "Slice",
}
_COMBINED = {"adds": "Add", "scales": "Multiply", "divides": "Divide"}


@dataclasses.dataclass(frozen=True)
class Ran:
    """An operation that ran on a signal.

    Attributes:
        name: Name of the class of Keras' operation that does the same; another name if there is none.
        parents: Indices of the operations that made its operands. The inputs of the layer come first: input n
            has index n.
        shape: Shape of its first output.
        kernels: The weights that are kernels in it.
        several: Whether it has several outputs.
    """

    name: str
    parents: tuple[int, ...]
    shape: tuple[int, ...]
    kernels: tuple[Variable, ...] = ()
    several: bool = False


def record(
    layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any], weights: Sequence[Variable]
) -> tuple[list[Ran], list[int | None]]:
    """Runs a layer once on tensors without values, and returns the operations that its signals go through.

    Args:
        layer: A built Keras layer.
        args: Arguments of its call, KerasTensors among them.
        kwargs: Arguments by name.
        weights: The weights to tell as kernels.

    Returns:
        The inputs and operations, in the order in which they ran; and for each output of the layer the index
        of the operation that made it, None if no signal did.
    """
    tracker = _Recorder(reader().effect)
    outputs = run_and_see(layer, args, kwargs, weights, tracker)
    return tracker.ran, [tracker.index_of(leaf) for leaf in tree.flatten(outputs)]


class _Recorder(Tracker):
    """A tracker that keeps each operation on a signal."""

    def __init__(self, effect_of: Callable[[Operation], Effect]) -> None:
        super().__init__(effect_of)
        self.ran: list[Ran] = []
        self._made: dict[int, tuple[Tensor, int]] = {}  # for each signal the operation that made it
        # Tensors that are made of kernels and no input, such as rows for the positions 0 to n.
        self._rows: dict[int, tuple[Tensor, tuple[Variable, ...]]] = {}

    def begin(self, inputs: Iterable[Tensor]) -> None:
        """Takes the inputs of the layer."""
        for tensor in inputs:
            super().begin([tensor])
            self._keep("input", (), (), [tensor])

    def index_of(self, tensor: Tensor) -> int | None:
        """The index of the operation that made a tensor; None for one that no input leads to."""
        found = self._made.get(id(tensor))
        return found[1] if found else None

    def follows(self, tensor: Tensor) -> bool:
        """Whether a compiled function that takes a tensor is to be opened: each signal is followed here."""
        return super().follows(tensor) or self.index_of(tensor) is not None

    def see(self, operation: Operation) -> list[Tensor] | None:
        before = len(self.uses)
        replaced = super().see(operation)
        found = (self.index_of(tensor) for tensor in operation.inputs)
        parents = tuple(dict.fromkeys(index for index in found if index is not None))
        rows = [kernel for t in operation.inputs if id(t) in self._rows for kernel in self._rows[id(t)][1]]
        kernels = (*rows, *(use.variable for use in self.uses[before:] if use.is_kernel))
        if parents:
            self._keep(self._name(operation), parents, kernels, operation.outputs)
        elif kernels:
            self._rows.update({id(tensor): (tensor, kernels) for tensor in operation.outputs})
        return replaced

    def _keep(
        self, name: str, parents: tuple[int, ...], kernels: tuple[Variable, ...], made: Sequence[Tensor]
    ) -> None:
        self._made.update({id(tensor): (tensor, len(self.ran)) for tensor in made})
        self.ran.append(Ran(name, parents, shape_of(made[0]) if made else (), kernels, len(made) > 1))

    def _name(self, operation: Operation) -> str:
        if title := reader().title(operation):
            return str(title)
        effect = self._effect_of(operation)
        if isinstance(effect, Combine) and effect.how in _COMBINED:
            return _COMBINED[effect.how]
        # Not the backend's name alone, which an operation of Keras that does something else may have.
        return _BY_EFFECT.get(type(effect)) or f"{operation.name} of the backend"
