"""The residual branches that patterns of paths, or the trace, give."""

import fnmatch
from collections.abc import Sequence
from typing import Any

from keras_initx._types import Model
from keras_initx.walk import KernelSite, prefixes

__all__ = ["ResidualBranch", "find_branches"]

_BESIDE_QUERY = ("key", "value")  # they take what the query takes, and make a branch no longer


class ResidualBranch:
    """The kernels and scales of one residual branch.

    Attributes:
        kernels: Its kernels.
        ends: Those of them whose output is added to the skip.
        scales: Scales of normalizations and residual scales between its last kernel and the sum.
        layers: Kernels one after another on the longest way through it.
    """

    def __init__(self, sites: Sequence[KernelSite], layers: int, ends: Sequence[KernelSite]) -> None:
        self.kernels = tuple(site for site in sites if not site.is_scale)
        self.ends = tuple(site for site in ends if not site.is_scale)
        self.scales = tuple(site for site in ends if site.is_scale)
        self.layers = layers

    @property
    def stops(self) -> tuple[KernelSite, ...]:
        """What to set to 0 for the branch to be 0: one factor on each way, else no gradient would get in."""
        last = [site for site in self.scales if site.role == "residual_scale"] or list(self.scales)
        if len(last) == 1 or (last and len(self.ends) == 1):
            return tuple(last[-1:])
        return self.ends  # scales on ways side by side, and one after another, look alike


def find_branches(
    scheme: str, sites: Sequence[KernelSite], branches: str | Sequence[str] | None, model: Model | None = None
) -> list[ResidualBranch]:
    """Returns the residual branches of a model, in the order in which they end.

    Args:
        scheme: Name of the strategy, for errors.
        sites: The model's sites.
        branches: Patterns of the layers that are branches; None to take those that the trace found.
        model: The model, for the order of kernels that the trace did not reach; None for that of the sites.

    Returns:
        At least one branch.

    Raises:
        ValueError: If there is none, a pattern matches none, or a branch ends in no known kernel.
    """
    found = _traced(sites) if branches is None else _given(_in_order(sites, model), branches)
    if not found:
        failures = sorted({site.note for site in sites if site.note and site.depth is None})
        told = f" ({failures[0]})" if failures else ""
        raise ValueError(
            f"`{scheme}` is for models with residual branches, x + f(x). Received: a model in which the "
            f"trace found none{told}, branches={branches!r}. Name the layers that compute f by their paths, "
            f'for example {scheme}(branches=["block_*"]); paths: {[site.path for site in sites][:6]}.'
        )
    endless = next((branch for branch in found if not branch.ends), None)
    if endless:
        raise ValueError(
            f"`{scheme}` needs the last kernel of each residual branch. Received: a branch with "
            f"`{endless.kernels[0].path}` that ends in another layer. Teach it with "
            f'keras_initx.walk.register, or name the branches: {scheme}(branches=["block_*"]).'
        )
    return found


def _in_order(sites: Sequence[KernelSite], model: Model) -> Sequence[KernelSite]:
    """Sites in the order in which the layers run or, without a trace, in which their owners name them."""
    if model is None:
        return sites
    # Keras lists the layers within a layer backwards, but their variables forwards.
    rank = {id(variable): n for n, variable in enumerate(model.variables)}
    return sorted(sites, key=lambda s: (s.position is None, s.position or 0, rank.get(id(s.kernel), 0)))


def _fits(path: str, pattern: object) -> bool:
    return isinstance(pattern, str) and fnmatch.fnmatchcase(path, pattern)


def _traced(sites: Sequence[KernelSite]) -> list[ResidualBranch]:
    groups: dict[Any, list[KernelSite]] = {}
    for site in sites:
        if site.branch:
            groups.setdefault(site.branch, []).append(site)
    return [
        ResidualBranch(groups[branch], branch.layers, _ends(groups[branch]))
        for branch in sorted(groups, key=lambda branch: branch.index)
        if any(not site.is_scale for site in groups[branch])
    ]


def _ends(sites: Sequence[KernelSite]) -> list[KernelSite]:
    """Of a taught layer, whose kernels the trace finds at one place, the one that was named last."""
    ends = [site for site in sites if site.ends_branch]
    last = {id(site.layer): site for site in ends if site.taught and not site.is_scale}
    return [site for site in ends if last.get(id(site.layer), site) is site or site.is_scale]


def _given(sites: Sequence[KernelSite], branches: str | Sequence[str]) -> list[ResidualBranch]:
    """A branch is what lies below one layer that a pattern names; its last kernel ends it."""
    patterns = [branches] if isinstance(branches, str) else branches
    groups: dict[str, list[KernelSite]] = {}
    unused = list(patterns)
    for site in sites:
        fitting = [(path, p) for path in prefixes(site.path) for p in patterns if _fits(path, p)]
        if fitting:
            groups.setdefault(fitting[0][0], []).append(site)
            unused = [p for p in unused if all(p != used for _, used in fitting)]
    if unused:
        raise ValueError(
            "`branches` must hold patterns of the paths of layers that hold kernels. Received: "
            f"{unused[0]!r}, which fits none of {[site.path for site in sites][:6]} nor a layer above."
        )
    found = []
    for members in groups.values():
        last = max((n for n, site in enumerate(members) if not site.is_scale), default=-1)
        if last >= 0:
            kernels = sum(not site.is_scale and site.role not in _BESIDE_QUERY for site in members)
            # A layer may make its scale before its kernels; a residual scale is the end wherever it is.
            scales = [site for site in members[:last] if site.role == "residual_scale"]
            found.append(ResidualBranch(members, kernels, [*scales, *members[last:]]))
    return found
