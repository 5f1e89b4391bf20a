"""The choice of a law for each kernel: one for all, the layers' own, or laws that a caller assigns."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from keras_initx._types import Arrays, Initializer, Model
from keras_initx.calibration._aim import Aim, aim_of
from keras_initx.calibration._heads import add_priors, keep_priors
from keras_initx.calibration._settings import Settings
from keras_initx.initializers import Law, get, is_bias_initializer, is_law, is_none, makes_heads, names
from keras_initx.walk import KernelSite, iter_kernels, select

__all__ = ["Choice", "choose", "choose_by", "is_kernel_law", "selected", "streamed_law"]

_DEFAULT = "LSUV"


@dataclasses.dataclass(frozen=True)
class Choice:
    """Who chooses the laws.

    Attributes:
        law: The law of all kernels, or the prior of all heads; None to let the layers choose.
        assigned: A law by the path of its kernel, in place of everything else; None to ask `law`.
        priors: Whether to apply the priors that biases name as their initializers, too.
    """

    law: Law | None = None
    assigned: Mapping[str, Law] | None = None
    priors: bool = True


def choose_by(initializer: Initializer | None) -> Choice:
    """Returns the choice that the `initializer` argument of `calibrate` makes.

    Raises:
        ValueError: If the initializer is not a law.
    """
    if is_none(initializer):
        return Choice()
    # Keras' error for other objects names no argument.
    known = isinstance(initializer, str | Mapping) or callable(initializer)
    law = get(initializer) if known else None
    if not is_law(law):
        laws = [name for name in names() if is_law(get(name))]
        raise ValueError(
            f"`initializer` must be a data-dependent law, one of {laws}. Received: {initializer!r}, which is "
            "not a law. Draw weights by other initializers with `initialize`."
        )
    return Choice(law)


def is_kernel_law(initializer: Initializer | None) -> TypeGuard[Law]:
    """Tells whether an initializer is a law of kernels, and not of biases."""
    return is_law(initializer) and not is_bias_initializer(initializer)


def selected(model: Model, settings: Settings) -> list[KernelSite]:
    """Returns the kernels that `include` and `exclude` choose, before a trace."""
    sites = [site for site in iter_kernels(model, trace=False) if site.is_matrix]
    if settings.include is not None or settings.exclude is not None:
        sites = select(sites, settings.include, settings.exclude)
    return sites


def streamed_law(sites: Sequence[KernelSite], choice: Choice) -> Law | None:
    """Returns the first law of a choice that takes all batches; None if there is none.

    Such a law makes heads, or takes the moments of what adapted layers get.
    """
    if choice.assigned is not None:
        laws: list[Any] = [choice.assigned[site.path] for site in sites if site.path in choice.assigned]
    else:
        laws = [choice.law] if choice.law else [site.initializer for site in sites]
    return next((law for law in laws if makes_heads(law) or getattr(law, "takes", "") == "moments"), None)


def choose(
    model: Model,
    sites: list[KernelSite],
    choice: Choice,
    targets: Arrays | None,
    settings: Settings,
) -> dict[KernelSite, Aim]:
    """Returns the aim of each kernel that is to be calibrated.

    Heads whose bias holds a prior keep their first predictions, whatever the law of their kernel.
    """
    return keep_priors(model, _aims(model, sites, choice, targets), targets, settings.frozen)


def _aims(
    model: Model, sites: list[KernelSite], choice: Choice, targets: Arrays | None
) -> dict[KernelSite, Aim]:
    if choice.assigned is not None:
        own = {site: aim_of(choice.assigned[site.path]) for site in sites if site.path in choice.assigned}
        return add_priors(model, sites, None, own, targets) if choice.priors else own
    if choice.law is None:
        own = {site: aim_of(site.initializer) for site in sites if is_kernel_law(site.initializer)}
        own = add_priors(model, sites, None, own, targets)
        return own or dict.fromkeys(sites, aim_of(get(_DEFAULT)))
    if choice.law.weight == "bias":
        return add_priors(model, sites, choice.law, {}, targets)
    if makes_heads(choice.law):
        return dict.fromkeys(_heads(model, sites, choice.law), aim_of(choice.law))
    if choice.law.scope == "adapter":
        return dict.fromkeys(_factors(model, sites, choice.law), aim_of(choice.law))
    return dict.fromkeys(sites, aim_of(choice.law))


def _factors(model: Model, sites: Sequence[KernelSite], law: Law) -> list[KernelSite]:
    """Returns the factors A of adapters, by which a law starts them."""
    found = [site for site in sites if site.role == "lora_a"]
    if not found:
        raise ValueError(
            f"`initializer` {type(law).__name__} needs adapters. Received: `{model.name}` without LoRA among "
            f"{[site.path for site in sites][:10]}. Call `layer.enable_lora(rank)` on its layers, or "
            "`backbone.enable_lora(rank)`; `include` must leave the adapters."
        )
    return found


def _heads(model: Model, sites: Sequence[KernelSite], law: Law) -> list[KernelSite]:
    """Returns the kernels that make outputs of the model, and those of unknown place."""
    # Only a trace of the whole model tells which kernels make its output.
    traced = {id(site.kernel): site for site in iter_kernels(model)}
    heads = [site for site in sites if (at := traced[id(site.kernel)]).is_output or at.position is None]
    if not heads:
        raise ValueError(
            f"`initializer` {type(law).__name__} needs a head: a kernel that makes the model's output. "
            f"Received: `{model.name}` without a head among {[site.path for site in sites]}. Include its "
            "last layer."
        )
    return heads
