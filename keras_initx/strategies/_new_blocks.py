"""The blocks of a deeper model that its donor does not have: they begin at zero, and the function stays."""

import dataclasses
from collections.abc import Sequence

import keras

from keras_initx._types import Model, Patterns
from keras_initx.donors import Pair
from keras_initx.strategies._plan import Draw, WholePlan
from keras_initx.strategies._select import find_branches
from keras_initx.walk import KernelSite

__all__ = ["at_zero"]

_OUTSIDE = "in no residual branch that begins at zero: the function may be another"


def at_zero(
    pairs: Sequence[Pair],
    sites: Sequence[KernelSite],
    plan: WholePlan,
    branches: Patterns | None,
    model: Model,
) -> WholePlan:
    """Returns zeros for one weight on each way through the branches that the donor does not have.

    Args:
        pairs: The pairs of all weights.
        sites: The kernels of the model.
        plan: The draws of the weights.
        branches: Patterns of the residual branches; None to take those of the trace.
        model: The model.

    Raises:
        ValueError: If the model has more blocks than the donor, and no residual branch.
    """
    new = {id(p.own): p.own for p in pairs if p.added and isinstance(p.own, KernelSite)}
    deeper = next((p.own for p in pairs if p.deeper and id(p.own) in new), None)
    if not new:
        return {}
    known = branches is not None or any(site.branch for site in sites)
    if deeper is not None and not known:
        raise ValueError(
            "`depth='identity'` needs residual branches, x + f(x), around the blocks that the donor does not "
            f"have. Received: a model with `{deeper.path}` in none. Pass depth='first', 'uniform' or "
            "'stack', which make another function. If the model has branches that the trace does not see, "
            'name the layers that compute f: branches=["block_*"].'
        )
    found: WholePlan = {}
    covered: set[int] = set()
    parents: set[str] = set()
    for branch in find_branches("FromModel", sites, branches, model) if known else ():
        if all(id(site) in new for site in branch.kernels):
            zero = Draw(keras.initializers.Zeros(), "a new block: it begins at zero")
            found |= dict.fromkeys(branch.stops, zero)
            covered |= {id(site) for site in branch.sites}
            parents |= {_parent(site) for site in branch.stops}
    outside = [
        site
        for key, site in new.items()
        # Keys and values of an attention that come from elsewhere end where the branch ends.
        if key not in covered and not site.is_output and (site.is_scale or _parent(site) not in parents)
    ]
    return found | {site: _told(plan[site]) for site in outside if site in plan}


def _parent(site: KernelSite) -> str:
    return site.path.rpartition("/")[0] or site.path


def _told(draw: Draw) -> Draw:
    return dataclasses.replace(draw, note="; ".join(filter(None, (draw.note, _OUTSIDE))))
