"""Selects weights by patterns of paths and by roles."""

import difflib
import fnmatch
from collections.abc import Iterable, Sequence
from typing import TypeVar

from keras_initx._types import Patterns
from keras_initx.walk._site import KernelSite
from keras_initx.walk._variables import Weight

__all__ = ["matches", "matching", "prefixes", "select"]

_Site = TypeVar("_Site", bound=KernelSite | Weight)


def prefixes(path: str) -> list[str]:
    """Returns a path and the paths of the layers above it, from the outermost on.

    >>> prefixes("block/attention/query")
    ['block', 'block/attention', 'block/attention/query']

    Args:
        path: A path within a model.
    """
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]


def matches(weight: KernelSite | Weight, pattern: str) -> bool:
    """Tells whether a pattern is a weight's role, or fits its path or the path of a layer above it.

    Args:
        weight: A kernel or another weight.
        pattern: A role, a path, or a pattern of paths with `*` and `?`; `lora_*` for all adapters.
    """
    # `lora_*` means both factors of adapters, wherever they are.
    role = isinstance(weight, KernelSite) and weight.is_factor and fnmatch.fnmatchcase(weight.role, pattern)
    paths = prefixes(weight.path)
    return role or pattern == weight.role or any(fnmatch.fnmatchcase(path, pattern) for path in paths)


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
            f"`{argument}` must hold roles, or patterns of paths, of the model. Received: {pattern!r}. "
            f"Nearest known: {near}."
        )
    return found


def select(weights: Sequence[_Site], include: Patterns | None, exclude: Patterns | None) -> list[_Site]:
    """Returns the weights that `include` names and `exclude` does not.

    Args:
        weights: Kernels and other weights.
        include: A pattern of paths or a role, or several; None for all weights.
        exclude: A pattern of paths or a role, or several; None for none.

    Returns:
        At least one weight.

    Raises:
        ValueError: If a pattern matches no weight, or no weight is left.
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
