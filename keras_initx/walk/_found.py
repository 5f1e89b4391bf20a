"""What the operations of a model tell of the kernels of layers that no table has.

A kernel of such a layer is a weight that a product, a convolution or a lookup takes. `keras_initx.uses` finds
these operations; here they become the attributes of a `KernelSite`.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from keras_initx._types import Model, Variable
from keras_initx.checks import first_line
from keras_initx.fans import Fans, Layout, compute_fans
from keras_initx.uses import Convolve, Use, find_uses
from keras_initx.walk._inputs import candidate_inputs

__all__ = ["Found", "find"]

# Roles of kernels, by what takes them.
_ROLES = {"convolution": "conv", "gather": "embedding", "product": "dense"}


@dataclasses.dataclass(frozen=True)
class Found:
    """The part of a `KernelSite` that the operations tell; the docstring there explains the attributes.

    Attributes:
        uses: All operations that take the kernel itself.
    """

    role: str
    bias: Any
    axes: tuple[tuple[int, ...], tuple[int, ...]] | None
    layout: Layout | None
    unit_axes: tuple[tuple[int, ...], tuple[int, ...]] | None
    fans: Fans | None
    obstacle: str
    uses: tuple[Use, ...]


def find(model: Model, variables: Sequence[Variable]) -> tuple[dict[int, Found | None], str]:
    """Runs a model without values, and returns what its operations tell of weights.

    Args:
        model: A built Keras model or layer.
        variables: The weights to ask for.

    Returns:
        For the id of each weight that something takes what is known of it: None for a weight that no product,
        convolution or lookup takes. And the reason why nothing is known, or "".
    """
    failure = "its input shapes are not known: build or call it first"
    for args, kwargs in candidate_inputs(model):
        try:
            uses = find_uses(model, args, kwargs, variables)
        except Exception as error:  # a user's layer may raise anything on tensors without values
            failure = f"it does not run on tensors without values ({first_line(error, kind=True)})"
            continue
        grouped: dict[int, list[Use]] = {}
        for use in uses:
            grouped.setdefault(id(use.variable), []).append(use)
        return {key: _found(own) for key, own in grouped.items()}, ""
    return {}, failure


def _found(uses: list[Use]) -> Found | None:
    kernel = [use for use in uses if use.is_kernel]
    lost = next((use for use in uses if use.kind == "unknown"), None)
    if not kernel:
        # Added, scaled or joined to a signal, it is no kernel. Inside an operation that is not known, it may
        # be.
        obstacle = f"it goes into `{lost.operation}`, into which nothing looks" if lost else ""
        return Found("other", None, None, None, None, None, obstacle, ()) if lost else None
    # A norm of the weight may be computed first, of the weight alone.
    first = next((use for use in kernel if use.roles and not use.factor), kernel[0])
    shape = tuple(first.variable.shape)
    if first.roles is None:
        obstacle = _obstacle(uses, kernel)
        return Found(_ROLES[first.kind], None, None, None, None, None, obstacle, tuple(kernel))
    axes, layout = _meaning(first)
    input_axes, output_axes = axes or (None, None)
    # The field of a convolution counts in both fans, for which axes alone have no word.
    counted = layout is None and (axes is None or first.convolution is not None)
    return Found(
        role=_role(first, layout),
        bias=first.bias,
        axes=axes,
        layout=layout,
        unit_axes=first.unit_axes,
        fans=_counted(first) if counted else compute_fans(shape, input_axes, output_axes, layout),
        obstacle=_obstacle(uses, kernel),
        uses=tuple(kernel),
    )


def _role(use: Use, layout: Layout | None) -> str:
    if use.kind == "convolution" and layout is not None:
        return layout.kind
    return "einsum" if use.kind == "product" and len(use.variable.shape) > 2 else _ROLES[use.kind]


def _meaning(use: Use) -> tuple[tuple[tuple[int, ...], tuple[int, ...]] | None, Layout | None]:
    """The axes of a kernel as initializers take them: by their numbers, or as a layout in Keras' order."""
    roles, rank = use.roles, len(use.variable.shape)
    if roles is None or not roles.clear:
        return None, None
    field, inputs, outputs, batch = (roles.axes(name) for name in ("field", "inputs", "outputs", "batch"))
    if use.convolution is not None:
        layout = _layout(use, use.convolution)
    elif use.kind == "gather":
        layout = Layout("embedding") if rank == 2 and _on(use, batch, 0) and _on(use, outputs, 1) else None
    else:
        dense = rank == 2 and _on(use, inputs, 0) and _on(use, outputs, 1) and not batch
        layout = Layout("dense") if dense else None
    return (None, layout) if layout else (((*field, *inputs), outputs), None)


