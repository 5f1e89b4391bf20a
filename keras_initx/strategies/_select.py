"""Patterns of paths and roles, and the residual branches that they or the trace give."""

import fnmatch
from collections.abc import Sequence
from typing import Any

from keras_initx.walk import KernelSite

__all__ = ["ResidualBranch", "find_branches", "matches", "prefixes"]

_PLAIN = ("scale", "residual_scale")


class ResidualBranch:
    """The kernels and scales of one residual branch.

    Attributes:
        kernels: Its kernels.
        ends: Those of them whose output is added to the skip.
        scales: Scales of normalizations and residual scales between its last kernel and the sum.
        layers: Kernels one after another on the longest way through it.
    """

    def __init__(self, sites: Sequence[KernelSite], layers: int, ends: Sequence[KernelSite]) -> None:
        self.kernels = tuple(site for site in sites if site.role not in _PLAIN)
        self.ends = tuple(site for site in ends if site.role not in _PLAIN)
        self.scales = tuple(site for site in ends if site.role in _PLAIN)
        self.layers = layers


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


def find_branches(
    scheme: str, sites: Sequence[KernelSite], branches: Sequence[str] | None
) -> list[ResidualBranch]:
    """Returns the residual branches of a model, in the order in which they end.

    Args:
        scheme: Name of the strategy, for errors.
        sites: The model's sites.
        branches: Patterns of the layers that are branches; None to take those that the trace found.

    Returns:
        At least one branch.

    Raises:
        ValueError: If there is none.
    """
    found = _traced(sites) if branches is None else _given(sites, branches)
    if not found:
        failures = sorted({site.note for site in sites if site.note and site.depth is None})
        told = f" ({failures[0]})" if failures else ""
        raise ValueError(
            f"`{scheme}` is for models with residual branches, x + f(x). Received: a model in which the trace "
            f"found none{told}, branches={branches!r}. Name the layers that compute f by their paths, for "
            f'example {scheme}(branches=["block_*"]); paths: {[site.path for site in sites][:6]}.'
        )
    return found


def _traced(sites: Sequence[KernelSite]) -> list[ResidualBranch]:
    groups: dict[Any, list[KernelSite]] = {}
    for site in sites:
        if site.branch:
            groups.setdefault(site.branch, []).append(site)
    return [
        ResidualBranch(groups[branch], branch.layers, [site for site in groups[branch] if site.ends_branch])
        for branch in sorted(groups, key=lambda branch: branch.index)
    ]


def _given(sites: Sequence[KernelSite], branches: Sequence[str]) -> list[ResidualBranch]:
    """A branch is what lies below one layer that a pattern names; its last kernel ends it."""
    patterns = [branches] if isinstance(branches, str) else branches
    groups: dict[str, list[KernelSite]] = {}
    for site in sites:
        owner = next(
            (p for p in prefixes(site.path) if any(fnmatch.fnmatchcase(p, pattern) for pattern in patterns)),
            None,
        )
        if owner is not None:
            groups.setdefault(owner, []).append(site)
    found = []
    for members in groups.values():
        last = max((n for n, site in enumerate(members) if site.role not in _PLAIN), default=-1)
        if last >= 0:
            kernels = sum(site.role not in _PLAIN for site in members)
            found.append(ResidualBranch(members, kernels, members[last:]))
    return found
