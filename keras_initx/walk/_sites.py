"""`iter_kernels`: the kernels of a model, each with the facts that its shape does not tell."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from keras import layers

from keras_initx._keras_internals import (
    flatten_layers,
    is_layer_of_keras,
    own_trainable_variables,
    quantized_weight,
)
from keras_initx._types import Layer, Model, Variable
from keras_initx.fans import compute_fans
from keras_initx.walk._adapters import FACTORS, adapter_of
from keras_initx.walk._attention import ROLES, attention_roles
from keras_initx.walk._factors import factor_site
from keras_initx.walk._flow import Flow, in_steps
from keras_initx.walk._found import Found, find
from keras_initx.walk._initial import initializer_of
from keras_initx.walk._kernels import bias_of, known_class, layout_of, rule_of
from keras_initx.walk._layers import ATTENTION, LOOPS, NOT_KERNELS, ONE_STEP, SCALES, Kernel
from keras_initx.walk._obstacles import TIED, obstacle_of, overridden, skip_of
from keras_initx.walk._paths import layer_paths
from keras_initx.walk._site import KernelSite
from keras_initx.walk._taught import axes_of, completed, names_axes
from keras_initx.walk._trace import trace_model
from keras_initx.walk._units import unit_axes

__all__ = ["iter_kernels"]

_UNUSED = "no operation takes it when the model is called"


def iter_kernels(model: Model, *, trace: bool = True) -> Iterator[KernelSite]:
    """Yields every kernel of a model once, those of nested and subclassed layers included.

    A kernel is a weight of two or more axes, or the scale of a normalization or of a residual branch. Layers
    must be built. The model runs once on symbolic input, which computes nothing, to find the activations
    before and after each kernel, its depth and its residual branch.

    >>> import keras
    >>> model = keras.Sequential([layers.Input((4,)), layers.Dense(3, "relu"), layers.Dense(2, name="head")])
    >>> *_, head = iter_kernels(model)
    >>> head.path, head.role, head.fans, head.activation, head.depth
    ('head', 'dense', Fans(fan_in=3, fan_out=2), 'relu', 1)

    Args:
        model: A Keras model or layer.
        trace: Whether to run the model. If False, the attributes from `activation` on keep their defaults.

    Yields:
        The sites, in the order in which the layers run. Sites that the trace did not reach come last. Without
        a trace, in the order in which Keras lists the layers.
    """
    sites = list(_once(_untraced(model)))
    sites = _seen(model, sites)
    if not trace:
        yield from sites
        return
    found = [site.kernel for site in sites if site.uses]
    # A table is followed, too: its transpose may make the logits.
    tables = [site.kernel for site in sites if type(site.layer) is layers.Embedding]
    traced = trace_model(model, _is_leaf, [*found, *tables])
    # The kernel of a layer that is no step, since the backend alone could run what is around it, is found by
    # the operation that takes it.
    steps = in_steps(traced)
    lost = [site.kernel for site in sites if id(site.layer) not in steps]
    flow = Flow(traced, _chain, [*found, *lost])
    roles = attention_roles(flow)
    names: dict[int, str] = {}  # of the attentions that layers write out, by their numbers
    placed = [_place(_with_role(site, roles, names), flow) for site in sites]
    crossing = _crossing(placed, flow)
    placed = [dataclasses.replace(site, cross=site.attention in crossing) for site in placed]
    yield from sorted(placed, key=lambda site: (site.position is None, site.position or 0, site.depth or 0))


def _seen(model: Model, sites: list[KernelSite]) -> list[KernelSite]:
    """The sites with what the operations tell of kernels whose layers no table has."""
    asked = [site for site in sites if _is_asked_for(site)]
    if not asked:
        return sites
    # Their biases are followed, too: a bias belongs to the kernel whose output it is added to.
    owners = {id(site.layer): site.layer for site in asked}
    weights = [*(s.kernel for s in asked), *(v for o in owners.values() for v in own_trainable_variables(o))]
    told, failure = find(model, list({id(weight): weight for weight in weights}.values()))
    seen = []
    for site in sites:
        if site not in asked:
            seen.append(site)
            continue
        found = told.get(id(site.kernel), failure or _UNUSED)
        if site.taught and not (isinstance(found, Found) and found.uses):
            seen.append(site)
        elif isinstance(found, Found):
            seen.append(_completed(site, found))
        elif found is not None:  # None: an operation takes it that makes no kernel of it
            seen.append(dataclasses.replace(site, obstacle=found))
    return seen


def _is_asked_for(site: KernelSite) -> bool:
    """Whether only operations tell what a kernel is: its layer is in no table, or has a `call` of its own."""
    base, rule = rule_of(site.layer)
    theirs: Any = base
    if site.is_factor:
        return False
    if rule.taught:  # a user who names no axes, or no way to the pre-activation, leaves it to the operations
        return not site.skip and not site.is_scale and not (rule.linear and names_axes(site))
    own_call = base is not None and type(site.layer).call is not theirs.call
    return not site.skip and not site.is_scale and (site.fans is None or (own_call and not site.tied))


def _with_role(site: KernelSite, roles: dict[int, tuple[str, int]], names: dict[int, str]) -> KernelSite:
    """The site with its role in an attention that its layer writes out."""
    if not site.uses or site.taught or id(site.kernel) not in roles:
        return site
    role, number = roles[id(site.kernel)]
    # One name for all projections, which may be kernels of several layers.
    attention = names.setdefault(number, f"{site.path.rpartition('/')[0]}:{number}")
    return dataclasses.replace(site, role=role or site.role, attention=attention)


def _completed(site: KernelSite, found: Found) -> KernelSite:
    known = site.fans is not None  # a Keras layer with a `call` of the user's: its table still names the role
    if site.taught:
        return completed(site, found)
    return dataclasses.replace(
        site,
        role=site.role if known or site.role != "other" else found.role,
        bias=found.bias,
        axes=found.axes,
        layout=found.layout,
        unit_axes=found.unit_axes,
        fans=found.fans,
        obstacle=site.obstacle if site.looped else found.obstacle,
        uses=() if site.looped else found.uses,
    )


def _crossing(sites: list[KernelSite], flow: Flow) -> set[str]:
    """Paths of the attention layers with queries, keys and values from more than one step."""
    origins: dict[str, set[int | None]] = {}
    for site in sites:
        if site.attention and site.role != "attention_output" and site.position is not None:
            origins.setdefault(site.attention, set()).add(flow.input_of(site.position))
    return {path for path, found in origins.items() if len(found) > 1}


def _is_leaf(layer: Layer) -> bool:
    """Whether the trace takes a layer as one step and does not run its `call`."""
    # Loops and wrappers run layers inside in ways that a symbolic run does not show. TimeDistributed is an
    # exception: the trace runs the wrapped layer on one time step.
    if known_class(layer) or (isinstance(layer, ONE_STEP) and not isinstance(layer, layers.TimeDistributed)):
        return True
    builtin = is_layer_of_keras(layer)
    return builtin and not flatten_layers(layer, include_self=False) and not isinstance(layer, layers.Lambda)


def _chain(layer: Layer) -> int:
    """How many kernels in a row a layer has, if it is one step of the trace."""
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
    """The sites as their layers alone tell; a kernel that several layers hold comes several times."""
    paths = layer_paths(model)
    # Keras lists a shared layer once for each place that holds it.
    found = list({id(layer): layer for layer in flatten_layers(model)}.values())
    attention = {
        id(layer): (layer.name, paths[id(parent)])
        for parent in found
        if _is_attention(parent)
        for layer in flatten_layers(parent, include_self=False, recursive=False)
        if layer.name in ROLES
    }
    # Inside a loop no hook sees values, so that these kernels get an obstacle.
    looped = {id(layer) for parent in found if isinstance(parent, LOOPS) for layer in flatten_layers(parent)}
    for layer in found:
        role, parent = attention.get(id(layer), ("", ""))
        for kernel in _kernels(layer):
            site = _site(layer, kernel, paths[id(layer)], role, id(layer) in looped)
            yield dataclasses.replace(site, attention=parent) if parent else site


def _once(sites: Iterator[KernelSite]) -> Iterator[KernelSite]:
    """Each kernel once, as the site of the first layer of a known class that holds it."""
    by_kernel: dict[int, list[KernelSite]] = {}
    for site in sites:
        by_kernel.setdefault(id(site.kernel), []).append(site)
    for group in by_kernel.values():
        # A layer that only borrows a kernel, such as a tied head, is often of an unknown class.
        first = next((site for site in group if site.fans is not None), group[0])
        others = tuple(site for site in group if site is not first)
        yield dataclasses.replace(first, shared=others) if others else first


def _is_attention(layer: Layer) -> bool:
    """Whether a layer is Keras' attention, or a user's with Keras' names for the four projections."""
    names = {sub.name for sub in flatten_layers(layer, include_self=False, recursive=False)}
    return isinstance(layer, ATTENTION) or names >= set(ROLES)


