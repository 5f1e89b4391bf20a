"""Which weights patterns of paths and roles stand for."""

import difflib
import fnmatch
from collections.abc import Iterable, Sequence
from typing import TypeVar

from keras_initx._types import Patterns
from keras_initx.walk._sites import KernelSite
from keras_initx.walk._variables import Weight

__all__ = ["matches", "matching", "prefixes", "select"]

_Site = TypeVar("_Site", bound=KernelSite | Weight)


def prefixes(path: str) -> list[str]:
    """Returns a path and the layers above it, from the outermost on.

    >>> prefixes("block/attention/query")
    ['block', 'block/attention', 'block/attention/query']
    """
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]


def matches(weight: KernelSite | Weight, pattern: str) -> bool:
    """Tells whether a pattern is a weight's role or path, a layer above it, or a wildcard of one of these."""
    return pattern == weight.role or any(fnmatch.fnmatchcase(path, pattern) for path in prefixes(weight.path))


def matching(weights: Sequence[_Site], pattern: object, argument: str) -> list[_Site]:
    """Returns the weights that a pattern matches.

    Args:
        weights: The weights to choose from.
        pattern: A pattern of paths, or a role.
        argument: The argument that brought the pattern, for the error.

    Raises:
        ValueError: If the pattern matches no weight. The message names the nearest paths and roles.
    """
    found = [weight for weight in weights if isinstance(pattern, str) and matches(weight, pattern)]
    if not found:
        known = sorted({weight.role for weight in weights} | {weight.path for weight in weights})
        near = difflib.get_close_matches(str(pattern), known, n=3, cutoff=0.4) or known[:10]
        raise ValueError(
            f"`{argument}` must hold patterns of paths, or roles, that the model has. Received: {pattern!r}. "
            f"Nearest known: {near}."
        )
    return found


def select(weights: Sequence[_Site], include: Patterns | None, exclude: Patterns | None) -> list[_Site]:
    """Returns the weights that `include` names and `exclude` does not.

    Args:
        weights: Whatever has a `path` and a `role`.
        include: A pattern of paths or a role, or several; None for all.
        exclude: The same; None for none.

    Returns:
        At least one weight.

    Raises:
        ValueError: If a pattern fits nothing, or nothing is left.
    """
    chosen = list(weights)
    for name, patterns, keep in (("include", include, True), ("exclude", exclude, False)):
        if patterns is None:
            continue
        several = isinstance(patterns, Iterable) and not isinstance(patterns, str)
        listed: list[object] = list(patterns) if several else [patterns]
        found = {id(weight) for pattern in listed for weight in matching(weights, pattern, name)}
        chosen = [weight for weight in chosen if (id(weight) in found) == keep]
    if not chosen:
        raise ValueError(
            f"`include` and `exclude` must leave some weights. Received: include={include!r}, "
            f"exclude={exclude!r}."
        )
    return chosen
