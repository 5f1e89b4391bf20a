"""TensorFlow's operations in common words."""

from typing import Any

from keras_initx.uses._operations import (
    Across,
    Combine,
    Contract,
    Convolve,
    Effect,
    Gather,
    Inner,
    Move,
    Operation,
    Other,
    Reduce,
    Reshape,
    Tile,
)
from keras_initx.uses._tensorflow_parts import PARTS, attribute, pad_or_turn, parts, text, value

__all__ = ["constant", "effect", "number", "title"]

# All of them are linear and move no axis.
_COPIES = (*("Cast", "Identity", "Neg", "PreventGradient", "ReadVariableOp", "Snapshot", "StopGradient"),)
_COMBINE = {
    **dict.fromkeys(("Add", "AddV2", "BiasAdd", "Sub"), "adds"),
    **dict.fromkeys(("Div", "RealDiv"), "divides"),
    "Mul": "scales",
    **dict.fromkeys(("Maximum", "Minimum", "Pow", "SquaredDifference"), "other"),
}
# Their bodies are graphs of their own, whose operations the callback has seen.
_OPENED = ("If", "PartitionedCall", "StatefulPartitionedCall", "StatelessIf", "StatelessWhile", "While")
# Operations on signals by Keras' names.
_TITLES = {
    "AvgPool": "AveragePool", "AvgPool3D": "AveragePool", "MaxPool3D": "MaxPool", "Neg": "Negative",
    "PadV2": "Pad", "SelectV2": "Where",
    **{name: name for name in (
        "Cos", "Elu", "Erf", "Erfc", "Exp", "MaxPool", "Mean", "Pad", "Reciprocal", "Relu", "Relu6", "Rsqrt",
        "Selu", "Sigmoid", "Sin", "Softmax", "Softplus", "Softsign", "Tanh", "Tile",
    )},
}  # fmt: skip
_REDUCTIONS = ("Max", "Mean", "Min", "Prod", "Sum")
_FIELDS = {"Conv2D": 2, "Conv3D": 3, "Conv2DBackpropInput": 2, "Conv3DBackpropInputV2": 3}


def title(operation: Operation) -> str:
    """The class of Keras' operation that does the same to a signal; empty if `effect` tells it."""
    return _TITLES.get(operation.name, "")


def number(tensor: Any) -> float | None:
    """The number that a tensor of no axes holds; None if it is not known, or no number."""
    found = value(tensor)
    return float(found) if found is not None and found.ndim == 0 and found.dtype.kind in "fiu" else None


def constant(tensor: Any) -> Any:
    """The value of a constant; None if it is not known."""
    return value(tensor)


def effect(operation: Operation) -> Effect:
    """What an operation does to the axes of its operands."""
    name, inputs = operation.name, operation.inputs
    if name == "MatMul":
        return _matmul(
            operation, bool(attribute(operation, "transpose_a")), bool(attribute(operation, "transpose_b"))
        )
    if name.startswith("BatchMatMul"):
        return _matmul(operation, bool(attribute(operation, "adj_x")), bool(attribute(operation, "adj_y")))
    if name == "Einsum":
        return _einsum(operation)
    if name in _FIELDS or name == "DepthwiseConv2dNative":
        return _convolve(operation)
    if name in ("GatherV2", "ResourceGather", "Gather"):
        return _gather(operation)
    if name in _COPIES:
        return Move(tuple(range(len(operation.outputs[0].shape))))
    if name in ("Pad", "PadV2", "ReverseV2"):
        return pad_or_turn(operation)
    if name == "Transpose":
        axes = value(inputs[1])
        return Other() if axes is None else Move(tuple(int(axis) for axis in axes))
    if name == "BroadcastTo":
        added = len(operation.outputs[0].shape) - len(inputs[0].shape)
        return Move((*(None,) * added, *range(len(inputs[0].shape))))
    if name in ("Reshape", "ExpandDims", "Squeeze"):
        return Reshape()
    if name == "Tile":
        return Tile()
    if name == "BatchToSpaceND":  # after a dilated convolution: the channels stay in place
        folded = 1 + int(inputs[1].shape[0])
        return Move((*(None,) * folded, *range(folded, len(inputs[0].shape))))
    if name in PARTS:
        return parts(operation)
    if name in _OPENED:
        return Inner()
    if name in _REDUCTIONS:
        return _reduce(operation)
    if name in ("LogSoftmax", "Softmax"):
        return Across((len(inputs[0].shape) - 1,))
    return Combine(_COMBINE[name]) if name in _COMBINE else Other()  # type: ignore[arg-type]


