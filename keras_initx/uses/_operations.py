"""Operations of the backends in common words: what each does to the axes of its operands.

A backend runs hundreds of operations. For a weight only a few matter, and all backends name them by other
names and order their axes in other ways. The three readers (`_tensorflow`, `_jax`, `_torch`) translate each
operation that takes a weight into one of the effects below. `_tracker` knows these effects and no backend.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from keras_initx._types import Tensor

__all__ = [
    "Across",
    "Combine",
    "Concatenate",
    "Contract",
    "Convolve",
    "Effect",
    "Gather",
    "Inner",
    "Move",
    "Operation",
    "Other",
    "Reduce",
    "Reshape",
    "Shrink",
    "Tile",
]


@dataclasses.dataclass(frozen=True)
class Contract:
    """A product that sums over axes: a matrix product, an einsum.

    Equal labels are one index. A label of both operands that the output lacks is summed; one of both operands
    and the output is a batch axis. None labels an axis of size 1 that is broadcast.

    Attributes:
        left: Labels of the axes of the first operand.
        right: Labels of the axes of the second operand.
        out: Labels of the axes of the output.
        operands: Places of the two operands among the operation's inputs.
        shift: Place of an input that is added to the product, as `addmm` does; None for none.
    """

    left: tuple[int | str | None, ...]
    right: tuple[int | str | None, ...]
    out: tuple[int | str | None, ...]
    operands: tuple[int, int] = (0, 1)
    shift: int | None = None


@dataclasses.dataclass(frozen=True)
class Convolve:
    """A convolution, whose kernel is its second input.

    Attributes:
        field: Axes of the kernel that run over the map.
        inputs: Axis of the kernel that is summed; its size is the channels of one group.
        outputs: Axis of the kernel with the output channels of all groups.
        channels: Axis of the output that holds the channels.
        groups: Number of groups.
        strides: For each axis of the field, the stride; of a transposed convolution, the factor by which the
            output is larger.
        dilation: For each axis of the field, the distance of taps.
        padding: For each axis of the field, the zeros before and after the map; None if not known.
        transposed: Whether it is the transpose of a convolution: `strides` spread its inputs.
        shift: Place of an input that is added to the output; None for none.
        depthwise: Whether `inputs` counts the groups in place of the summed channels: TensorFlow's depthwise
            kernels are (*field, channels, multiplier).
    """

    field: tuple[int, ...]
    inputs: int
    outputs: int
    channels: int
    groups: int = 1
    strides: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] | None = None
    transposed: bool = False
    shift: int | None = None
    depthwise: bool = False


@dataclasses.dataclass(frozen=True)
class Gather:
    """A lookup of rows in its first input.

    Attributes:
        axis: Axis of the table that the indices run over.
        rest: For each other axis of the table, in order, its place in the output.
        table: Place of the table among the inputs.
    """

    axis: int
    rest: tuple[int, ...]
    table: int = 0


@dataclasses.dataclass(frozen=True)
class Move:
    """A transpose, a broadcast, a cast or a copy.

    Attributes:
        axes: For each axis of the output, the axis of the input, or None for a new axis.
        pads: For axes of the output that have constants before and after the entries, their numbers; negative
            numbers cut entries off.
        turned: Axes of the output whose entries are in the reverse order.
    """

    axes: tuple[int | None, ...]
    pads: Mapping[int, tuple[int, int]] = dataclasses.field(default_factory=dict)
    turned: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Reshape:
    """The same elements in the same order under another shape."""


@dataclasses.dataclass(frozen=True)
class Shrink:
    """A slice, which keeps some of the entries; a split has several outputs.

    Attributes:
        axes: For each axis of the output, the axis of the input, or None for a new axis. None if the output
            has all axes of the input, in order.
        source: Place of the tensor that is cut among the inputs.
        first: For axes of the input that are cut, the number of the first entry that is kept, where it is
            known.
    """

    axes: tuple[int | None, ...] | None = None
    source: int = 0
    first: Mapping[int, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Tile:
    """A tensor several times in a row along some axes, which may be new ones in front."""


@dataclasses.dataclass(frozen=True)
class Concatenate:
    """The first inputs side by side along one axis, or stacked along a new one.

    Attributes:
        axis: The axis of the output.
        count: Number of the inputs that it takes; the others are options.
        stacked: Whether the axis is a new one.
    """

    axis: int
    count: int
    stacked: bool = False


@dataclasses.dataclass(frozen=True)
class Combine:
    """An operation of two operands element by element, with broadcasting.

    Attributes:
        how: `adds` (also a difference), `scales`, `divides` (the first by the second), or `other`.
        operands: Places of the two operands among the inputs.
    """

    how: Literal["adds", "scales", "divides", "other"]
    operands: tuple[int, int] = (0, 1)


@dataclasses.dataclass(frozen=True)
class Reduce:
    """A sum, mean, or other number of all entries along some axes.

    Attributes:
        axes: The axes of the input.
        keeps: Whether the axes stay in the output, with size 1.
    """

    axes: tuple[int, ...]
    keeps: bool = False


@dataclasses.dataclass(frozen=True)
class Across:
    """A function of all entries along some axes, which keeps the axes: a softmax, a cumulative sum.

    Attributes:
        axes: The axes. None for all.
    """

    axes: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Inner:
    """A loop or branch whose operations were shown one by one: it counts for nothing itself."""


@dataclasses.dataclass(frozen=True)
class Other:
    """Anything else."""


Effect: TypeAlias = (
    Contract
    | Convolve
    | Gather
    | Move
    | Reshape
    | Shrink
    | Tile
    | Concatenate
    | Combine
    | Reduce
    | Across
    | Inner
    | Other
)


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation that ran.

    Attributes:
        name: The backend's name for it.
        inputs: Its operands: tensors, numbers and None.
        outputs: Its results.
        raw: What the backend's reader needs for the effect.
    """

    name: str
    inputs: Sequence[Any]
    outputs: Sequence[Tensor]
    raw: Any = None
