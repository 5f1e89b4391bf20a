"""Heads with a prior: units that start at given means, such as the log frequencies of the classes.

A law for kernels sets the std of a head's pre-activation and ignores its means. A prior sets the mean of each
unit, and only the bias can hold it. Both hold together:

    pre-activation    y = W x + b                   each unit has a mean m on the data; the law has a scale s
    weights           W <- s W                      the std of the law
                      b <- s b + (prior - s m)      mean of each unit = s m + prior - s m = prior

The last line also takes off the bias the mean that the kernel adds, so the first predictions are the prior on
average. `_aim.aim_towards` makes this an aim, and the pass treats the head as any other kernel. The choice of
laws asks this file twice, in this order:

    add_priors     a `LabelPrior`, as the law or as the initializer of a bias: the prior comes from the labels
    keep_priors    a bias that already holds a prior, under a law for the kernel: the prior is one of

                       the labels                 the bias names a `LabelPrior`, and there are targets
                       the bias itself            it still is as its initializer made it
                       the measured mean m        other values were given to it, or a calibration set it

Why the measured mean: a calibrated bias is not the prior, it is the prior less the kernel's part. Together
with the kernel it gives the right mean already.

A bias counts as one that holds a prior if it is not zero and not random, and if its initializer is for priors
or its layer makes the model's output. A law over the whole model scales weights and knows no means: it leaves
these biases as they are (`held_priors`).
"""

from collections.abc import Sequence
from typing import Any, TypeGuard, cast

import numpy as np
from keras import ops

from keras_initx._given import given_to
from keras_initx._types import Arrays, Initializer, Model, Variable
from keras_initx.calibration._aim import LEAVE, Aim, aim_towards
from keras_initx.data import split_weights
from keras_initx.initializers import LabelPrior, Law, is_bias_initializer, is_law
from keras_initx.walk import KernelSite, iter_kernels

__all__ = ["add_priors", "held_priors", "is_prior_law", "keep_priors"]

# The mean that LabelPrior gives a unit, by the form of the targets.
_MEANINGS = {
    "categorical": "the mean of each unit is the log of its class' frequency among the targets",
    "binary": "the mean of each unit is the logit of how often its target is 1",
    "numeric": "the mean of each unit is the mean of its targets",
}


def is_prior_law(initializer: Initializer | None) -> TypeGuard[LabelPrior]:
    """Tells whether an initializer is a prior of biases that the targets decide, as `LabelPrior` is."""
    return is_law(initializer) and is_bias_initializer(initializer)


def add_priors(
    model: Model,
    sites: Sequence[KernelSite],
    law: Law | None,
    chosen: dict[KernelSite, Aim],
    targets: Arrays | None,
) -> dict[KernelSite, Aim]:
    """Adds the priors of heads to the aims of kernels.

    Args:
        model: The model.
        sites: The kernels that may be calibrated.
        law: A `LabelPrior` for all heads; None for the priors that biases name as their initializers.
        chosen: The aims of the kernels.
        targets: The labels, or None.

    Returns:
        The aims of the kernels and heads.

    Raises:
        ValueError: If there is no head for the law, no target for a head, or a law beside it that does not
            rescale.
    """
    found = {
        site: law or getattr(site.layer, "bias_initializer", None) for site in sites if site.bias is not None
    }
    priors = {site: prior for site, prior in found.items() if is_prior_law(prior)}
    if law is None and not priors:
        return chosen
    # Only a trace of the whole model tells which kernels make its output, and which activation follows.
    traced = {id(site.kernel): site for site in iter_kernels(model)}
    heads = [site for site in priors if law is None or traced[id(site.kernel)].is_output]
    if not heads:
        raise ValueError(
            "`initializer` LabelPrior needs a head: a layer that has a bias and makes the model's output. "
            f"Received: `{model.name}` without a head among {[site.path for site in sites]}. Give the last "
            "layer a bias, or include it."
        )
    for site in heads:
        aim = chosen.get(site, LEAVE)
        if aim.law is not None and not aim.rescales:
            raise ValueError(
                f"`initializer` must be given where two laws cannot be applied in one call. "
                f"Received: initializer=None, and `{site.path}` has a LabelPrior beside {aim.name}. Call "
                "`calibrate` once for each law, with `initializer`."
            )
        labels, follows = _labels(model, site, targets, heads), _activation(traced[id(site.kernel)])
        chosen = chosen | {site: _of_labels(priors[site], site, aim, labels, follows)}
    return chosen


def _of_labels(
    prior: LabelPrior,
    site: KernelSite,
    aim: Aim,
    labelled: tuple[np.ndarray, np.ndarray | None],
    follows: str,
) -> Aim:
    """Returns the aim of a head that takes its means from labels."""
    units, (labels, weights) = int(np.prod(site.bias.shape)), labelled
    means = prior.means(labels, units, follows, weights)
    meaning = _MEANINGS[prior.form_of(labels, units, follows)]
    return aim_towards(aim, means, f"LabelPrior set {_bias_of(site)}: {meaning}, {_range(means)}", True)


def keep_priors(
    model: Model, chosen: dict[KernelSite, Aim], targets: Arrays | None, frozen: bool
) -> dict[KernelSite, Aim]:
    """Returns the aims of kernels, where heads whose bias holds a prior keep their first predictions.

    Args:
        model: The model.
        chosen: The aims of the kernels.
        targets: The labels, or None.
        frozen: Whether to calibrate heads that are not trainable, too.
    """
    heads = _heads_with_priors(
        model,
        [
            site
            for site, aim in chosen.items()
            if aim.rescales and not aim.told and not site.obstacle and (frozen or site.kernel.trainable)
        ],
    )
    return chosen | {
        site: _kept(model, site, chosen[site], targets, list(heads), follows)
        for site, follows in heads.items()
    }


