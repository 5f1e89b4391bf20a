"""What is to be calibrated, and by which law."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from keras_initx.calibration._filters import takes_filters
from keras_initx.calibration._heads import add_priors, keep_priors
from keras_initx.calibration._report import FROZEN
from keras_initx.initializers import LSUV, DataDependent, DataFilters, LabelPrior, ModelLaw, get, names
from keras_initx.walk import KernelSite, iter_kernels, select

__all__ = ["Assigned", "check_law", "is_law", "laws", "of_kernels", "reason"]

_LAWS = (DataDependent, DataFilters, ModelLaw)


@dataclasses.dataclass(frozen=True)
class Assigned:
    """Laws of single kernels, which `calibrate` takes in place of one law for all.

    Attributes:
        kernels: A law by the path of its kernel.
        priors: Whether to apply the priors that biases' own initializers name, too.
    """

    kernels: Mapping[str, Any]
    priors: bool = False


def is_law(initializer: Any) -> bool:
    """Tells whether an initializer needs data, targets or a loss, and so `calibrate` to apply it."""
    return of_kernels(initializer) or isinstance(initializer, LabelPrior)


def of_kernels(initializer: Any) -> bool:
    """Tells whether an initializer is a law of kernels."""
    return isinstance(initializer, _LAWS)


def check_law(initializer: Any) -> Any:
    """Returns the data-dependent law of that name, config or object, or raises ValueError."""
    if isinstance(initializer, Assigned):
        return initializer
    # What is neither is refused here: Keras' error names no argument.
    law = get(initializer) if isinstance(initializer, str | dict) or callable(initializer) else None
    if not is_law(law):
        laws = [name for name in names() if is_law(get(name))]
        raise ValueError(
            f"`initializer` must be a data-dependent law, one of {laws}. "
            f"Received: {initializer!r}, which is none."
        )
    return law


def laws(
    model: Any, law: Any, include: Any, exclude: Any, targets: Any, frozen: bool
) -> dict[KernelSite, Any]:
    """The law of each site that is to be calibrated."""
    return keep_priors(model, _laws(model, law, include, exclude, targets), targets, frozen)


def _laws(model: Any, law: Any, include: Any, exclude: Any, targets: Any) -> dict[KernelSite, Any]:
    sites = [site for site in iter_kernels(model, trace=False) if site.is_matrix]
    if include is not None or exclude is not None:
        sites = select(sites, include, exclude)
    if isinstance(law, Assigned):
        own = {site: law.kernels[site.path] for site in sites if site.path in law.kernels}
        return add_priors(model, sites, None, own, targets) if law.priors else own
    if isinstance(law, LabelPrior):
        return add_priors(model, sites, law, {}, targets)
    if law is not None:
        return dict.fromkeys(sites, law)
    own = {site: site.initializer for site in sites if of_kernels(site.initializer)}
    return add_priors(model, sites, None, own, targets) or dict.fromkeys(sites, LSUV())


def reason(site: KernelSite, law: Any, frozen: bool) -> str:
    """Why a site cannot or is not to be calibrated; empty when it is."""
    if site.obstacle or not (site.kernel.trainable or frozen):
        return site.obstacle or FROZEN
    if isinstance(law, DataFilters):
        return "" if takes_filters(site) else "filters are for dense layers and convolutions of one group"
    if not law.per_unit:
        return ""
    if site.unit_axes is None:
        return f"the units of {type(site.layer).__name__} are not known"
    units = math.prod(site.kernel.shape[axis] for axis in site.unit_axes[0])
    if site.bias is not None and math.prod(site.bias.shape) < units:
        return "its units share the entries of its bias"
    return ""
