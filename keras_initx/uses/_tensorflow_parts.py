"""TensorFlow's operations that cut tensors, pad them, or put several together; and what operations hold."""

from typing import Any

from keras_initx.uses._operations import Concatenate, Effect, Move, Operation, Other, Shrink

__all__ = ["PARTS", "attribute", "pad_or_turn", "parts", "text", "value"]

PARTS = ("ConcatV2", "Pack", "Slice", "Split", "SplitV", "StridedSlice", "Unpack")


def attribute(operation: Operation, name: str) -> Any:
    """An attribute of an operation, of a graph or eager."""
    output = operation.outputs[0]
    if hasattr(output, "op") and not hasattr(output, "numpy"):
        return output.op.get_attr(name)
    pairs = dict(zip(operation.raw[::2], operation.raw[1::2], strict=True))
    found = pairs.get(name)
    return found.decode() if isinstance(found, bytes) else found


def text(operation: Operation, name: str) -> str:
    """An attribute of an operation that holds a word."""
    found = attribute(operation, name)
    return found.decode() if isinstance(found, bytes) else str(found)


def value(tensor: Any) -> Any:
    """The value of a tensor that is a constant; None if it is not known."""
    from tensorflow import get_static_value

    return get_static_value(tensor)


def parts(operation: Operation) -> Effect:
    """The effect of an operation that cuts a tensor, or puts several together."""
    name, inputs = operation.name, operation.inputs
    if name == "Split":
        return Shrink(source=1)
    if name == "Slice":
        begin = value(inputs[1])
        return Shrink(first={} if begin is None else dict(enumerate(map(int, begin))))
    if name == "SplitV":
        return Shrink()
    if name == "StridedSlice":
        return _strided_slice(operation)
    if name == "Unpack":
        axis = int(attribute(operation, "axis")) % len(inputs[0].shape)
        return Shrink(tuple(a for a in range(len(inputs[0].shape)) if a != axis))
    if name == "ConcatV2":
        axis = value(inputs[-1])
        return (
            Other()
            if axis is None
            else Concatenate(int(axis) % len(operation.outputs[0].shape), len(inputs) - 1)
        )
    if name == "Pack":
        axis = int(attribute(operation, "axis")) % len(operation.outputs[0].shape)
        return Concatenate(axis, len(inputs), stacked=True)
    return Other()


def pad_or_turn(operation: Operation) -> Move:
    """The effect of an operation that pads axes, or turns their entries round."""
    rank, told = len(operation.outputs[0].shape), value(operation.inputs[1])
    own = tuple(range(rank))
    if operation.name == "ReverseV2":
        return Move(own, turned=own if told is None else tuple(int(axis) % rank for axis in told))
    pairs = [(-1, -1)] * rank if told is None else [(int(one), int(other)) for one, other in told]
    return Move(own, {axis: pair for axis, pair in enumerate(pairs) if any(pair)})


def _strided_slice(operation: Operation) -> Effect:
    begin, steps = value(operation.inputs[1]), value(operation.inputs[3])
    if begin is None:
        return Other()
    new, shrink, ellipsis, begins = (
        int(attribute(operation, f"{name}_mask") or 0)
        for name in ("new_axis", "shrink_axis", "ellipsis", "begin")
    )
    rank, entries = len(operation.inputs[0].shape), len(begin)
    axes: list[int | None] = []
    first: dict[int, int] = {}
    turned: list[int] = []
    here = 0
    for entry in range(entries):
        if ellipsis >> entry & 1:
            later = sum(not (new >> e & 1) for e in range(entry + 1, entries))
            while here < rank - later:
                axes.append(here)
                here += 1
        elif new >> entry & 1:
            axes.append(None)
        else:
            if not shrink >> entry & 1:
                axes.append(here)
                size, own = operation.inputs[0].shape[here], int(begin[entry])
                if steps is not None and int(steps[entry]) == -1:
                    turned.append(len(axes) - 1)
                if steps is None or int(steps[entry]) == 1:
                    first[here] = 0 if begins >> entry & 1 else own + size if own < 0 else own
            here += 1
    axes += range(here, rank)
    if turned:
        sizes = [None if axis is None else operation.inputs[0].shape[axis] for axis in axes]
        whole = all(one in (None, own) for one, own in zip(sizes, operation.outputs[0].shape, strict=True))
        return Move(tuple(axes), turned=tuple(turned)) if whole else Other()
    return Shrink(tuple(axes), first=first)
