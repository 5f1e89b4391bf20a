"""Tensors that are a weight in another form: which axis of the weight stands on which axis of the tensor.

A weight seldom meets its product as it is. It is cast, transposed, reshaped from (in, heads, dim) to (in,
heads * dim), cut into parts or put beside others. `Piece` follows its axes through all of these. Each axis of
the tensor is a list of factors, the slowest first:

    weight (8, 4, 16)                    [8 of axis 0] [4 of axis 1] [16 of axis 2]
    reshaped to (8, 64)                  [8 of axis 0] [4 of axis 1, 16 of axis 2]
    transposed                           [4 of axis 1, 16 of axis 2] [8 of axis 0]

A factor may be a part of an axis: (8, 64) reshaped to (8, 4, 16) is [8 of axis 0] [4 of axis 1] [16 of axis
1]. The outputs of a product are followed in the same way, with the axes of the signal as axis None.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from keras_initx._types import Tensor, Variable

__all__ = [
    "Dims", "Factor", "Piece", "broadcast", "fits", "moved", "of_shape", "repeats", "reshaped", "shape_of",
    "shrunk", "size_of", "sizes_of", "tiled", "with_change", "with_dims",
]  # fmt: skip


class Factor(NamedTuple):
    """A part of an axis of a weight.

    Attributes:
        axis: The axis; None for an axis of a signal.
        size: Number of entries.
    """

    axis: int | None
    size: int


# For each axis of a tensor its factors, the slowest first. Axes of size 1 have none.
Dims: TypeAlias = tuple[tuple[Factor, ...], ...]


@dataclasses.dataclass(frozen=True)
class Piece:
    """A weight, or a part of it, within a tensor.

    Attributes:
        variable: The weight.
        dims: Its factors on each axis of the tensor; None if they are not known any more.
        change: What was computed with the weight on the way, so that the tensor is not linear in it; empty if
            it was only moved.
        alone: Whether it is the whole tensor; a concatenation holds other pieces beside it.
    """

    variable: Variable
    dims: Dims | None
    change: str = ""
    alone: bool = True


def of_shape(shape: Sequence[int]) -> Dims:
    """Returns the factors of a weight as it is."""
    return tuple((Factor(axis, size),) if size != 1 else () for axis, size in enumerate(shape))


def moved(dims: Dims, axes: Sequence[int | None], shape: Sequence[int]) -> Dims:
    """Returns the factors after a transpose or broadcast: for each new axis the old one, or None.

    Axes along which the weight repeats count as the signal's.
    """
    old = (() if axis is None else dims[axis] for axis in axes)
    return tuple(
        factors or ((Factor(None, size),) if size != 1 else ())
        for factors, size in zip(old, shape, strict=True)
    )


def shrunk(dims: Dims, shape: Sequence[int]) -> Dims | None:
    """Returns the factors after a slice to a shape of as many axes; None if they cannot be told."""
    found = []
    for factors, size in zip(dims, shape, strict=True):
        if math.prod(f.size for f in factors) == size or size == 1:
            found.append(factors if size != 1 else ())
        elif len(factors) == 1:
            found.append((Factor(factors[0].axis, size),))
        elif size % math.prod(f.size for f in factors[1:]) == 0:
            # Whole blocks of the slowest factor: some of the heads, say.
            rest = math.prod(f.size for f in factors[1:])
            found.append((Factor(factors[0].axis, size // rest), *factors[1:]))
        else:
            return None
    return tuple(found)


def reshaped(dims: Dims, shape: Sequence[int]) -> Dims | None:
    """Returns the factors under another shape of as many elements; None if they do not fit.

    >>> reshaped(of_shape((8, 4, 16)), (8, 64))[1]
    (Factor(axis=1, size=4), Factor(axis=2, size=16))
    """
    left = [factor for factors in dims for factor in factors]
    if math.prod(factor.size for factor in left) != math.prod(shape):
        return None
    found = []
    for size in shape:
        taken: list[Factor] = []
        while size > 1:
            factor = left.pop(0)
            if size % factor.size == 0:
                taken.append(factor)
                size //= factor.size
            elif factor.size % size == 0:
                taken.append(Factor(factor.axis, size))
                left.insert(0, Factor(factor.axis, factor.size // size))
                size = 1
            else:
                return None
        found.append(tuple(taken))
    return tuple(found)


def tiled(dims: Dims, shape: Sequence[int]) -> Dims:
    """Returns the factors after a tensor was repeated to a larger shape, which may have new axes in front."""
    padded = (*((),) * (len(shape) - len(dims)), *dims)
    times = [size // size_of(factors) for factors, size in zip(padded, shape, strict=True)]
    return tuple(
        (Factor(None, count), *factors) if count != 1 else factors
        for count, factors in zip(times, padded, strict=True)
    )


def with_dims(piece: Piece, dims: Dims | None) -> Piece:
    """Returns a piece with other factors."""
    return Piece(piece.variable, dims, piece.change, piece.alone)


def with_change(piece: Piece, change: str) -> Piece:
    """Returns a piece that is not linear in its weight any more; the first change is told."""
    return Piece(piece.variable, piece.dims, piece.change or change, piece.alone)


def broadcast(dims: Dims | None, shape: tuple[int, ...]) -> Dims | None:
    """Returns the factors on the last axes of a larger shape, along whose other axes the weight repeats."""
    if dims is None or len(dims) > len(shape):
        return None
    added = len(shape) - len(dims)
    return moved(dims, (*(None,) * added, *range(len(dims))), shape)


def fits(piece: Piece, dims: Dims, shape: tuple[int, ...]) -> bool:
    """Whether a weight that is added to a product has entries for units of the product only."""
    own = broadcast(piece.dims, shape)
    if own is None or len(dims) != len(shape):
        return False
    return all(
        not any(f.axis is not None for f in factors)
        or (bool(units) and all(f.axis is not None for f in units) and size_of(factors) == size_of(units))
        for factors, units in zip(own, dims, strict=True)
    )


def repeats(piece: Piece) -> bool:
    """Whether a tensor holds its weight several times, as a broadcast to a batch does."""
    axes = {f.axis for factors in piece.dims or () for f in factors if f.size > 1}
    return None in axes and len(axes) > 1


def size_of(factors: Sequence[Any]) -> int:
    """Returns the number of entries of some factors."""
    size = 1
    for factor in factors:
        size *= factor.size
    return size


def sizes_of(dims: Dims | None) -> tuple[int, ...] | None:
    """Returns the sizes of the axes."""
    return None if dims is None else tuple(size_of(factors) for factors in dims)


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """Returns the shape of a tensor as ints; -1 for an axis that a graph leaves open."""
    return tuple(-1 if size is None else int(size) for size in tensor.shape)
