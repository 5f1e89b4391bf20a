"""Rows of input on which signatures are tried.

They are drawn if the user gave none. The proof of row-wise signatures also needs extreme rows: if rows meet
at all, the values of an extreme row show in the answers to other rows.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from keras_initx._types import Model
from keras_initx.walk import input_specs

if TYPE_CHECKING:
    import tensorflow as tf

_ROWS = 2
_OPEN = 32  # the length of an open axis in drawn rows
_OTHER_LENGTHS = (7, 64)  # of open axes: an odd length and a long one
_GIVEN = 6  # how many of a user's rows the proof tries
# The values of extreme rows. A small weight hides a leak of ordinary numbers, but not of 1e4 or 1e30. A
# product with zero hides these too, but not NaN and infinity: 0 * NaN and 0 * infinity are NaN.
_FLOATS = {"zeros": 0.0, "large": 1e4, "huge": 1e30, "nan": np.nan, "inf": np.inf}

# For each input of a model: a shape that the model runs on, and the size of its vocabulary.
Hints: TypeAlias = Sequence[tuple[tuple[int | None, ...], int | None]]
# The integers to draw from: the lowest, and one more than the highest. None for an input of other things.
_Range: TypeAlias = tuple[int, int] | None


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One row of input.

    Attributes:
        leaves: An array with one row for each input.
        ordinary: True if the row's own answer is compared. The answers of extreme rows are not compared:
            they serve as neighbours only.
    """

    leaves: list[np.ndarray]
    ordinary: bool


def hints_of(model: Model) -> Hints:
    """Returns a shape and a vocabulary size for each input of a model, as far as a trace tells them.

    Args:
        model: A built model.
    """
    return input_specs(model) if hasattr(model, "inputs") else []


def fixed_batch(model: Model) -> int | None:
    """Returns the only batch size that a model takes, or None if it takes all sizes.

    Args:
        model: A built model.
    """
    shapes = [tensor.shape for tensor in getattr(model, "inputs", None) or ()]
    return next((shape[0] for shape in shapes if shape and shape[0]), None)


def draw_rows(
    specs: Sequence["tf.TensorSpec"], hints: Hints = (), size: int | None = None
) -> list[np.ndarray]:
    """Draws rows for a signature: unit-Gaussian floats, integers of the vocabulary or ones, letters.

    Args:
        specs: The inputs of the signature.
        hints: The hints, from `hints_of`.
        size: The number of rows; None for two.
    """
    rng = np.random.default_rng(0)
    rows = []
    for number, spec in enumerate(specs):
        shape, limit = hints[number] if number < len(hints) else ((), None)
        shape = shape if len(shape) == len(spec.shape) else (None,) * len(spec.shape)
        lengths = [own or given or _OPEN for own, given in zip(spec.shape, shape, strict=True)][1:]
        rows.append(_draw(rng, spec, (size or _ROWS, *lengths), (0, limit) if limit else None))
    return rows


def groups_of_rows(
    specs: Sequence["tf.TensorSpec"], rows: Sequence[np.ndarray], hints: Hints = ()
) -> list[list[Row]]:
    """Returns groups of rows to try next to each other.

    All rows of a group have one shape, because a server joins only requests of one shape.

    Args:
        specs: The inputs of a signature; all of them take numbers.
        rows: Rows that the signature takes.
        hints: The hints, from `hints_of`.
    """
    shapes = [tuple(leaf.shape[1:]) for leaf in rows]
    found = [shapes]
    # A model may treat short and long rows in different ways, for example with windows of a fixed length.
    if any(size is None for spec in specs for size in spec.shape[1:]):
        found += [
            [tuple(length if size is None else size for size in spec.shape[1:]) for spec in specs]
            for length in _OTHER_LENGTHS
        ]
    limits = [hints[number][1] if number < len(hints) else None for number in range(len(rows))]
    return [_group(specs, rows, limits, shapes) for shapes in found]