def _matmul(operation: Operation, first_turned: bool, second_turned: bool) -> Contract:
    left, right = (list(tensor.shape) for tensor in operation.inputs[:2])
    rank = max(len(left), len(right))
    batch = [f"b{place}" for place in range(rank - 2)]

    def labels(shape: list[Any], pair: list[str], turned: bool) -> tuple[str | None, ...]:
        own = batch[rank - len(shape) :]
        sized = (None if size == 1 else label for label, size in zip(own, shape, strict=False))
        return (*sized, *(pair[::-1] if turned else pair))

    return Contract(
        labels(left, ["m", "k"], first_turned), labels(right, ["k", "n"], second_turned), (*batch, "m", "n")
    )


def _einsum(operation: Operation) -> Effect:
    equation = text(operation, "equation")
    terms, out = equation.replace(" ", "").split("->")
    sides = terms.split(",")
    if len(sides) != 2:
        return Other()

    def labels(term: str, rank: int) -> tuple[str, ...]:
        before, dots, after = term.partition("...")
        count = rank - len(before) - len(after) if dots else 0
        # Broadcast axes align at the right.
        return (*before, *(f".{n}" for n in range(count, 0, -1)), *after)

    ranks = [len(tensor.shape) for tensor in operation.inputs]
    left, right = (labels(term, rank) for term, rank in zip(sides, ranks, strict=True))
    return Contract(left, right, labels(out, len(operation.outputs[0].shape)))


def _convolve(operation: Operation) -> Convolve:
    name = operation.name
    kernel, transposed = operation.inputs[1], "Backprop" in name
    count = _FIELDS.get(name, 2)
    first = text(operation, "data_format").startswith("NC")
    rank = count + 2
    on = slice(2, rank) if first else slice(1, rank - 1)
    strides = tuple(int(n) for n in attribute(operation, "strides"))[on]
    dilation = tuple(int(n) for n in attribute(operation, "dilations"))[on]
    inputs, outputs = (count + 1, count) if transposed else (count, count + 1)
    depthwise = name == "DepthwiseConv2dNative"
    channels = 1 if first else rank - 1
    groups = 1
    if depthwise:
        groups = int(kernel.shape[2])
    elif not transposed:
        groups = max(int(operation.inputs[0].shape[channels]) // int(kernel.shape[count]), 1)
    padding = _padding(operation, tuple(int(n) for n in kernel.shape[:count]), strides, dilation, on)
    return Convolve(
        tuple(range(count)), inputs, outputs, channels, groups, strides, dilation, padding, transposed,
        depthwise=depthwise,
    )  # fmt: skip


def _padding(
    operation: Operation,
    field: tuple[int, ...],
    strides: tuple[int, ...],
    dilation: tuple[int, ...],
    on: slice,
) -> tuple[tuple[int, int], ...] | None:
    how = text(operation, "padding")
    if how == "VALID":
        return ((0, 0),) * len(field)
    if how == "EXPLICIT":
        flat = [int(n) for n in attribute(operation, "explicit_paddings")]
        return tuple(zip(flat[::2], flat[1::2], strict=True))[on]
    if "Backprop" in operation.name:
        return None
    found = []
    for n, k, s, d in zip(operation.inputs[0].shape[on], field, strides, dilation, strict=True):
        total = max((-(-int(n) // s) - 1) * s + (k - 1) * d + 1 - int(n), 0)
        found.append((total // 2, total - total // 2))
    return tuple(found)


def _gather(operation: Operation) -> Effect:
    indices = operation.inputs[1]
    rank = len(operation.outputs[0].shape) - len(indices.shape) + 1
    axis = value(operation.inputs[2]) if operation.name == "GatherV2" else 0
    batched = operation.name != "Gather" and int(attribute(operation, "batch_dims") or 0)
    if axis is None or batched:
        return Other()
    axis = int(axis) % rank
    added = len(indices.shape)
    rest = (*range(axis), *(place - 1 + added for place in range(axis + 1, rank)))
    return Gather(axis, rest)


def _reduce(operation: Operation) -> Effect:
    axes = value(operation.inputs[1])
    if axes is None:
        return Other()
    rank = len(operation.inputs[0].shape)
    return Reduce(
        tuple(int(axis) % rank for axis in axes.reshape(-1)), bool(attribute(operation, "keep_dims"))
    )
