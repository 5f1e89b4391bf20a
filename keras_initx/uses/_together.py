"""`Together`: what a model computes from several units at once, and with which numbers.

An operation that takes each unit alone makes equal outputs of the copies of a unit. A mean over the units
stays as it is, if all of them are copied equally often. Other operations change: a softmax over twice as many
units, a fixed table of another width, a product with the root of the width. The nodes hold their names.
"""

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from keras_initx._types import Tensor
from keras_initx.uses._axes import Axes
from keras_initx.uses._backend import reader
from keras_initx.uses._operations import (
    Across,
    Combine,
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

# Operations of the backends that take each entry alone, or one channel; in lower case, without underscores.
_ALONE = frozenset(
    """
    abs acos acosh adaptiveavgpool2d addn angle asin asinh atan atan2 atanh avgpool avgpool1d avgpool2d
    avgpool3d bernoulli bitwiseand bitwisenot bitwiseor bucketize cbrt ceil celu checknumerics clamp
    clampmax clampmin clip clipbyvalue cos cosh cudnnbatchnorm digamma div divnonan elu ensureshape eq
    equal erf erfc erfinv exp exp2 expm1 fill floor floordiv floormod fmod fulllike fusedbatchnormv3 ge
    gelu glu greater greaterequal gt hardsigmoid hardswish hardtanh integerpow invert isfinite isinf
    isnan le leakyrelu less lessequal lgamma log log1p logicaland logicalnot logicalor logistic
    logisticsigmoid logsigmoid logsigmoidforward lt maskedfill maximum maxpool maxpool2d
    maxpool2dwithindices maxpool3d maxpool3dwithindices maxpoolwithargmax minimum mish mod mul
    nativebatchnorm nativebatchnormlegitnotraining nativedropout ne nearbyint nonzero not notequal
    oneslike or pow prelu randomuniform reciprocal reducewindow reducewindowmax reducewindowsum relu
    relu6 remainder resizebicubic resizebilinear resizenearestneighbor round rsqrt select selectn
    selectv2 selu sigmoid sign silu sin sinh softplus softsign sqrt square squareddifference squareplus
    stopgradient sub swish tan tanh threshold truncatemod upsamplebicubic2d upsamplebilinear2d
    upsamplenearest2d where xdivy xlogy xor zeroslike
    """.split()  # noqa: SIM905
)
_ARITHMETIC: dict[str, Callable[..., float | None]] = {
    **dict.fromkeys(("add", "addv2"), operator.add),
    **dict.fromkeys(("div", "realdiv"), lambda one, other: one / other if other else None),
    "mul": operator.mul,
    "sub": operator.sub,
}
_MEANS = ("amax", "amin", "max", "mean", "min", "reducemax", "reducemin", "std", "var")
_NUMBERED = ("arange", "eye", "iota", "linspace", "range")  # their entries differ


class Together:
    """Tells the nodes of units what is computed from several of them at once.

    Args:
        axes: The nodes of each tensor.
        is_constant: Whether a tensor is made of no input and no weight.
    """

    def __init__(self, axes: Axes, is_constant: Callable[[Tensor], bool]) -> None:
        self._axes, self._is_constant = axes, is_constant
        # Sums that may turn out to be means: the summed nodes and their number of entries.
        self._sums: dict[int, tuple[Tensor, list[Node]]] = {}
        self._numbers: dict[int, tuple[Tensor, float]] = {}  # tensors that hold one number
        self._varied: dict[int, Tensor] = {}  # constants whose entries differ

    def see(self, operation: Operation, effect: Effect) -> None:
        """Takes an operation that has run, before its outputs have nodes."""
        tensors = [t for t in operation.inputs if hasattr(t, "shape")]
        if all(map(self._is_constant, tensors)):
            self._follow(operation, effect, tensors)
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
        elif isinstance(effect, Gather) and self._axes.is_signal(operation.inputs[effect.table]):
            self._look_up(operation, effect, tensors)
        elif isinstance(effect, Convolve):
            rank = len(shape_of(operation.outputs[0]))
            # TensorFlow's transposed convolution begins with a shape.
            signals = (t for t in operation.inputs[:3:2] if hasattr(t, "shape") and len(t.shape) == rank)
            own = self._axes.of(next(signals, operation.outputs[0]))
            places = (place for place in range(1, rank) if place != effect.channels)
            self._mark([own[place] for place in places], operation.name)
        elif isinstance(effect, Other):
            self._unknown(operation, tensors)

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
        name = _plain(operation.name)
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
        number = self._number(others[0]) if len(others) == 1 else None
        how = effect.how if isinstance(effect, Combine) else ""
        if number and how in factors and abs(number * factors[how] - 1) < 1e-5:
            for atom in _atoms(nodes):
                atom.marks.add("averaged")
        else:
            self._mark(nodes, "sum")

    def _combine(self, operation: Operation, effect: Combine) -> None:
        operands = [operation.inputs[place] for place in effect.operands]
        numbers = [self._number(operand) for operand in operands]
        for signal, other, number in zip(operands, operands[::-1], numbers[::-1], strict=True):
            if not hasattr(signal, "shape") or self._is_constant(signal):
                continue
            own = self._axes.of(signal)
            if number is not None and own:
                for atom in _atoms(own[-1:]):
                    atom.numbers.add(float(f"{number:.4g}"))
            elif self._is_varied(other):
                sizes = shape_of(other)
                places = [place for place in range(1, len(sizes) + 1) if sizes[-place] > 1]
                self._mark([own[-place] for place in places if place <= len(own)], "a table of constants")

    def _unknown(self, operation: Operation, tensors: Sequence[Tensor]) -> None:
        name = _plain(operation.name)
        signals = [t for t in tensors if not self._is_constant(t)]
        if name == "nativelayernorm":
            for atom in _atoms(self._axes.of(signals[0])[1:]):
                atom.marks.add("averaged")
        elif name in _ALONE or not operation.outputs:
            # Pooling changes the size of the axes that it runs over.
            sizes = shape_of(operation.outputs[0]) if operation.outputs else ()
            for tensor in signals:
                own = self._axes.of(tensor)
                if len(own) == len(sizes):
                    pairs = zip(own, sizes, strict=True)
                    self._mark([n for n, size in pairs if n.size not in (1, size)], operation.name)
        elif "scaleddotproduct" not in name and "tensorlist" not in name:
            for tensor in signals:
                self._mark(self._axes.of(tensor)[1:], operation.name)

    def _follow(self, operation: Operation, effect: Effect, tensors: Sequence[Tensor]) -> None:
        """Follows what is known of constants."""
        numbers = [self._number(value) for value in operation.inputs[:2]]
        found = None
        if isinstance(effect, Move | Reshape) and numbers:
            found = numbers[0]
        elif isinstance(effect, Combine) and None not in numbers and len(numbers) == 2:
            found = _ARITHMETIC.get(_plain(operation.name), lambda *_: None)(*numbers)
        if found is not None:
            self._numbers.update({id(t): (t, found) for t in operation.outputs})
        if _plain(operation.name) in _NUMBERED or any(map(self._is_varied, tensors)):
            self._varied.update({id(t): t for t in operation.outputs})

    def _number(self, value: Any) -> float | None:
        if id(value) in self._numbers:
            return self._numbers[id(value)][1]
        if isinstance(value, bool | int | float):
            return float(value)
        if not hasattr(value, "shape") or not self._is_constant(value) or shape_of(value):
            return None
        found = reader().number(value)
        return None if found is None else float(found)

    def _is_varied(self, tensor: Any) -> bool:
        if id(tensor) in self._varied:
            return True
        if not hasattr(tensor, "shape") or not self._is_constant(tensor) or isinstance(tensor, tuple):
            return False
        found = reader().constant(tensor)
        return found is not None and found.size > 1 and bool((found != found.reshape(-1)[0]).any())

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


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
