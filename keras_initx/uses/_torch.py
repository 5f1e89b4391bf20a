"""torch: a dispatch mode, which sees each operation below autograd, on tensors with or without values."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_initx._types import Tensor, Variable
from keras_initx.uses._operations import (
    Across,
    Combine,
    Concatenate,
    Contract,
    Convolve,
    Effect,
    Gather,
    Move,
    Operation,
    Other,
    Reduce,
    Reshape,
    Shrink,
    Tile,
)
from keras_initx.uses._tracker import Tracker

__all__ = ["constant", "effect", "gradient_at", "shown", "title", "value_of"]

# All of them are linear and move no axis.
_COPIES = (*("_to_copy", "alias", "clone", "contiguous", "detach", "lift_fresh", "neg", "to"),)
_MOVES = (
    *_COPIES,
    *("broadcast_to", "constant_pad_nd", "expand", "flip", "numpy_T", "permute", "t", "transpose"),
)
_RESHAPES = (
    "_reshape_alias",
    "_unsafe_view",
    "flatten",
    "reshape",
    "squeeze",
    "unflatten",
    "unsqueeze",
    "view",
)
_REDUCTIONS = ("amax", "amin", "mean", "prod", "sum", "var")
_SOFTMAX = ("_log_softmax", "_safe_softmax", "_softmax")
_SPLITS = ("narrow", "slice", "split", "split_with_sizes", "chunk")
_COMBINE = {
    **dict.fromkeys(("add", "add_", "rsub", "sub"), "adds"),
    "div": "divides",
    "mul": "scales",
    **dict.fromkeys(("maximum", "minimum", "pow"), "other"),
}
# Operations on signals by Keras' names.
_TITLES = {
    "_softmax": "Softmax", "avg_pool2d": "AveragePool", "avg_pool3d": "AveragePool", "constant_pad_nd": "Pad",
    "max_pool2d_with_indices": "MaxPool", "max_pool3d_with_indices": "MaxPool", "neg": "Negative",
    "repeat": "Tile",
    **{name: name.title() for name in (
        "cos", "erf", "exp", "gelu", "mean", "reciprocal", "relu", "rsqrt", "sigmoid", "silu", "sin",
        "softplus", "tanh", "where",
    )},
}  # fmt: skip
# Labels of matrix products, and the place of a term that is added.
_PRODUCTS: dict[str, tuple[str, str, str, int | None]] = {
    "mm": ("mk", "kn", "mn", None),
    "bmm": ("bmk", "bkn", "bmn", None),
    "mv": ("mk", "k", "m", None),
    "dot": ("k", "k", "", None),
    "addmm": ("mk", "kn", "mn", 0),
    "baddbmm": ("bmk", "bkn", "bmn", 0),
    "addmv": ("mk", "k", "m", 0),
}


@contextlib.contextmanager
def shown(tracker: Tracker) -> Iterator[None]:
    """Shows a tracker each operation that this thread runs while the block is open."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Showing(TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            found = function(*args, **(kwargs or {}))
            several = isinstance(found, tuple | list)
            inputs = [*args, *(kwargs or {}).values()]
            flat = [t for entry in inputs for t in (entry if isinstance(entry, tuple | list) else (entry,))]
            outputs = list(found) if several else [found]
            if not all(isinstance(output, torch.Tensor) for output in outputs):
                return found
            name = function.overloadpacket.__name__
            replaced = tracker.see(Operation(name, flat, outputs, (function, args)))
            if replaced is None:
                return found
            return type(found)(replaced) if several else replaced[0]

    with Showing():
        yield


def value_of(variable: Variable) -> Tensor:
    """The value of a weight as a tensor."""
    return variable.value


def gradient_at(operation: Operation, place: int, gradient: Tensor) -> Tensor:
    """The gradient at an input of an operation that ran, from the gradient at its output."""
    import torch

    function, args = operation.raw
    with torch.enable_grad():
        point = operation.inputs[place].detach().requires_grad_()
        output = function(*(point if one is operation.inputs[place] else one for one in args))
        return torch.autograd.grad(output, point, gradient)[0]


def title(operation: Operation) -> str:
    """The class of Keras' operation that does the same to a signal; empty if `effect` tells it."""
    name, (_, args) = operation.name.rstrip("_"), operation.raw
    if name == "elu":  # it has three factors, and makes SELU, too
        factors = tuple(round(float(factor), 4) for factor in args[1:])
        return {(): "Elu", (1.0,): "Elu", (1.6733, 1.0507): "Selu"}.get(factors, "")
    if name in ("clamp", "clamp_min", "hardtanh"):
        return {(0,): "Relu", (0, None): "Relu", (0, 6): "Relu6"}.get(tuple(args[1:3]), "")
    return _TITLES.get(name, "")


def number(tensor: Any) -> float | None:
    """The number that a tensor of no axes holds; None if it is not known."""
    found = constant(tensor)
    return float(found) if found is not None and found.ndim == 0 else None


