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

__all__ = ["Ran", "affine", "record"]

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
_DIFFERENCES = ("sub", "rsub")
_LARGEST = ("max", "maximum")


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
        affine: The numbers a and b, if it makes a x + b of its one operand x; else None.
    """

    name: str
    parents: tuple[int, ...]
    shape: tuple[int, ...]
    kernels: tuple[Variable, ...] = ()
    several: bool = False
    affine: tuple[float, float] | None = None


def affine(name: str, first: float | None, second: float | None) -> tuple[float, float] | None:
    """Returns the numbers a and b of an operation that makes a x + b of its signal x.

    >>> affine("Subtract", 1.0, None), affine("Maximum", None, 0.0)
    ((-1.0, 1.0), None)

    Args:
        name: Name of the class of Keras' operation.
        first: Its first operand, a number; None if this is the signal.
        second: Its second operand in the same way.

    Returns:
        The two numbers; None for another operation, and where no operand or both are numbers.
    """
    number = second if first is None else first
    if number is None or (first is not None and second is not None):
        return None
    if name in ("Divide", "TrueDivide"):
        return (1 / number, 0.0) if first is None and number else None
    return {
        "Add": (1.0, number),
        "Subtract": (1.0, -number) if first is None else (-1.0, number),
        "Multiply": (number, 0.0),
    }.get(name)


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
        self._numbers: dict[int, tuple[Tensor, float]] = {}  # tensors that hold one number

    def begin(self, inputs: Iterable[Tensor]) -> None:
        """Takes the inputs of the layer."""
        for tensor in inputs:
            super().begin([tensor])
            self._keep(Ran("input", (), shape_of(tensor)), [tensor])

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
            self._keep(self._told(operation, parents, kernels), operation.outputs)
        elif kernels:
            self._rows.update({id(tensor): (tensor, kernels) for tensor in operation.outputs})
        else:
            self._follow_number(operation)
        return replaced

    def _keep(self, ran: Ran, made: Sequence[Tensor]) -> None:
        self._made.update({id(tensor): (tensor, len(self.ran)) for tensor in made})
        self.ran.append(ran)

    def _follow_number(self, operation: Operation) -> None:
        """Keeps the number that a tensor without a value holds, where a number was cast or broadcast."""
        number = self._number_of(operation.inputs[0]) if operation.inputs else None
        if number is not None and isinstance(self._effect_of(operation), Move | Reshape):
            self._numbers.update({id(tensor): (tensor, number) for tensor in operation.outputs})

    def _number_of(self, tensor: Any) -> float | None:
        if id(tensor) in self._numbers:
            return self._numbers[id(tensor)][1]
        if isinstance(tensor, bool | int | float):
            return float(tensor)
        return reader().number(tensor) if hasattr(tensor, "shape") else None

    def _told(self, operation: Operation, parents: tuple[int, ...], kernels: tuple[Variable, ...]) -> Ran:
        made = operation.outputs
        shape = shape_of(made[0]) if made else ()
        name, numbers = self._name(operation), None
        effect = self._effect_of(operation)
        if len(parents) == 1 and not kernels and isinstance(effect, Combine):
            operands = [operation.inputs[place] for place in effect.operands]
            signals = [self.index_of(operand) is not None for operand in operands]
            known = [None if own else self._number_of(t) for own, t in zip(signals, operands, strict=True)]
            if operation.name.lower() in _LARGEST and 0.0 in known:
                name = "Relu"
            elif all(signals) and effect.how == "scales":
                name = "Square"
            elif not all(signals):
                title = "Subtract" if operation.name.lower() in _DIFFERENCES else name
                known = known[::-1] if operation.name == "rsub" else known  # torch's 1 - x
                numbers = affine(title, *known)
        return Ran(name, parents, shape, kernels, len(made) > 1, numbers)

    def _name(self, operation: Operation) -> str:
        if title := reader().title(operation):
            return str(title)
        effect = self._effect_of(operation)
        if isinstance(effect, Combine) and effect.how in _COMBINED:
            return _COMBINED[effect.how]
        # Not the backend's name alone, which an operation of Keras that does something else may have.
        return _BY_EFFECT.get(type(effect)) or f"{operation.name} of the backend"
