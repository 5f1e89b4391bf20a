"""Tables with rows that stand for something: positions of a grid, and tokens or classes with new rows."""

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["NEW_ROWS", "check_grid", "fill_new", "grid_of", "resample", "resize_positions"]

NEW_ROWS = ("like", "mean", "normal", "zeros")
_SPREAD = 1e-5  # of the covariance of the old rows, as in Hewitt's code
_SHARPNESS = -0.5  # Keys' cubic


def fill_new(
    rows: np.ndarray,
    new: np.ndarray,
    old: np.ndarray,
    law: str,
    like: Mapping[int, Sequence[int]],
    generator: np.random.Generator,
) -> np.ndarray:
    """Returns rows with values for those that the donor does not have.

    Args:
        rows: All rows.
        new: Numbers of the rows to fill.
        old: All rows of the donor.
        law: One of `NEW_ROWS`.
        like: For new rows, the rows of the donor whose mean they take; the others follow the law.
        generator: For `"normal"`.
    """
    found, flat = rows.copy(), old.reshape(len(old), -1).astype("float64")
    mean = flat.mean(axis=0)
    drawn = np.zeros((len(new), flat.shape[1]))
    if law == "normal":
        # The covariance of n rows has n - 1 directions: combinations of the rows have it exactly, and take
        # less memory than a matrix.
        weights = generator.standard_normal((len(new), len(flat))) / math.sqrt(max(len(flat) - 1, 1))
        drawn = mean + math.sqrt(_SPREAD) * weights @ (flat - mean)
    elif law != "zeros":
        drawn += mean
    for number, row in enumerate(new):
        if row in like:
            drawn[number] = flat[list(like[row])].mean(axis=0)
    found[new] = drawn.reshape(len(new), *rows.shape[1:])
    return found


def check_grid(grid: Any) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Returns two grids of positions; raises ValueError if they are no pairs of positive integers."""
    if grid is None:
        return None
    try:
        (rows, columns), (own_rows, own_columns) = grid
        sides = [operator.index(side) for side in (rows, columns, own_rows, own_columns)]
    except (TypeError, ValueError):
        sides = [0]
    if min(sides) < 1 or any(isinstance(side, bool) for pair in grid for side in pair):
        raise ValueError(
            "`grid` must be two pairs of positive integers, height and width of the positions in the donor "
            f"and in the model. Received: grid={grid!r}. Pass such as grid=((14, 20), (16, 16))."
        )
    return (sides[0], sides[1]), (sides[2], sides[3])


def grid_of(rows: int, donor: int) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Returns the square grids of a donor and of a model with these numbers of rows; None if there are none.

    >>> grid_of(17, 197)  # 14 x 14 patches and 4 x 4, each after a class token
    ((14, 14), (4, 4))
    """
    for prefix in range(3):
        first, second = (math.isqrt(max(count - prefix, 0)) for count in (donor, rows))
        if first > 1 and second > 1 and (first**2, second**2) == (donor - prefix, rows - prefix):
            return (first, first), (second, second)
    return None


def resize_positions(
    table: np.ndarray, rows: int, grid: tuple[tuple[int, int], tuple[int, int]] | None
) -> np.ndarray:
    """Returns a table of positions with another number of rows, on the first axis.

    Args:
        table: The donor's table.
        rows: The number of rows.
        grid: Height and width of the donor's positions, and of the model's: the table is resampled, without
            the rows before the grid. None for positions in a line: the first stay, and begin anew after the
            last.
    """
    if grid is None:
        return table[np.arange(rows) % len(table)]
    (height, width), new = grid
    prefix = len(table) - height * width
    cells = table[prefix:].reshape(height, width, *table.shape[1:])
    return np.concatenate([table[:prefix], resample(cells, new).reshape(-1, *table.shape[1:])])


def resample(cells: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
    """Returns a map of another height and width, by cubic interpolation (Keys 1981).

    The corners of both maps meet. Where the map gets smaller, the cubic is as wide as the new cells.
    """
    for axis, side in enumerate(sides):
        weights = _cubic(cells.shape[axis], side)
        cells = np.moveaxis(np.tensordot(weights, cells, (1, axis)), 0, axis)
    return cells


def _cubic(old: int, new: int) -> np.ndarray:
    """The share of each old cell in each new one."""
    scale = old / new
    width = max(scale, 1.0)
    centers = (np.arange(new) + 0.5) * scale - 0.5
    x, a = np.abs(np.arange(old) - centers[:, None]) / width, _SHARPNESS
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    weights = np.where(x <= 1, near, np.where(x < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)