def held_priors(model: Model, sites: Sequence[KernelSite]) -> dict[KernelSite, str]:
    """Returns the heads whose bias a law over the whole model leaves as it is, since it holds a prior.

    Args:
        model: The model.
        sites: The kernels that the law scales.

    Returns:
        For each head, a sentence for its row.
    """
    return {
        site: f"{_bias_of(site)} holds a prior ({_holder(site)}): it is kept, the kernel alone is scaled"
        for site in _heads_with_priors(model, sites)
    }


def _heads_with_priors(model: Model, sites: Sequence[KernelSite]) -> dict[KernelSite, str]:
    """Returns the heads whose bias holds a prior, each with the name of the activation after it."""
    candidates = [site for site in sites if site.bias is not None and _holds_constants(site)]
    if not candidates:  # most models: a trace of the model is spared
        return {}
    traced = {id(site.kernel): site for site in iter_kernels(model)}
    return {
        site: _activation(traced[id(site.kernel)])
        for site in candidates
        if _is_prior(site) or traced[id(site.kernel)].is_output
    }


def _kept(
    model: Model,
    site: KernelSite,
    aim: Aim,
    targets: Arrays | None,
    heads: Sequence[KernelSite],
    follows: str,
) -> Aim:
    """Returns the aim of a head whose prior stays."""
    initializer = _initializer_of(site)
    if is_prior_law(initializer) and targets is not None:
        return _of_labels(initializer, site, aim, _labels(model, site, targets, heads), follows)
    # No means: the measured ones stay. Any other bias holds the prior less the part of the kernel.
    means = _numpy(site.bias).ravel() if _holds_initial(site) else None
    stays = f"stays {_range(means)}" if means is not None else "stays as it is"
    told = (
        f"{_bias_of(site)} holds a prior ({_holder(site)}): the mean of each unit {stays}, "
        "the kernel alone is scaled"
    )
    return aim_towards(aim, means, told, False)


def _holder(site: KernelSite) -> str:
    """Returns the source of a bias' values, for the report."""
    if _is_prior(site) or _holds_initial(site):
        return type(_initializer_of(site)).__name__
    return "values that were given to it"


def _is_prior(site: KernelSite) -> bool:
    return is_bias_initializer(_initializer_of(site))


def _initializer_of(site: KernelSite) -> Any:
    """The initializer of a bias: the layer names it, or the bias was made with it."""
    return getattr(site.layer, "bias_initializer", None) or given_to(site.bias)


def _holds_constants(site: KernelSite) -> bool:
    """Whether a bias is not zero and not random."""
    initializer = _initializer_of(site)
    # Initializers of random numbers have a seed. Random biases do not hold a prior: they are scaled with
    # the kernel.
    if initializer is None or hasattr(initializer, "seed"):
        return False
    return bool(_numpy(site.bias).any())


def _holds_initial(site: KernelSite) -> bool:
    """Whether a bias still has the values that its initializer gives."""
    bias = site.bias
    initializer = _initializer_of(site)
    initial = initializer(bias.shape, bias.dtype) if callable(initializer) else initializer
    return np.array_equal(_numpy(bias), ops.convert_to_numpy(ops.cast(initial, "float32")))


def _numpy(variable: Variable) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(variable.value, "float32"))


def _bias_of(site: KernelSite) -> str:
    parent = site.path.removesuffix(f"/{site.kernel.name}")
    return f"`{parent}/{site.bias.name}`"


def _range(values: np.ndarray) -> str:
    low, high = (f"{value:.4g}" for value in (np.min(values), np.max(values)))
    return low if low == high else f"from {low} to {high}"


def _activation(site: KernelSite) -> str:
    """Returns the name of the activation after a head; layers and operations count by their class."""
    return site.feeds if isinstance(site.feeds, str) else type(site.feeds).__name__.lower()


def _labels(
    model: Model, site: KernelSite, targets: Arrays | None, heads: Sequence[KernelSite]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the labels of one head, and their sample weights or None."""
    targets, weights = split_weights(targets)
    if isinstance(weights, dict | list | tuple):  # an array for each output, as in the targets
        weights = _of_head(model, site, weights, heads)
    return _of_head(model, site, targets, heads), weights


def _of_head(
    model: Model, site: KernelSite, targets: Arrays | None, heads: Sequence[KernelSite]
) -> np.ndarray:
    """Picks the array of one head from the targets of a model, or from their weights."""
    if targets is None:
        raise ValueError(
            f"`targets` must be given: `{site.path}` takes its mean from them (LabelPrior). Received: "
            "targets=None. Pass `targets=y`, or data that is a pair (x, y) or an iterable of such pairs."
        )
    outputs = list(getattr(model, "output_names", ()))
    if isinstance(targets, list | tuple) and len(targets) == len(outputs):
        targets = dict(zip(outputs, targets, strict=True))
    if isinstance(targets, dict) and site.layer.name in targets:
        return cast("np.ndarray", targets[site.layer.name])
    if isinstance(targets, dict | list | tuple) or len(heads) > 1:
        found = sorted(targets) if isinstance(targets, dict) else f"of {len(targets)}"
        raise ValueError(
            "`targets` must be a dict with a key for each head, or a list with an array for each output. "
            f"Received: {type(targets).__name__} {found}, heads {[s.layer.name for s in heads]}."
        )
    return cast("np.ndarray", targets)
