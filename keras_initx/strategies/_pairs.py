"""Pairs the weights of a model with those of a base model, and reads off how much each has grown."""

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import keras

from keras_initx._keras_internals import own_trainable_variables
from keras_initx._types import Model
from keras_initx.donors import places
from keras_initx.walk import KernelSite, Weight, iter_kernels, iter_weights

__all__ = ["Pair", "check_base", "kernel_pairs", "vector_pairs"]

_FIELDS = ("conv", "depthwise", "transposed")  # kernels whose first axes are a receptive field


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """A weight of a model, and the weight of the base in the same place.

    Attributes:
        own: The weight of the model.
        base: The weight of the base.
        inputs: How many times as many inputs per unit it has as in the base.
        outputs: How many times as many outputs, or entries of a vector.
    """

    own: Any  # a KernelSite, or a Weight
    base: Any
    inputs: float = 1.0
    outputs: float = 1.0

    @property
    def is_output(self) -> bool:
        """Whether its inputs grow, and its outputs do not."""
        return self.inputs > 1 and self.outputs == 1


def check_base(base: object) -> None:
    """Raises ValueError unless `base` is a built model."""
    if not isinstance(base, keras.layers.Layer) or not base.built or not base.weights:
        raise ValueError(
            "`base` must be a built Keras model of the same structure and smaller width. Received: "
            f"base={base!r}. Pass MuP(base=build(width=64)) for a model of build(width=1024)."
        )


def kernel_pairs(
    sites: Sequence[KernelSite], base: Sequence[KernelSite], *, deeper: bool = False
) -> list[Pair]:
    """Returns each kernel and scale of a model with its kernel in the base, by order: names may differ.

    Args:
        sites: The kernels and scales of the model.
        base: Those of the base.
        deeper: Whether the model may repeat its blocks more often than the base.

    Raises:
        ValueError: If the base has another structure, or is wider than the model.
    """
    own, others = (
        [s for s in found if not (s.skip or s.is_factor) and (s.fans or s.is_scale)]
        for found in (sites, base)
    )
    return [Pair(site, other, *_growth(site, other)) for site, other in _paired(own, others, deeper)]


def vector_pairs(model: Model, base: Model, kernels: Sequence[Pair], *, deeper: bool = False) -> list[Pair]:
    """Returns each bias, shift and other vector of a model that its layer trains, with the one of the base.

    Args:
        model: The model.
        base: The base.
        kernels: The pairs of kernels, whose layers' vectors belong together. Other vectors go by order.
        deeper: Whether the model may repeat its blocks more often than the base.

    Raises:
        ValueError: If the base has another structure.
    """
    own, others = _vectors(model), _vectors(base)
    adapted, theirs = _adapted(model), _adapted(base)
    partner = {id(pair.own.layer): pair.base.layer for pair in kernels}
    partner |= {id(s.layer): other.layer for s, other in _paired(adapted, theirs, deeper)}
    axes = {id(site.layer): site.axes for site in adapted}
    known = {(id(weight.layer), weight.kernel.name): weight for weight in others}
    found = {w: known.get((id(partner.get(id(w.layer))), w.kernel.name)) for w in own}
    with_kernels = {id(site.layer) for site in iter_kernels(base, trace=False)}
    missing, rest = [w for w in own if not found[w]], [w for w in others if id(w.layer) not in with_kernels]
    pairs = [(w, other) for w, other in found.items() if other] + _paired(missing, rest, deeper)
    return [Pair(w, other, *_growth_of_vector(w, other, axes)) for w, other in pairs]


def _vectors(model: Model) -> list[KernelSite | Weight]:
    """The weights that are trained and are no kernels: vectors, and the factors of adapters."""
    sites = list(iter_kernels(model, trace=False))
    adapters = [site for site in sites if site.is_factor]
    return [*adapters, *(w for w in iter_weights(model, sites) if w.role != "statistic" and _is_trained(w))]


def _adapted(model: Model) -> list[KernelSite]:
    """The kernels that have adapters, and are not stepped themselves."""
    sites = iter_kernels(model, trace=False)
    adapted = [site for site in sites if getattr(site.layer, "lora_enabled", False)]
    return [site for site in adapted if not site.is_factor]


def _is_trained(weight: Weight) -> bool:
    return any(variable is weight.kernel for variable in own_trainable_variables(weight.layer))


