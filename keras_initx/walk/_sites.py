"""The kernels of a model, each with what its shape cannot tell."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from keras import layers

from keras_initx._keras_internals import (
    flatten_layers,
    is_layer_of_keras,
    own_trainable_variables,
    quantized_weight,
)
from keras_initx._types import Layer, Model, Variable
from keras_initx.fans import Fans, Layout, compute_fans
from keras_initx.walk._flow import Flow, Position
from keras_initx.walk._kernels import bias_of, einsum_axes, known_class, rule_of
from keras_initx.walk._layers import ATTENTION, LOOPS, NOT_KERNELS, ONE_STEP, SCALES, Kernel
from keras_initx.walk._obstacles import obstacle_of, overridden, skip_of
from keras_initx.walk._paths import layer_paths
from keras_initx.walk._trace import trace_model
from keras_initx.walk._units import unit_axes

__all__ = ["KernelSite", "initializer_of", "iter_kernels"]

_ATTENTION_ROLES = ("query", "key", "value", "attention_output")


@dataclasses.dataclass(frozen=True, eq=False)
class KernelSite(Position):
    """One kernel of a model.

    Attributes:
        path: Names of the layers that lead to the kernel from the model, followed by the variable's name
            unless that is `kernel`; a number is added where two kernels would have the same.
        role: `dense`, `conv`, `depthwise`, `pointwise`, `transposed`, `einsum`, `query`, `key`, `value`,
            `attention_output`, `gates` (the fused input kernels of LSTM, GRU and ConvLSTM), `recurrent`,
            `embedding`, `scale` (of a normalization), `residual_scale`, a registered role, or `other`.
        layer: The layer that owns the kernel.
        kernel: The kernel's variable.
        bias: The bias' variable, or None.
        initializer: The initializer that the layer's config names for the kernel, or None.
        axes: `input_axes` and `output_axes` of an einsum kernel, None for all others.
        layout: What the axes mean, None where the shape or `axes` tell it.
        unit_axes: Axes of the kernel and of the layer's output that index the units; None if unknown.
        fans: The true fans; None for scales and for kernels of an unknown layer.
        obstacle: Why scaling kernel and bias does not scale the layer's pre-activation; empty when it does.
        skip: Why the kernel is not to be drawn anew; empty when it may be.
        call: What shows the layer's pre-activations, as in `register`; None where its output is the only one.
        taught: Whether the layer's class is one that a user registered.
        overrides: Name of what the layer's class puts in place of what Keras' `call` uses; empty for nothing.
        shared: Sites of other layers that hold the same kernel.
        activation: What feeds the kernel, as `compute_gain` takes it; None for the model's input, for linear
            layers, normalizations and sums, and where `note` says that it is not known.
        feeds: The activation that the kernel's output goes through next; None for none before another kernel.
        feeds_layer: The layer that is it or, as the kernel's own, ends with it; None for an operation.
        feeds_normalized: Whether a normalization comes before it.
        normalized: Whether one comes before each kernel and output that the kernel's output reaches, so that
            its size does not matter to them.
        depth: Kernels before this one on the longest way from the input; None when it is not known.
        branch: The innermost residual branch that the kernel lies in; None outside of all.
        ends_branch: Whether its output is added to the skip, with no other kernel in between.
        is_output: Whether its output is the model's, with no other kernel in between.
        position: Number of the first step in which the layer runs; None when it is not known.
        attention: Path of the attention layer of a query, key, value or attention output; empty for others.
        cross: Whether that attention layer takes keys and values from elsewhere than its queries.
        tied: Whether an embedding's kernel also makes the logits.
        note: What the trace cannot tell; empty when it tells all.
    """

    path: str
    role: str
    layer: Any
    kernel: Any
    bias: Any
    initializer: Any
    axes: tuple[tuple[int, ...], tuple[int, ...]] | None
    layout: Layout | None
    unit_axes: tuple[tuple[int, ...], tuple[int, ...]] | None
    fans: Fans | None
    obstacle: str
    skip: str
    call: Callable[..., Any] | None = None
    taught: bool = False
    overrides: str = ""
    shared: tuple["KernelSite", ...] = ()
    attention: str = ""
    cross: bool = False
    tied: bool = False

    @property
    def is_scale(self) -> bool:
        """Whether it is a factor of each channel: of a normalization, or of a residual branch."""
        return self.role in SCALES

    @property
    def is_matrix(self) -> bool:
        """Whether it mixes inputs into outputs, as all kernels but scales do."""
        return not self.is_scale and len(self.kernel.shape) > 1

    @property
    def checked(self) -> bool:
        """Whether code that is not Keras' own makes its pre-activation, which need not be linear in it."""
        return self.taught or bool(self.overrides)

    @property
    def blocks(self) -> int:
        """Matrices that the kernel holds: gates, heads of a batch axis, groups, depthwise channels."""
        if self.layout is None:
            return 1
        return {"gates": self.layout.gates, "conv": self.layout.groups}.get(self.layout.kind) or 1