def _kernels(layer: Layer) -> list[Any]:
    base, rule = rule_of(layer)
    quantized = base is not None and getattr(layer, "quantization_mode", None)
    hidden = [quantized_weight(layer, name) for name in rule.kernels] if quantized else []
    # A wrapper may list the kernel of the layer inside as its own.
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
    adapter = adapter_of(layer)
    if adapter and kernel.name in FACTORS:
        return factor_site(kernel, path, adapter, looped)
    known: Kernel | None = rule.kernels.get(kernel.name)
    plain = known is not None and known.role in SCALES
    axes = axes_of(layer, base, known, kernel)
    layout = layout_of(layer, known)
    skip = skip_of(layer)
    fans = None
    if known and not plain and not getattr(layer, "quantization_mode", None):
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
        looped=looped,
        adapter=adapter if adapter and kernel is adapter.kernel else None,
    )


def _place(site: KernelSite, flow: Flow) -> KernelSite:
    site = dataclasses.replace(site, **vars(flow.place(site.layer, site.kernel, site.role)))
    if site.role == "embedding" and id(site.kernel) in flow.multiplied:
        site = dataclasses.replace(site, tied=True, obstacle=TIED)
    if site.fans is None and not site.skip and not site.is_scale:
        name = type(site.layer).__name__
        why = f": {site.obstacle}" if site.obstacle else ""
        note = f"what {name} does with it is not known{why}; teach it with keras_initx.walk.register"
        return dataclasses.replace(site, note=note)
    return site
