"""Rows that signatures are tried on: drawn where a user gave none, and rows that would leak into others."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_initx.walk import input_specs

_ROWS = 2
_OPEN = 32  # how long an open axis is drawn
_OTHER_LENGTHS = (7, 64)
_GIVEN = 6  # of a user's rows
# What a leak multiplies: magnitudes that no scaling hides, and values that no product with zero hides.
_FLOATS = {"zeros": 0.0, "large": 1e4, "huge": 1e30, "nan": np.nan, "inf": np.inf}

Hints = Sequence[tuple[tuple[int | None, ...], int | None]]


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One row of input.

    Attributes:
        leaves: An array with one row for each input.
        ordinary: Whether its answer must not change; of others only the neighbours' must not.
    """

    leaves: list[np.ndarray]
    ordinary: bool


def hints_of(model: Any) -> Hints:
    """Returns for each input of a model a shape that it runs on and its vocabulary, as far as a trace tells.

    Args:
        model: A built model.
    """
    return input_specs(model) if hasattr(model, "inputs") else []


def fixed_batch(model: Any) -> int | None:
    """Returns the one batch size that a model was built for, or None.

    Args:
        model: A built model.
    """
    shapes = [tensor.shape for tensor in getattr(model, "inputs", None) or ()]
    return next((shape[0] for shape in shapes if shape and shape[0]), None)


def draw_rows(specs: Sequence[Any], hints: Hints = (), size: int | None = None) -> list[np.ndarray]:
    """Draws two rows for a signature: unit-Gaussian floats, integers of the vocabulary or ones, letters.

    Args:
        specs: Its inputs.
        hints: As `hints_of` returns them.
        size: How many rows where there must not be two.
    """
    rng = np.random.default_rng(0)
    rows = []
    for number, spec in enumerate(specs):
        shape, limit = hints[number] if number < len(hints) else ((), None)
        shape = shape if len(shape) == len(spec.shape) else (None,) * len(spec.shape)
        lengths = [own or given or _OPEN for own, given in zip(spec.shape, shape, strict=True)][1:]
        rows.append(_draw(rng, spec, (size or _ROWS, *lengths), (0, limit) if limit else None))
    return rows


def groups_of_rows(specs: Sequence[Any], rows: Sequence[np.ndarray], hints: Hints = ()) -> list[list[Row]]:
    """Returns rows to try next to each other, in groups of one shape: a server joins no others.

    Args:
        specs: The inputs of a signature, all numbers.
        rows: Rows that it takes.
        hints: As `hints_of` returns them.
    """
    shapes = [tuple(leaf.shape[1:]) for leaf in rows]
    found = [shapes]
    if any(size is None for spec in specs for size in spec.shape[1:]):
        found += [
            [tuple(length if size is None else size for size in spec.shape[1:]) for spec in specs]
            for length in _OTHER_LENGTHS
        ]
    limits = [hints[number][1] if number < len(hints) else None for number in range(len(rows))]
    return [_group(specs, rows, limits, shapes) for shapes in found]


def _group(
    specs: Sequence[Any], rows: Sequence[np.ndarray], limits: Sequence[int | None], shapes: Sequence[Any]
) -> list[Row]:
    rng = np.random.default_rng(1)
    chosen = sorted({*np.linspace(0, len(rows[0]) - 1, _GIVEN).astype(int).tolist()})
    given = [np.resize(leaf, (len(leaf), *shape))[chosen] for leaf, shape in zip(rows, shapes, strict=True)]
    found = [Row([leaf[n : n + 1] for leaf in given], ordinary=True) for n in range(len(chosen))]
    sides = [_range(leaf, limit) for leaf, limit in zip(rows, limits, strict=True)]
    sized = [(spec, (1, *shape), side) for spec, shape, side in zip(specs, shapes, sides, strict=True)]
    for _ in range(2):
        found.append(Row([_draw(rng, *one) for one in sized], ordinary=True))
    for kind in _FLOATS:
        found.append(Row([_extreme(rng, kind, *one) for one in sized], ordinary=False))
    return found


def _range(leaf: np.ndarray, limit: int | None) -> tuple[int, int] | None:
    """Between which integers to draw: those of the vocabulary, else those of the rows."""
    if leaf.dtype.kind not in "iu":
        return None
    return (0, limit) if limit else (int(leaf.min()), int(leaf.max()) + 1)


def _draw(
    rng: np.random.Generator, spec: Any, shape: tuple[int, ...], side: tuple[int, int] | None
) -> np.ndarray:
    if spec.dtype.is_floating:
        return rng.standard_normal(shape).astype(spec.dtype.as_numpy_dtype)
    if spec.dtype.name == "string":
        return np.full(shape, "a b", object)
    drawn = rng.integers(*side, shape) if side else np.ones(shape)
    return drawn.astype(spec.dtype.as_numpy_dtype)


def _extreme(
    rng: np.random.Generator, kind: str, spec: Any, shape: tuple[int, ...], side: tuple[int, int] | None
) -> np.ndarray:
    if spec.dtype.is_floating:
        value = _FLOATS[kind]
        scaled = value * rng.standard_normal(shape) if kind in ("large", "huge") else np.full(shape, value)
        with np.errstate(over="ignore"):  # in half precision
            return scaled.astype(spec.dtype.as_numpy_dtype)
    low, high = side or (0, 2)
    end = {"zeros": 0, "large": high - 1, "nan": low, "inf": 1}.get(kind)
    # Without a vocabulary, whatever a byte holds; a row that fails alone is left out.
    drawn = rng.integers(0, 256, shape) if end is None and side else np.full(shape, end or 0)
    return drawn.astype(spec.dtype.as_numpy_dtype)
