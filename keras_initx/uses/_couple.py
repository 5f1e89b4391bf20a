"""`couple`: which axes of the weights of a model number the same units, found in one run without values."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from keras import tree

from keras_initx._types import Model, Tensor, Variable
from keras_initx.uses._axes import Axes
from keras_initx.uses._backend import reader
from keras_initx.uses._find import run_and_see
from keras_initx.uses._flow import Flow
from keras_initx.uses._operations import Effect, Gather, Operation
from keras_initx.uses._together import Together
from keras_initx.uses._tracker import Tracker
from keras_initx.uses._units import Node, Units
from keras_initx.uses._use import Use

__all__ = ["Coupling", "couple"]


class Coupling:
    """What one run told of the axes of weights.

    Attributes:
        flow: Which operation takes the output of which.
    """

    def __init__(
        self, axes: dict[int, tuple[Node, ...]], uses: Sequence[Use], flow: Flow | None = None
    ) -> None:
        self._axes = axes
        self.flow = flow or Flow(lambda _: (), lambda _: True)
        self._uses: dict[int, list[Use]] = {}
        for use in uses:
            self._uses.setdefault(id(use.variable), []).append(use)

    def uses(self, variable: Variable) -> Sequence[Use]:
        """The operations that take a weight, in the order in which they ran."""
        return self._uses.get(id(variable), ())

    def units(self, variable: Variable) -> tuple[Units, ...]:
        """The units of each axis of a weight; units of its own where the run did not reach the weight."""
        nodes = self._axes.get(id(variable)) or tuple(map(Node, variable.shape))
        return tuple(node.units() for node in nodes)


def couple(
    model: Model, args: tuple[Any, ...], kwargs: dict[str, Any], variables: Sequence[Variable]
) -> Coupling:
    """Runs a model once on tensors without values, and tells which axes of weights number the same units.

    Args:
        model: A built Keras model or layer.
        args: Arguments of its call, KerasTensors among them.
        kwargs: Arguments by name.
        variables: The weights to tell of.
    """
    tracker = _Coupler(reader().effect)
    outputs = run_and_see(model, args, kwargs, variables, tracker)
    leaves = tree.flatten(outputs)
    for leaf in leaves:
        tracker.axes.mark(leaf, "output")
    tracker.flow.finish(leaves)
    tracker.together.finish()
    tracker.axes.join_cuts()
    return Coupling(tracker.weights, tracker.uses, tracker.flow)


class _Coupler(Tracker):
    """A tracker that keeps the units of each axis of each tensor."""

    opens = frozenset(("_where",))  # which also broadcasts its operands

    def __init__(self, effect_of: Callable[[Operation], Effect]) -> None:
        super().__init__(effect_of)
        self.axes = Axes()
        is_constant = lambda t: not self._is_signal(t) and not self.pieces(t)  # noqa: E731
        self.together = Together(self.axes, is_constant, self._is_adapter)
        self.flow = Flow(self.pieces, is_constant)
        self.axes.is_signal = self._is_signal
        self.weights: dict[int, tuple[Node, ...]] = {}

    def _is_adapter(self, tensor: Tensor) -> bool:
        """Whether a tensor is made of the factors of LoRA, which are a part of the kernel beside them."""
        names = [piece.variable.name for piece in self.pieces(tensor)]
        return bool(names) and all(name.startswith("lora_") for name in names)

    def watch(self, tensor: Tensor, variable: Variable) -> None:
        super().watch(tensor, variable)
        self.flow.watch(tensor, variable)
        self.weights[id(variable)] = self.axes.of(tensor)

    def begin(self, inputs: Iterable[Tensor]) -> None:
        inputs = list(inputs)
        super().begin(inputs)
        for tensor in inputs:
            self.axes.mark(tensor, "input")

    def follows(self, tensor: Tensor) -> bool:
        return super().follows(tensor) or self.axes.knows(tensor)

    def enter_loop(self, tensors: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        pairs = list(tensors)
        super().enter_loop(pairs)
        for inner, outer in pairs:
            if outer is not None:
                self.axes.hold(inner, self.axes.of(outer))

    def enter_step(self, tensors: Iterable[tuple[Tensor, Tensor]]) -> None:
        for inner, outer in tensors:
            self.axes.hold(inner, self.axes.of(outer)[1:])

    def see(self, operation: Operation) -> list[Tensor] | None:
        known = any(map(self.axes.knows, operation.inputs))
        signals = not any(map(self.pieces, operation.inputs))
        replaced = super().see(operation)
        effect = self._effect_of(operation)
        self.together.see(operation, effect)
        self.flow.see(operation, effect)
        if known:
            self.axes.hand_on(operation, effect, signals)
            if isinstance(effect, Gather) and self.pieces(operation.inputs[effect.table]):
                # Numbers from the input look up words; numbers that are always the same, positions.
                given = any(map(self._is_signal, operation.inputs))
                node = self.axes.of(operation.inputs[effect.table])[effect.axis]
                node.root.marks.add("rows" if given else "positions")
        return replaced