def constant(tensor: Any) -> Any:
    """The value of a constant; None if it is not known."""
    from torch.utils._python_dispatch import _disable_current_modes

    if type(tensor).__name__ == "FakeTensor":  # which has no value, unless it was made of one
        tensor = getattr(tensor, "constant", None)
    if not hasattr(tensor, "detach") or tensor.device.type == "meta":
        return None
    with _disable_current_modes():
        return np.asarray(tensor.detach().cpu().tolist())


def effect(operation: Operation) -> Effect:
    """What an operation does to the axes of its operands."""
    name, (_, args) = operation.name, operation.raw
    if name in _PRODUCTS:
        left, right, out, shift = _PRODUCTS[name]
        operands = (0, 1) if shift is None else (1, 2)
        return Contract(tuple(left), tuple(right), tuple(out), operands, shift)
    if name == "convolution":
        return _convolve(args)
    rank = len(operation.inputs[0].shape) if hasattr(operation.inputs[0], "shape") else 0
    if name == "embedding":
        return Gather(0, (len(operation.outputs[0].shape) - 1,))
    if name == "index_select":
        axis = args[1] % rank
        return Gather(axis, tuple(place for place in range(rank) if place != axis))
    if name == "gather":  # each entry has an index of its own, so that the other axes stay
        return Across((args[1] % rank,))
    if name == "index":
        return _index(args, rank)
    if name in _MOVES:
        return _move(operation, name, rank)
    if name == "repeat":
        return Tile()
    if name in _RESHAPES:
        return Reshape()
    if name in (*_SPLITS, "select", "unbind"):
        return _cut(operation, name, rank)
    if name in _REDUCTIONS:
        return _reduce(args, rank)
    if name in _SOFTMAX:
        return Across((args[1] % rank,))
    if name in ("cat", "stack"):
        axis = (args[1] if len(args) > 1 else 0) % len(operation.outputs[0].shape)
        return Concatenate(axis, len(args[0]), stacked=name == "stack")
    return Combine(_COMBINE[name]) if name in _COMBINE else Other()  # type: ignore[arg-type]


def _move(operation: Operation, name: str, rank: int) -> Move:
    """The effect of an operation that copies, transposes, broadcasts, pads or turns a tensor."""
    _, args = operation.raw
    if name == "flip":
        return Move(tuple(range(rank)), turned=tuple(axis % rank for axis in args[1]))
    if name == "constant_pad_nd":  # the numbers of the last axis come first
        pairs = zip(args[1][::2], args[1][1::2], strict=True)
        return Move(tuple(range(rank)), {rank - 1 - n: pair for n, pair in enumerate(pairs) if any(pair)})
    if name == "permute":
        return Move(tuple(axis % rank for axis in args[1]))
    if name in ("transpose", "t", "numpy_T"):
        one, other = (args[1] % rank, args[2] % rank) if name == "transpose" else (0, rank - 1)
        swapped = {one: other, other: one}
        return Move(tuple(swapped.get(axis, axis) for axis in range(rank)))
    if name in ("expand", "broadcast_to"):
        added = len(operation.outputs[0].shape) - rank
        return Move((*(None,) * added, *range(rank)))
    return Move(tuple(range(rank)))


def _cut(operation: Operation, name: str, rank: int) -> Shrink:
    """The effect of an operation that keeps a part of a tensor."""
    _, args = operation.raw
    if name == "slice":
        axis, first = (*args[1:3], 0, 0)[:2]
        size = operation.inputs[0].shape[axis]
        if len(args) > 4 and args[4] != 1:
            return Shrink()
        return Shrink(first={axis % rank: first + size if first < 0 else first})
    if name in _SPLITS:
        return Shrink()
    axis = (args[1] if len(args) > 1 else 0) % rank
    return Shrink(tuple(place for place in range(rank) if place != axis))


def _reduce(args: Sequence[Any], rank: int) -> Reduce:
    given = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else args[1:2]
    axes = tuple(axis % rank for axis in given if isinstance(axis, int)) or tuple(range(rank))
    return Reduce(axes, keeps=len(args) > 2 and bool(args[2]))


def _convolve(args: Sequence[Any]) -> Convolve:
    _, kernel, bias, strides, padding, dilation, transposed, _, groups = args
    field = tuple(range(2, len(kernel.shape)))
    # Kernels are (outputs, inputs / groups, *field), those of a transposed convolution (inputs, outputs,
    # *field).
    inputs, outputs = (0, 1) if transposed else (1, 0)
    pads = None if transposed else tuple((int(n), int(n)) for n in padding)
    return Convolve(
        field, inputs, outputs, 1, groups, tuple(strides), tuple(dilation), pads, bool(transposed),
        shift=None if bias is None else 2,
    )  # fmt: skip


def _index(args: Sequence[Any], rank: int) -> Effect:
    chosen = [place for place, index in enumerate(args[1]) if index is not None]
    if len(chosen) != 1:
        return Other()
    (axis,) = chosen
    added = len(args[1][axis].shape)
    return Gather(axis, (*range(axis), *(place - 1 + added for place in range(axis + 1, rank))))
