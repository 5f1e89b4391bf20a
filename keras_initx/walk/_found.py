"""What the operations of a model tell of the kernels of layers that no table has.

A kernel of such a layer is a weight that a product, a convolution or a lookup takes. `keras_initx.uses` finds
these operations; here they become the attributes of a `KernelSite`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from keras_initx._types import Model, Variable
from keras_initx.checks import first_line
from keras_initx.fans import Fans, Layout, compute_fans
from keras_initx.uses import Use, find_uses
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
    first = kernel[0]
    shape = tuple(first.variable.shape)
    if first.roles is None:
        obstacle = _obstacle(uses, kernel)
        return Found(_ROLES[first.kind], None, None, None, None, None, obstacle, tuple(kernel))
    axes, layout = _meaning(first)
    clear = axes is not None or layout is not None
    input_axes, output_axes = axes or (None, None)
    return Found(
        role=_role(first, layout),
        bias=first.bias,
        axes=axes,
        layout=layout,
        unit_axes=first.unit_axes,
        fans=compute_fans(shape, input_axes, output_axes, layout) if clear else _counted(first),
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
    last, before = (rank - 1,), (rank - 2,)
    in_order = field == tuple(range(rank - 2))
    # A size of 1 has no factor: its axis may stand for whatever the order asks for.
    if use.convolution is not None and in_order and rank > 2:
        details = use.convolution
        strides = tuple(details.strides) or 1
        if details.transposed and inputs in (last, ()) and outputs in (before, ()):
            return None, Layout("transposed", strides=strides)
        if batch == before and outputs in (last, ()) and not inputs:
            return None, Layout("depthwise", strides=strides)
        if not details.transposed and not batch and inputs in (before, ()) and outputs in (last, ()):
            return None, Layout("conv", groups=details.groups, strides=strides)
    if use.kind == "gather" and rank == 2 and batch in ((0,), ()) and outputs in ((1,), ()):
        return None, Layout("embedding")
    if use.kind == "product" and rank == 2 and inputs in ((0,), ()) and outputs in ((1,), ()) and not batch:
        return None, Layout("dense")
    return ((*field, *inputs), outputs), None


def _counted(use: Use) -> Fans | None:
    """Fans of a kernel with an axis of two roles, from the numbers of entries alone."""
    if use.roles is None:
        return None
    field = use.roles.size("field")
    return Fans(field * use.roles.size("inputs"), field * use.roles.size("outputs"))


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
    if use.shifted:
        return "what is added to its output was made of another weight"
    if not use.alone:
        return "its kernel lies beside other weights in one operand"
    return "" if use.roles else f"the axes of its kernel in `{use.operation}` are not known"
