"""Heads whose units get their means from the labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_initx.calibration._filters import FILTERED
from keras_initx.calibration._measurement import spreads
from keras_initx.initializers import DataDependent, LabelPrior
from keras_initx.walk import KernelSite, iter_kernels

__all__ = ["add_priors", "drawing_law"]


class _Towards(DataDependent):
    """The scale of a law for the kernel, and the shift that gives each unit a known mean."""

    per_unit = True
    constants = True

    def __init__(self, law: Any, means: np.ndarray) -> None:
        super().__init__()
        self.law, self.means = law, means

    def rescale(self, mean: Any, std: Any) -> tuple[Any, Any]:
        """Returns the law's scale, 1 where nothing varies, and what is left to the means."""
        if not getattr(self.law, "per_unit", True):
            second = np.mean(np.square(std) + np.square(mean))
            mean_of_all = np.mean(mean)
            std_of_all = np.sqrt(np.maximum(second - mean_of_all**2, 0.0))
            varies = spreads(mean_of_all, std_of_all)
            scale = self.law.rescale(float(mean_of_all), float(std_of_all))[0] if varies else 1.0
        else:
            varies = spreads(mean, std)
            scale = np.where(varies, self.law.rescale(mean, np.where(varies, std, 1.0))[0], 1.0)
        return scale + 0.0 * std, self.means - scale * mean


def drawing_law(law: Any) -> Any:
    """Returns the law that draws a site's kernel, or None where its kernel is not to be drawn."""
    law = law.law if isinstance(law, _Towards) else law
    return None if law is FILTERED else law


def add_priors(
    model: Any,
    sites: Sequence[KernelSite],
    law: Any,
    chosen: dict[KernelSite, Any],
    targets: Any,
) -> dict[KernelSite, Any]:
    """Adds the priors of heads to the laws of sites.

    Args:
        model: The model.
        sites: What may be calibrated.
        law: A `LabelPrior` for all heads; None for those that biases' own initializers name.
        chosen: The laws of sites' kernels.
        targets: The labels, or None.
    """
    found = {
        site: law or getattr(site.layer, "bias_initializer", None) for site in sites if site.bias is not None
    }
    priors = {site: prior for site, prior in found.items() if isinstance(prior, LabelPrior)}
    if law is None and not priors:
        return chosen
    traced = {id(site.kernel): site for site in iter_kernels(model)}
    heads = [site for site in priors if law is None or traced[id(site.kernel)].is_output]
    if not heads:
        raise ValueError(
            "`initializer` LabelPrior needs a head: a layer with a bias whose output is the model's. "
            f"Received: `{model.name}` without one among {[site.path for site in sites]}."
        )
    for site in heads:
        if not isinstance(chosen.get(site, FILTERED), DataDependent):
            raise ValueError(
                f"`initializer` must be given: `{site.path}` has a LabelPrior beside "
                f"{type(chosen[site]).__name__}, which cannot be applied in one call. Call `calibrate` once "
                "for each, with `initializer`."
            )
        units = int(np.prod(site.bias.shape))
        means = priors[site].means(
            _labels(model, site, targets, heads), units, _activation(traced[id(site.kernel)])
        )
        chosen = chosen | {site: _Towards(chosen.get(site, FILTERED), means)}
    return chosen


def _activation(site: KernelSite) -> str:
    """What follows a head: a name, or a layer or operation that is one."""
    return site.feeds if isinstance(site.feeds, str) else type(site.feeds).__name__.lower()


def _labels(model: Any, site: KernelSite, targets: Any, heads: Sequence[KernelSite]) -> np.ndarray:
    """The labels of one head."""
    if targets is None:
        raise ValueError(
            f"`targets` must be given: `{site.path}` takes its mean from them (LabelPrior). Received: "
            "targets=None. Pass `targets=y`, or data that is a pair (x, y) or an iterable of such pairs."
        )
    outputs = list(getattr(model, "output_names", ()))
    if isinstance(targets, list | tuple) and len(targets) == len(outputs):
        targets = dict(zip(outputs, targets, strict=True))
    if isinstance(targets, dict) and site.layer.name in targets:
        return targets[site.layer.name]
    if isinstance(targets, dict | list | tuple) or len(heads) > 1:
        found = sorted(targets) if isinstance(targets, dict) else f"of {len(targets)}"
        raise ValueError(
            "`targets` must be a dict with a key for each head, or a list with an array for each output. "
            f"Received: {type(targets).__name__} {found}, heads {[s.layer.name for s in heads]}."
        )
    return targets
