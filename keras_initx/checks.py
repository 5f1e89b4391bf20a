"""Checks of arguments that several rooms take, each with one message, and how an error is told in a line.

A check returns the value in a plain type, or raises ValueError with the argument in backticks, the rule and
what was received. It never changes what it checks. Checks of one room's own arguments stay in that room.
"""

import math
import numbers
import re
from collections.abc import Collection, Iterator
from typing import TypeGuard

import numpy as np

__all__ = [
    "check_choice",
    "check_count",
    "check_finite",
    "check_positive",
    "check_seed",
    "check_switch",
    "first_line",
    "is_number",
    "is_whole",
    "said_lines",
]

# What Keras and TensorFlow put around the text of an error: bold type, and the names of graph functions.
_DRESS = re.compile(r"\x1b\[\d+m|\{\{.*?\}\} *")
_PREAMBLE = "Exception encountered"  # "... when calling Dense.call()", the line above the layer's own error


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number of Python or NumPy; bools are not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a real number of Python or NumPy, NaN and infinity included; bools are not."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_seed(seed: object) -> int | None:
    """Returns a seed as an int or None.

    >>> check_seed(np.int64(3)), check_seed(None)
    (3, None)

    Raises:
        ValueError: If it is neither None nor an int of at least 0.
    """
    if seed is None:
        return None
    if not is_whole(seed) or seed < 0:
        raise ValueError(f"`seed` must be None or an int of at least 0. Received: seed={seed!r}.")
    return int(seed)


def check_switch(name: str, value: object) -> bool:
    """Returns a switch as a bool.

    Args:
        name: Name of the argument.
        value: What was given for it.

    Raises:
        ValueError: If it is not a bool of Python or NumPy. A string such as "False" would count as true.
    """
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"`{name}` must be True or False. Received: {name}={value!r}.")
    return bool(value)


def check_positive(name: str, value: object) -> float:
    """Returns a positive, finite number as a float.

    >>> check_positive("gain", 2)
    2.0

    Args:
        name: Name of the argument.
        value: What was given for it.

    Raises:
        ValueError: If it is anything else, a bool included.
    """
    if not is_number(value) or not 0 < float(value) < math.inf:
        raise ValueError(f"`{name}` must be a positive, finite number. Received: {name}={value!r}.")
    return float(value)


def check_finite(name: str, value: object) -> float:
    """Returns a finite number as a float.

    Args:
        name: Name of the argument.
        value: What was given for it.

    Raises:
        ValueError: If it is anything else, a bool included.
    """
    if not is_number(value) or not math.isfinite(value):
        raise ValueError(f"`{name}` must be a finite number. Received: {name}={value!r}.")
    return float(value)


def check_count(name: str, value: object, least: int = 1) -> int:
    """Returns a whole number as an int.

    >>> check_count("retries", 0, least=0)
    0

    Args:
        name: Name of the argument.
        value: What was given for it.
        least: The smallest number that is allowed.

    Raises:
        ValueError: If it is not a whole number, or below `least`.
    """
    if not is_whole(value) or value < least:
        raise ValueError(f"`{name}` must be an int of at least {least}. Received: {name}={value!r}.")
    return int(value)


def check_choice(name: str, value: object, allowed: Collection[str]) -> str:
    """Returns one of several words.

    >>> check_choice("mode", "fan", ("fan_out", "fan_in"))
    Traceback (most recent call last):
    ValueError: `mode` must be one of ['fan_in', 'fan_out']. Received: mode='fan'.

    Args:
        name: Name of the argument.
        value: What was given for it.
        allowed: The words; the error lists them in alphabetical order.

    Raises:
        ValueError: If it is none of them.
    """
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"`{name}` must be one of {sorted(allowed)}. Received: {name}={value!r}.")
    return str(value)


def said_lines(text: str) -> Iterator[str]:
    """Yields the lines of an error's text that say something, without what Keras puts around them."""
    lines = (line.strip() for line in _DRESS.sub("", text).splitlines())
    return (line for line in lines if line and not line.startswith(_PREAMBLE))


def first_line(error: BaseException, *, kind: bool = False) -> str:
    r"""Returns in one line what an error says.

    >>> error = ValueError("Exception encountered when calling Dense.call().\n\nToo wide.\n\nArguments")
    >>> first_line(error), first_line(error, kind=True), first_line(KeyError())
    ('Too wide.', 'ValueError: Too wide.', 'KeyError')

    Args:
        error: The error.
        kind: Whether the name of its class comes first.

    Returns:
        The first line of its text that says something. Of an error without text, the name of its class.
    """
    name = type(error).__name__
    said = next(said_lines(str(error)), "")
    return (f"{name}: {said}" if kind else said) if said else name