def _paired(own: Sequence[Any], others: Sequence[Any], deeper: bool) -> list[tuple[Any, Any]]:
    if deeper and own and others and len(own) != len(others):
        return _by_block(own, others)
    for weight, base in zip(own, others, strict=False):
        if _structure(weight) != _structure(base):
            raise ValueError(
                "`base` must have the structure of the model. Received: a base with "
                f"{_told(base)} where the model has {_told(weight)}."
            )
    if len(own) != len(others):
        more, fewer = (own, others) if len(own) > len(others) else (others, own)
        names = {weight.path for weight in fewer}
        extra = next((weight for weight in more if weight.path not in names), more[-1])
        kind = "kernels" if isinstance(extra, KernelSite) else "biases and other vectors"
        raise ValueError(
            f"`base` must have the structure of the model. Received: a base of {len(others)} {kind} for "
            f"a model of {len(own)}; only one of them has {_told(extra)}."
        )
    return list(zip(own, others, strict=True))


def _by_block(own: Sequence[Any], others: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Pairs a model with a base that repeats its blocks more or less often: each repetition counts once."""
    mine, theirs = (places([*map(_block_key, weights)])[0] for weights in (own, others))
    first = dict(reversed(list(zip(theirs, others, strict=True))))
    if max(mine) != max(theirs):
        raise ValueError(
            "`base` must be the model with fewer blocks. Received: a base that repeats other kernels: of "
            f"{max(theirs) + 1} different kernels for a model of {max(mine) + 1}. Where the stages of a "
            "model differ in depth, each stage of the base needs the same kinds of blocks."
        )
    # In the order of the places, so that an error names the first that differs.
    return [pair for n, w in zip(mine, own, strict=True) for pair in _paired([w], [first[n]], False)]


def _block_key(weight: KernelSite | Weight) -> Hashable:
    """What is equal for the same weight of two blocks, and differs for the input and the output."""
    ends = (weight.depth == 0, weight.is_output) if isinstance(weight, KernelSite) else ()
    return (*_structure(weight), weight.kernel.name, tuple(weight.kernel.shape), *ends)


def _structure(weight: KernelSite | Weight) -> tuple[Any, ...]:
    """The properties that a weight shares with its weight of another width."""
    shape, layout = tuple(weight.kernel.shape), weight.layout
    field = shape[:-2] if layout is not None and layout.kind in _FIELDS and weight.role != "bias" else ()
    return weight.role, type(weight.layer).__name__, len(shape), field


def _told(weight: KernelSite | Weight) -> str:
    return f"`{weight.path}` ({weight.role}, shape {tuple(weight.kernel.shape)})"


def _growth(site: KernelSite, base: KernelSite) -> tuple[float, float]:
    """How many times as many inputs per unit, and outputs in all, a kernel has as its kernel in the base."""
    if site.fans is None or base.fans is None:
        return 1.0, _length(site, base)
    inputs, outputs = site.fans.fan_in / base.fans.fan_in, site.fans.fan_out / base.fans.fan_out
    if site.layout is not None and site.layout.kind in ("conv", "depthwise"):
        # Fans count one group or channel; more groups mean more outputs at equal fans.
        outputs *= _groups(site) / _groups(base)
    if min(inputs, outputs) < 1:
        raise ValueError(
            f"`base` must be no wider than the model. Received: `{base.path}` with {base.fans} where the "
            f"model has {site.fans}."
        )
    return inputs, outputs


def _groups(site: KernelSite) -> int:
    assert site.layout is not None
    return site.kernel.shape[-2] if site.layout.kind == "depthwise" else site.layout.groups


def _growth_of_vector(
    weight: KernelSite | Weight,
    base: KernelSite | Weight,
    axes: Mapping[int, tuple[Sequence[int], Sequence[int]] | None],
) -> tuple[float, float]:
    """How many times as many inputs per unit, and outputs in all, a vector or an adapter has.

    An adapter A has the axes of its kernel, but for the last, which is the rank. B leads from the rank to the
    last axis of the kernel. The numbers that are looked up in a table are no inputs of a sum.
    """
    grown = [
        size / before for size, before in zip(weight.kernel.shape, base.kernel.shape, strict=True) if before
    ]
    if weight.kernel.name == "lora_kernel_a":
        told = axes.get(id(weight.layer))
        summed = set(told[0]) if told else set(range(len(grown) - 1))
        inputs = math.prod(one for axis, one in enumerate(grown[:-1]) if axis in summed)
        return inputs, math.prod(grown[:-1]) / inputs
    if weight.kernel.name in ("lora_kernel_b", "lora_embeddings_b"):
        return 1.0, grown[-1]
    return 1.0, _length(weight, base)


def _length(weight: KernelSite | Weight, base: KernelSite | Weight) -> float:
    """How many times as many entries a vector has. Of a matrix whose two axes grow, nothing is known.

    A vector may have more axes, of which one is the width: the slopes of a PReLU that a map shares, a class
    token, a table that is added at each position.
    """
    pairs = zip(weight.kernel.shape, base.kernel.shape, strict=True)
    grown = [size / before for size, before in pairs if size != before and before]
    return math.prod(grown) if weight.role != "other" or len(grown) == 1 else 1.0
