"""Layers that a user registered: the facts that the registration tells, and those that it leaves open."""

import dataclasses
from typing import Any

from keras import layers

from keras_initx._types import Layer, Variable
from keras_initx.walk._found import Found
from keras_initx.walk._kernels import einsum_axes, rule_of
from keras_initx.walk._layers import Kernel
from keras_initx.walk._site import KernelSite

__all__ = ["axes_of", "completed", "names_axes"]


def completed(site: KernelSite, found: Found) -> KernelSite:
    """The site of a registered layer, with the facts that its registration leaves open."""
    changes: dict[str, Any] = {}
    if not names_axes(site) and found.fans:
        changes |= {"axes": found.axes, "layout": found.layout, "fans": found.fans}
        changes["unit_axes"] = found.unit_axes
    if not rule_of(site.layer)[1].linear:
        changes |= {"bias": found.bias, "unit_axes": found.unit_axes}
        if not site.looped:
            changes |= {"obstacle": found.obstacle, "uses": found.uses}
    return dataclasses.replace(site, **changes)


def names_axes(site: KernelSite) -> bool:
    """Whether the registration of a layer tells the axes of a kernel."""
    known = rule_of(site.layer)[1].kernels.get(site.kernel.name)
    return known is not None and (known.layout is not None or known.input_axes is not None)


def axes_of(layer: Layer, base: Any, known: Kernel | None, kernel: Variable) -> Any:
    """The axes of a kernel by their numbers, as a user taught them or an equation tells."""
    if known is not None and known.input_axes is not None:
        rank = len(kernel.shape)
        named = [{axis % rank for axis in axes or ()} for axes in (known.input_axes, known.output_axes)]
        rest = None if known.batch_axes is None else {axis % rank for axis in known.batch_axes}
        if rest is not None and rest != set(range(rank)) - named[0] - named[1]:
            raise ValueError(
                f"`batch_axes` of `{kernel.path}` must be all axes beside `input_axes` and `output_axes`. "
                f"Received: batch_axes={known.batch_axes} for the shape {tuple(kernel.shape)}. Leave it out, "
                "or name the others."
            )
        return known.input_axes, known.output_axes
    return einsum_axes(layer.equation) if known and base is layers.EinsumDense else None
