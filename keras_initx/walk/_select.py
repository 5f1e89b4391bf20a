"""Which weights patterns of paths and roles stand for."""

import difflib
import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["matches", "matching", "prefixes", "select"]


def prefixes(path: str) -> list[str]:
    """Returns a path and the layers above it, from the outermost on.

    >>> prefixes("block/attention/query")
    ['block', 'block/attention', 'block/attention/query']
    """
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]


def matches(weight: Any, pattern: str) -> bool:
    """Tells whether a pattern is a weight's role or path, a layer above it, or a wildcard of one of these."""
    return pattern == weight.role or any(fnmatch.fnmatchcase(path, pattern) for path in prefixes(weight.path))


def matching(weights: Sequence[Any], pattern: Any, argument: str) -> list[Any]:
    """Returns the weights that an argument's pattern matches, or raises ValueError if there is none."""
    found = [weight for weight in weights if isinstance(pattern, str) and matches(weight, pattern)]
    if not found:
        known = sorted({weight.role for weight in weights} | {weight.path for weight in weights})
        near = difflib.get_close_matches(str(pattern), known, n=3, cutoff=0.4) or known[:10]
        raise ValueError(
            f"`{argument}` must hold patterns of paths, or roles, that the model has. Received: {pattern!r}. "
            f"Nearest known: {near}."
        )
    return found


def select(weights: Sequence[Any], include: Any, exclude: Any) -> list[Any]:
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
        patterns = list(patterns) if several else [patterns]
        found = {id(weight) for pattern in patterns for weight in matching(weights, pattern, name)}
        chosen = [weight for weight in chosen if (id(weight) in found) == keep]
    if not chosen:
        raise ValueError(
            f"`include` and `exclude` must leave some weights. Received: include={include!r}, "
            f"exclude={exclude!r}."
        )
    return chosen