def iter_kernels(model: Model, *, trace: bool = True) -> Iterator[KernelSite]:
    """Yields the kernels of all built layers of a model, nested and subclassed ones included, each once.

    A kernel is a weight of two or more axes, or a scale of a normalization or of a residual branch. What
    comes before and after a kernel is read off one run of the model on symbolic input, which computes
    nothing.

    >>> import keras
    >>> model = keras.Sequential([layers.Input((4,)), layers.Dense(3, "relu"), layers.Dense(2, name="head")])
    >>> *_, head = iter_kernels(model)
    >>> head.path, head.role, head.fans, head.activation, head.depth
    ('head', 'dense', Fans(fan_in=3, fan_out=2), 'relu', 1)

    Args:
        model: A Keras model or layer.
        trace: Whether to trace the model. Without it the attributes from `activation` on are left at their
            defaults.

    Yields:
        The sites, in the order in which the layers run, those that the trace did not reach last; without a
        trace in the order in which Keras lists the layers.
    """
    sites = list(_once(_untraced(model)))
    if not trace:
        yield from sites
        return
    flow = Flow(trace_model(model, _is_leaf), _chain)
    placed = [_place(site, flow) for site in sites]
    crossing = _crossing(placed, flow)
    placed = [dataclasses.replace(site, cross=site.attention in crossing) for site in placed]
    yield from sorted(placed, key=lambda site: (site.position is None, site.position or 0, site.depth or 0))


def _crossing(sites: list[KernelSite], flow: Flow) -> set[str]:
    """Paths of the attention layers whose queries, keys and values come from more than one step."""
    origins: dict[str, set[int | None]] = {}
    for site in sites:
        if site.attention and site.role != "attention_output" and site.position is not None:
            origins.setdefault(site.attention, set()).add(flow.input_of(site.position))
    return {path for path, found in origins.items() if len(found) > 1}


def _is_leaf(layer: Layer) -> bool:
    if known_class(layer) or (isinstance(layer, ONE_STEP) and not isinstance(layer, layers.TimeDistributed)):
        return True
    builtin = is_layer_of_keras(layer)
    return builtin and not flatten_layers(layer, include_self=False) and not isinstance(layer, layers.Lambda)


def _chain(layer: Layer) -> int:
    """Kernels one after another within one step of the trace."""
    if isinstance(layer, layers.RNN):
        cells = getattr(layer.cell, "cells", [layer.cell])
        return len(cells)
    if isinstance(layer, ONE_STEP):
        inner = [sub for sub in flatten_layers(layer, include_self=False) if _chain(sub)]
        return max(map(_chain, inner), default=0)
    if known_class(layer) is None:
        return 0
    _, rule = rule_of(layer)
    kernels = [kernel for kernel in rule.kernels.values() if kernel.role not in SCALES]
    return len(kernels) if rule.chained else min(len(kernels), 1)


def _untraced(model: Model) -> Iterator[KernelSite]:
    paths = layer_paths(model)
    found = list({id(layer): layer for layer in flatten_layers(model)}.values())
    attention = {
        id(layer): (layer.name, paths[id(parent)])
        for parent in found
        if _is_attention(parent)
        for layer in flatten_layers(parent, include_self=False, recursive=False)
        if layer.name in _ATTENTION_ROLES
    }
    looped = {id(layer) for parent in found if isinstance(parent, LOOPS) for layer in flatten_layers(parent)}
    for layer in found:
        role, parent = attention.get(id(layer), ("", ""))
        for kernel in _kernels(layer):
            site = _site(layer, kernel, paths[id(layer)], role, id(layer) in looped)
            yield dataclasses.replace(site, attention=parent) if parent else site


