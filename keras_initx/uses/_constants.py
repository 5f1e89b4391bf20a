"""`Constants`: what is known of tensors that are made of no input and no weight.

A number that all units are multiplied by is the same for the copies of a unit. A table with an entry for each
unit is not: its entries for twice as many units are others.
"""

import operator
from collections.abc import Callable
from typing import Any

from keras_initx._types import Tensor
from keras_initx.uses._backend import reader
from keras_initx.uses._operations import Combine, Effect, Move, Operation, Reduce, Reshape
from keras_initx.uses._views import shape_of

__all__ = ["ALONE", "Constants", "plain"]

# Operations of the backends that take each entry alone, or one channel; in lower case, without underscores.
ALONE = frozenset(
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
# Their entries are equal.
_EVEN = frozenset("empty emptylike fill full fulllike ones oneslike zeros zeroslike".split())  # noqa: SIM905


class Constants:
    """The numbers that constants hold, and the axes along which their entries differ.

    Args:
        is_constant: Whether a tensor is made of no input and no weight.
    """

    def __init__(self, is_constant: Callable[[Tensor], bool]) -> None:
        self._is_constant = is_constant
        self._numbers: dict[int, tuple[Tensor, float]] = {}  # tensors that hold one number
        self._varied: dict[int, tuple[Tensor, frozenset[int]]] = {}

    def follow(self, operation: Operation, effect: Effect) -> None:
        """Takes an operation on constants that has run."""
        numbers = [self.number(value) for value in operation.inputs[:2]]
        found = None
        if isinstance(effect, Move | Reshape) and numbers:
            found = numbers[0]
        elif isinstance(effect, Combine) and None not in numbers and len(numbers) == 2:
            found = _ARITHMETIC.get(plain(operation.name), lambda *_: None)(*numbers)
        if found is not None:
            self._numbers.update({id(t): (t, found) for t in operation.outputs})
        for output in operation.outputs:
            if hasattr(output, "shape") and _by_value(output) is None:
                self._varied[id(output)] = output, self._follow(operation, effect, output)

    def number(self, value: Any) -> float | None:
        """The number that a constant holds; None if it is not known, or no constant of no axes."""
        if id(value) in self._numbers:
            return self._numbers[id(value)][1]
        if isinstance(value, bool | int | float):
            return float(value)
        if not hasattr(value, "shape") or not self._is_constant(value) or shape_of(value):
            return None
        found = reader().number(value)
        return None if found is None else float(found)

    def varied(self, value: Any) -> frozenset[int]:
        """The axes of a constant along which its entries differ; none for a signal or a weight."""
        if not hasattr(value, "shape") or not self._is_constant(value) or isinstance(value, tuple):
            return frozenset()
        known = self._varied.get(id(value))
        return known[1] if known else _by_value(value) or frozenset()

    def _follow(self, operation: Operation, effect: Effect, output: Tensor) -> frozenset[int]:
        """The axes of a constant whose value is not known."""
        sizes, name = shape_of(output), plain(operation.name)
        tensors = [t for t in operation.inputs if hasattr(t, "shape")]
        every = frozenset(axis for axis, size in enumerate(sizes) if size != 1)
        if name in _EVEN:
            return frozenset()
        if isinstance(effect, Move) and tensors:
            own = self.varied(tensors[0])
            moved = {place for place, axis in enumerate(effect.axes) if axis in own}
            return frozenset(moved | set(effect.pads))
        if isinstance(effect, Reduce) and tensors:
            own, rank = self.varied(tensors[0]), len(shape_of(tensors[0]))
            left = [axis for axis in range(rank) if effect.keeps or axis not in effect.axes]
            return frozenset(p for p, a in enumerate(left) if a in own and a not in effect.axes)
        if isinstance(effect, Combine) or name in ALONE:
            found = {len(sizes) - len(shape_of(t)) + axis for t in tensors for axis in self.varied(t)}
            return frozenset(found) & every
        if isinstance(effect, Reshape) and tensors:
            own = self.varied(tensors[0])
            before = [axis for axis, size in enumerate(shape_of(tensors[0])) if size != 1]
            after = sorted(every)
            if [shape_of(tensors[0])[axis] for axis in before] == [sizes[axis] for axis in after]:
                return frozenset(new for old, new in zip(before, after, strict=True) if old in own)
            return every if own else own
        return every


def _by_value(tensor: Tensor) -> frozenset[int] | None:
    """The axes along which the entries of a constant differ; None if its value is not known."""
    found = reader().constant(tensor)
    if found is None:
        return None
    axes = (axis for axis, size in enumerate(found.shape) if size > 1)
    return frozenset(axis for axis in axes if (found != found.take([0], axis)).any())


def plain(name: str) -> str:
    """The name of an operation in lower case, without underscores."""
    return name.replace("_", "").lower()