def batches_of_rows(rows: Sequence[Row], large: Sequence[int]) -> Iterator[list[Row]]:
    """Yields the batches in which rows are tried next to each other, from pairs to large ones.

    Args:
        rows: Rows of one group, with one ordinary row or more.
        large: The sizes of the large batches.
    """
    rng = np.random.default_rng(2)
    ordinary = [row for row in rows if row.ordinary]
    one, two = ordinary[0], ordinary[-1]
    # In both orders: a running sum, for example, changes only the rows behind.
    for row in rows:
        yield [one, row]
        yield [row, one]
    # Equal rows compete for the same place: a router with a capacity sends them to one expert.
    for row in (one, two):
        yield [row] * 8
    others = [row for row in rows if not row.ordinary] or rows
    for row in others:
        yield [row, two, one]
    # A batch of 8 is drawn from the ordinary rows and all extreme ones. A large batch holds every ordinary
    # row, and is filled with any rows.
    for size in (8, *large):
        more = rng.integers(0, len(rows), max(0, size - len(ordinary)))
        mixed = [*ordinary, *(others if size == 8 else [rows[n] for n in more])]
        for _ in range(2 if size == 8 else 1):
            yield [mixed[n] for n in np.resize(rng.permutation(len(mixed)), size)]
        if size > 8:
            yield [one] * size


def _group(
    specs: Sequence["tf.TensorSpec"],
    rows: Sequence[np.ndarray],
    limits: Sequence[int | None],
    shapes: Sequence[tuple[int, ...]],
) -> list[Row]:
    """Returns rows of one shape: some of the given rows, two that are drawn, and the extreme rows."""
    rng = np.random.default_rng(1)
    # Rows that stand far from each other: data in order of their labels differ more that way.
    chosen = sorted({*np.linspace(0, len(rows[0]) - 1, _GIVEN).astype(int).tolist()})
    # For another length, `resize` cuts a given row, or repeats it.
    given = [np.resize(leaf, (len(leaf), *shape))[chosen] for leaf, shape in zip(rows, shapes, strict=True)]
    found = [Row([leaf[n : n + 1] for leaf in given], ordinary=True) for n in range(len(chosen))]
    sides = [_range(leaf, limit) for leaf, limit in zip(rows, limits, strict=True)]
    sized = [(spec, (1, *shape), side) for spec, shape, side in zip(specs, shapes, sides, strict=True)]
    for _ in range(2):
        found.append(Row([_draw(rng, *one) for one in sized], ordinary=True))
    for kind in _FLOATS:
        found.append(Row([_extreme(rng, kind, *one) for one in sized], ordinary=False))
    return found


def _range(leaf: np.ndarray, limit: int | None) -> _Range:
    """Returns the integers to draw from: the vocabulary if it is known, else the range of the rows."""
    if leaf.dtype.kind not in "iu":
        return None
    return (0, limit) if limit else (int(leaf.min()), int(leaf.max()) + 1)


def _draw(
    rng: np.random.Generator, spec: "tf.TensorSpec", shape: tuple[int, ...], side: _Range
) -> np.ndarray:
    """Draws ordinary values for one input."""
    if spec.dtype.is_floating:
        return rng.standard_normal(shape).astype(spec.dtype.as_numpy_dtype)
    if spec.dtype.name == "string":
        return np.full(shape, "a b", object)
    # Without a range, ones: a lookup by an integer that is too large would fail.
    drawn = rng.integers(*side, shape) if side else np.ones(shape)
    return drawn.astype(spec.dtype.as_numpy_dtype)


def _extreme(
    rng: np.random.Generator, kind: str, spec: "tf.TensorSpec", shape: tuple[int, ...], side: _Range
) -> np.ndarray:
    """Draws values of one of the kinds in `_FLOATS`; for integers, the ends of the range and other values."""
    if spec.dtype.is_floating:
        value = _FLOATS[kind]
        scaled = value * rng.standard_normal(shape) if kind in ("large", "huge") else np.full(shape, value)
        with np.errstate(over="ignore"):  # float16 makes infinity of 1e30, which leaks as well
            return scaled.astype(spec.dtype.as_numpy_dtype)
    low, high = side or (0, 2)
    end = {"zeros": 0, "large": high - 1, "nan": low, "inf": 1}.get(kind)
    # The vocabulary is often unknown, so "huge" draws any byte. A row that fails alone is left out later.
    drawn = rng.integers(0, 256, shape) if end is None and side else np.full(shape, end or 0)
    return drawn.astype(spec.dtype.as_numpy_dtype)
