"""`enable_lora`: adapters on chosen layers of any model, each with a rank of its own."""

import warnings
from collections.abc import Mapping
from typing import Any

from keras_initx._types import Model
from keras_initx.checks import check_count, check_positive
from keras_initx.walk import iter_kernels, matching

__all__ = ["enable_lora"]


def enable_lora(model: Model, ranks: Mapping[str, int], *, alpha: float | None = None) -> tuple[str, ...]:
    """Enables LoRA on layers of a model, by patterns of their paths or by roles.

    Keras enables LoRA layer by layer, and a backbone of keras_hub with one rank for all. All other weights
    become untrainable only where their layers are frozen: set `trainable` of these layers.

    >>> import keras
    >>> block = keras.layers.MultiHeadAttention(4, 8)
    >>> block.build((None, 3, 16), (None, 3, 16))
    >>> enable_lora(block, {"query": 4, "value": 2})
    ('query', 'value')

    Args:
        model: A built Keras model or layer.
        ranks: The rank by pattern of paths or role, such as `{"*/query": 8}`, or the `ranks` of a report of
            EVA. If several patterns match a layer, the last one counts. Rank 0 leaves a layer without.
        alpha: The alpha of all these adapters; None for the rank of each.

    Warns:
        UserWarning: If the model was compiled and trained before: compile it once more.

    Returns:
        The paths of the layers that got adapters, sorted.

    Raises:
        ValueError: If a pattern matches no kernel, a rank is not an int of at least 0, or a layer has no
            `enable_lora` or has LoRA already. The model is then unchanged.
    """
    if not isinstance(ranks, Mapping):
        raise ValueError(
            "`ranks` must map patterns of paths or roles to ranks. Received: "
            f'ranks={ranks!r}. Pass for example {{"*/query": 8}}.'
        )
    sites = [site for site in iter_kernels(model, trace=False) if not site.is_factor]
    chosen: dict[int, tuple[str, Any, int]] = {}
    for pattern, rank in ranks.items():
        check_count("ranks", rank, least=0)
        for site in matching(sites, pattern, "ranks"):
            chosen[id(site.layer)] = (site.path, site.layer, rank)
    if alpha is not None:
        check_positive("alpha", alpha)
    chosen = {key: found for key, found in chosen.items() if found[2]}
    for path, layer, _ in chosen.values():
        if getattr(layer, "lora_enabled", None) is not False:
            what = "has LoRA already" if getattr(layer, "lora_enabled", False) else "has no `enable_lora`"
            raise ValueError(
                f"`ranks` must name layers that can take LoRA. Received: `{path}`, whose "
                f"{type(layer).__name__} {what}. Name other layers, or give it rank 0."
            )
    if getattr(getattr(model, "optimizer", None), "built", False):
        warnings.warn(
            f"`{model.name}` has an optimizer that does not know the adapters: call `compile` once more "
            "before `fit`, which would train the old weights.",
            stacklevel=2,
        )
    for _, layer, rank in chosen.values():
        layer.enable_lora(rank, lora_alpha=alpha)
    return tuple(sorted(path for path, _, _ in chosen.values()))
