"""Finds the residual branches of a model, from the trace or from patterns of paths that a user gives."""

import fnmatch
from collections.abc import Sequence

from keras_initx._types import Model, Patterns
from keras_initx.walk import Branch, KernelSite, prefixes

__all__ = ["ResidualBranch", "find_branches"]

_BESIDE_QUERY = ("key", "value")  # side by side with the query: they do not make a branch longer


class ResidualBranch:
    """The kernels and scales of one residual branch.

    Attributes:
        sites: All kernels and scales of the branch.
        kernels: The kernels of the branch.
        ends: The kernels with an output that is added to the skip.
        scales: Scales of normalizations and residual scales between the last kernel and the sum.
        layers: Number of kernels in a row, on the longest way through the branch.
    """

    def __init__(self, sites: Sequence[KernelSite], layers: int, ends: Sequence[KernelSite]) -> None:
        self.sites = tuple(sites)
        self.kernels = tuple(site for site in sites if not site.is_scale)
        self.ends = tuple(site for site in ends if not site.is_scale)
        self.scales = tuple(site for site in ends if site.is_scale)
        self.layers = layers

    @property
    def stops(self) -> tuple[KernelSite, ...]:
        """The weights to set to 0 for the branch to be 0.

        Exactly one factor on each way: with two zeros in a row, neither gets a gradient.
        """
        last = [site for site in self.scales if site.role == "residual_scale"] or list(self.scales)
        if len(last) == 1 or (last and len(self.ends) == 1):
            return tuple(last[-1:])
        # Several scales and several ends: they may lie side by side or in a row, which cannot be told apart
        # here. The last kernels lie side by side, one on each way.
        return self.ends


def find_branches(
    strategy: str, sites: Sequence[KernelSite], branches: Patterns | None, model: Model | None = None
) -> list[ResidualBranch]:
    """Returns the residual branches of a model, in the order in which they end.

    Args:
        strategy: Name of the strategy, for errors.
        sites: The model's kernels.
        branches: Patterns of the layers that are branches. None to take the branches that the trace found.
        model: The model, which orders the kernels that the trace did not reach by its variables. None to
            take them in the order of `sites`.

    Returns:
        At least one branch.

    Raises:
        ValueError: If the model has no branch, a pattern matches nothing, or a branch ends in a layer that is
            not known.
    """
    found = _traced(sites) if branches is None else _given(_in_order(sites, model), branches)
    if not found:
        failures = sorted({site.note for site in sites if site.note and site.depth is None})
        told = f" ({failures[0]})" if failures else ""
        raise ValueError(
            f"`{strategy}` is for models with residual branches, x + f(x). Received: a model in which the "
            f"trace found none{told}, branches={branches!r}. Name the layers that compute f by their paths, "
            f'for example {strategy}(branches=["block_*"]). Paths: {[site.path for site in sites][:6]}.'
        )
    endless = next((branch for branch in found if not branch.ends), None)
    if endless:
        raise ValueError(
            f"`{strategy}` needs the last kernel of each residual branch. Received: a branch with "
            f"`{endless.kernels[0].path}` that ends in a layer that is not known. Teach the layer with "
            f'keras_initx.walk.register, or name the branches: {strategy}(branches=["block_*"]).'
        )
    return found


def _in_order(sites: Sequence[KernelSite], model: Model) -> Sequence[KernelSite]:
    """Sites in the order in which the layers run; without a trace, in the order of the model's variables."""
    if model is None:
        return sites
    # Keras lists the layers within a layer backwards, but their variables forwards.
    rank = {id(variable): n for n, variable in enumerate(model.variables)}
    return sorted(sites, key=lambda s: (s.position is None, s.position or 0, rank.get(id(s.kernel), 0)))


def _fits(path: str, pattern: object) -> bool:
    return isinstance(pattern, str) and fnmatch.fnmatchcase(path, pattern)


def _traced(sites: Sequence[KernelSite]) -> list[ResidualBranch]:
    groups: dict[Branch, list[KernelSite]] = {}
    for site in sites:
        if site.branch:
            groups.setdefault(site.branch, []).append(site)
    return [
        ResidualBranch(groups[branch], branch.layers, _ends(groups[branch]))
        for branch in sorted(groups, key=lambda branch: branch.index)
        if any(not site.is_scale for site in groups[branch])
    ]


def _ends(sites: Sequence[KernelSite]) -> list[KernelSite]:
    """The sites that end a branch."""
    # The trace sees a taught layer as one step, at which all of its kernels end. The kernel that was named
    # last in `register` makes the output.
    ends = [site for site in sites if site.ends_branch]
    last = {id(site.layer): site for site in ends if site.taught and not site.is_scale}
    return [site for site in ends if last.get(id(site.layer), site) is site or site.is_scale]


def _given(sites: Sequence[KernelSite], branches: Patterns) -> list[ResidualBranch]:
    """The branches that patterns name: all kernels below one matching layer, ended by the last of them."""
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
            "`branches` must hold patterns of paths of layers that hold kernels. Received: "
            f"{unused[0]!r}, which fits none of {[site.path for site in sites][:6]} and no layer above them."
        )
    found = []
    for members in groups.values():
        last = max((n for n, site in enumerate(members) if not site.is_scale), default=-1)
        if last >= 0:
            kernels = sum(not site.is_scale and site.role not in _BESIDE_QUERY for site in members)
            # Here the order is that of attributes, not of the flow: a layer may make its residual scale
            # before its kernels, and a residual scale ends the branch wherever it is listed.
            scales = [site for site in members[:last] if site.role == "residual_scale"]
            found.append(ResidualBranch(members, kernels, [*scales, *members[last:]]))
    return found