def _layout(use: Use, details: Convolve) -> Layout | None:
    """The layout of a kernel of a convolution; None if its axes stand in no order that Keras has."""
    roles, rank = use.roles, len(use.variable.shape)
    if (
        roles is None
        or len(details.strides) != rank - 2
        or not _on(use, roles.axes("field"), *range(rank - 2))
    ):
        return None
    inputs, outputs, batch = (roles.axes(name) for name in ("inputs", "outputs", "batch"))
    before, last, strides = rank - 2, rank - 1, details.strides
    if batch and _on(use, batch, before) and _on(use, outputs, last):
        return Layout("depthwise", strides=strides)
    if not details.transposed and _on(use, inputs, before) and _on(use, (*batch, *outputs), last):
        return Layout("conv", groups=details.groups, strides=strides)
    # JAX runs a transposed convolution without strides as a plain one.
    turned = not batch and _on(use, inputs, last) and _on(use, outputs, before)
    spread = details.transposed or all(stride == 1 for stride in strides)
    return Layout("transposed", strides=strides) if turned and spread else None


def _on(use: Use, axes: tuple[int, ...], *wanted: int) -> bool:
    """Whether a role has these axes of a kernel. An axis of size 1 has no role: it may stand for any."""
    return axes == tuple(axis for axis in wanted if use.variable.shape[axis] != 1)


def _counted(use: Use) -> Fans | None:
    """Fans of a kernel from the numbers of entries in each role alone."""
    roles, details = use.roles, use.convolution
    if roles is None:
        return None
    field, inputs, outputs = roles.size("field"), roles.size("inputs"), roles.size("outputs")
    if details is None:
        return Fans(field * inputs, field * outputs)
    # Outputs of all groups may lie on one axis; a stride divides a fan, as in `compute_fans`.
    outputs = outputs * roles.size("batch") // details.groups
    stride = math.prod(details.strides)
    strides = (stride, 1) if details.transposed else (1, stride)
    sizes = (field * inputs / strides[0], field * outputs / strides[1])
    return Fans(*(int(size) if size.is_integer() else size for size in sizes))


def _obstacle(uses: list[Use], kernel: list[Use]) -> str:
    """Why scaling the kernel does not scale the output of the operation that takes it; empty if it does."""
    if reason := next(filter(None, map(_reason, uses)), ""):
        return reason
    ways = {(use.kind, use.roles) for use in kernel}
    return "several operations take its kernel in different ways" if len(ways) > 1 else ""


def _reason(use: Use) -> str:
    if use.looped:
        return "it runs inside a loop or a branch of the backend"
    if not use.is_kernel:
        return f"its kernel also goes into `{use.operation}`"
    if use.change:
        return f"its kernel goes through `{use.change}` before it is used"
    if use.generates:
        return "its output is the kernel of another product, as in a hypernetwork"
    if use.shifted:
        return "what is added to its output was made of another weight"
    if not use.alone:
        return "its kernel lies beside other weights in one operand"
    return "" if use.roles else f"the axes of its kernel in `{use.operation}` are not known"