def _once(sites: Iterator[KernelSite]) -> Iterator[KernelSite]:
    """Each kernel once: as that of the first layer of a known class that holds it."""
    by_kernel: dict[int, list[KernelSite]] = {}
    for site in sites:
        by_kernel.setdefault(id(site.kernel), []).append(site)
    for group in by_kernel.values():
        first = next((site for site in group if site.fans is not None), group[0])
        others = tuple(site for site in group if site is not first)
        yield dataclasses.replace(first, shared=others) if others else first


def _is_attention(layer: Layer) -> bool:
    """Whether a layer is Keras' attention, or a model's own with Keras' names for its four projections."""
    names = {sub.name for sub in flatten_layers(layer, include_self=False, recursive=False)}
    return isinstance(layer, ATTENTION) or names >= set(_ATTENTION_ROLES)


def _kernels(layer: Layer) -> list[Any]:
    base, rule = rule_of(layer)
    quantized = base is not None and getattr(layer, "quantization_mode", None)
    hidden = [quantized_weight(layer, name) for name in rule.kernels] if quantized else []
    # A wrapper may hold on to the kernel of what it wraps.
    inner = [] if base else flatten_layers(layer, include_self=False)
    theirs = {id(variable) for sub in inner for variable in own_trainable_variables(sub)}
    variables = [*(v for v in own_trainable_variables(layer) if id(v) not in theirs), *hidden]
    return [
        v
        for v in {id(v): v for v in variables if v is not None}.values()
        if v.name in rule.kernels or (len(v.shape) > 1 and v.name not in NOT_KERNELS)
    ]


def _site(layer: Layer, kernel: Variable, path: str, role: str, looped: bool) -> KernelSite:
    base, rule = rule_of(layer)
    known: Kernel | None = rule.kernels.get(kernel.name)
    plain = known is not None and known.role in SCALES
    axes = einsum_axes(layer.equation) if known and base is layers.EinsumDense else None
    layout = _layout(layer, known)
    skip = skip_of(layer)
    fans = None
    if known and not plain and not skip:
        input_axes, output_axes = axes or (None, None)
        fans = compute_fans(tuple(kernel.shape), input_axes, output_axes, layout)
    linear = known is not None and rule.linear
    overrides = overridden(layer, base) if linear and base else ""
    tied = known is not None and kernel.name == "embeddings" and getattr(layer, "tie_weights", False)
    return KernelSite(
        path="/".join(filter(None, (path, kernel.name))).removesuffix("/kernel"),
        role=role or (known.role if known else "other"),
        layer=layer,
        kernel=kernel,
        bias=bias_of(layer, rule, kernel.name) if linear else None,
        initializer=initializer_of(layer, kernel, known.initializer if known else None),
        axes=axes,
        layout=layout,
        unit_axes=unit_axes(layer, layout.kind if layout else known.role) if known else None,
        fans=fans,
        obstacle=obstacle_of(layer, base if linear else None, rule, overrides, looped, tied),
        skip=skip,
        call=rule.call,
        taught=rule.taught,
        overrides=overrides,
        tied=tied,
    )


def _layout(layer: Layer, known: Kernel | None) -> Layout | None:
    layout: Any = known.layout if known else None
    layout = layout(layer) if callable(layout) else layout
    return None if layout is None else Layout.of(layout)


def _place(site: KernelSite, flow: Flow) -> KernelSite:
    site = dataclasses.replace(site, **vars(flow.place(site.layer, site.kernel.name, site.role)))
    if site.fans is None and not site.skip and not site.is_scale:
        name = type(site.layer).__name__
        note = f"{name} is not a layer whose kernels are known: teach it with keras_initx.walk.register"
        return dataclasses.replace(site, note=note)
    return site


def initializer_of(layer: Layer, variable: Variable, attribute: str | None = None) -> Any:
    """The layer's initializer of a variable: `recurrent_kernel` is drawn by `recurrent_initializer`."""
    name = variable.name
    names = (attribute, f"{name}_initializer", f"{name.removesuffix('_kernel')}_initializer")
    depthwise = ("depthwise_initializer",) if name == "kernel" else ()
    # A layer of one weight may call its initializer just that, as keras_hub's position embedding does.
    only = ("initializer",) if len(own_trainable_variables(layer)) == 1 else ()
    candidates = (getattr(layer, n, None) for n in (*names, *depthwise, *only) if n)
    return next((found for found in candidates if found), None)
