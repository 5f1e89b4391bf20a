"""The columns of a report's table."""

from collections.abc import Sequence

from keras_initx.tables import Column, numbers, words

__all__ = ["columns_of"]

# Short titles, so that ten numbers fit on a line of a terminal.
_NUMBERS = {
    "expected": "expected_std",
    "std": "preactivation_std",
    "gain": "forward_gain",
    "back": "backward_gain",
    "act std": "activation_std",
    "dead": "dead",
    "satur.": "saturated",
    "cos": "correlation",
    "grad std": "gradient_std",
    "update": "update_ratio",
}


def columns_of(rows: Sequence[object]) -> tuple[Column, ...]:
    """Returns the columns. The tooltip of a short title is the name of the attribute of the row.

    Args:
        rows: Objects with the attributes of a `SignalRow`.
    """
    texts = {name: [getattr(row, name) for row in rows] for name in ("path", "role", "note")}
    values = {title: [getattr(row, name) for row in rows] for title, name in _NUMBERS.items()}
    return (
        words("path", texts["path"]),
        words("role", texts["role"]),
        *(numbers(title, values[title], ".3g", about=name) for title, name in _NUMBERS.items()),
        words("note", texts["note"], note=True),
    )
