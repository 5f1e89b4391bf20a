"""JAX's primitives in common words."""

from typing import Any

import numpy as np

from keras_initx.uses._operations import (
    Across,
    Combine,
    Concatenate,
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
    Shrink,
    Tile,
)

__all__ = ["TITLES", "constant", "effect", "number", "title"]

# A convolution transposed turns its taps around, which moves no axis.
_COPIES = (
    "convert_element_type", "copy", "copy_p", "neg", "optimization_barrier", "reduce_precision",
    "stop_gradient",
)  # fmt: skip
# Operations on signals by Keras' names: primitives, and functions that JAX compiles whole.
TITLES = {
    "_where": "Where", "logistic": "Sigmoid", "neg": "Negative", "soft_sign": "Softsign",
    "log_sigmoid": "LogSigmoid",
    **{name: name.title() for name in (
        "cos", "erf", "exp", "gelu", "pad", "relu", "relu6", "rsqrt", "selu", "sigmoid", "silu", "sin",
        "softmax", "softplus", "tanh", "tile",
    )},
}  # fmt: skip
_COMBINE = {"add": "adds", "sub": "adds", "add_any": "adds", "mul": "scales", "div": "divides"}
_OF_TWO = (
    "and", "atan2", "eq", "ge", "gt", "le", "lt", "max", "min", "ne", "or", "pow", "rem", "select_n", "xor",
)  # fmt: skip


def title(operation: Operation) -> str:
    """The class of Keras' operation that does the same to a signal; empty if `effect` tells it."""
    return TITLES.get(operation.name, "")


def number(tensor: Any) -> float | None:
    """The number that an array of no axes holds; None if it is not known, or no number."""
    # A tracer has no value, not even that of a constant; a number or an array does.
    if "Tracer" in type(tensor).__name__ or tensor.ndim or tensor.dtype.kind not in "fiu":
        return None
    return float(np.asarray(tensor))  # not an operation of JAX, which the trace would see


def constant(tensor: Any) -> Any:
    """The value of a constant; None if it is not known."""
    return None if "Tracer" in type(tensor).__name__ else np.asarray(tensor)


def effect(operation: Operation) -> Effect:
    """What a primitive does to the axes of its operands."""
    name, (_, params) = operation.name, operation.raw
    if name == "dot_general":
        return _contract(operation)
    if name == "conv_general_dilated":
        return _convolve(params)
    if name == "gather":
        return _gather(operation)
    if name == "transpose":
        return Move(tuple(params["permutation"]))
    if name == "broadcast_in_dim":
        places = {place: own for own, place in enumerate(params["broadcast_dimensions"])}
        return Move(tuple(places.get(axis) for axis in range(len(params["shape"]))))
    if name in ("reshape", "squeeze", "expand_dims"):
        return Reshape()
    if name == "tile":
        return Tile()
    if name in _COPIES:
        return Move(tuple(range(len(operation.outputs[0].shape))))  # the input may be a Python number
    if name == "rev" or (name == "pad" and "padding_config" in params):
        return _turn_or_pad(params, len(operation.outputs[0].shape))
    if name in ("cond", "scan"):  # shown one by one
        return Inner()
    if name == "slice":
        steps = params["strides"] or (1,) * len(params["start_indices"])
        return Shrink(first={a: n for a, n in enumerate(params["start_indices"]) if steps[a] == 1})
    if name in ("dynamic_slice", "split"):
        return Shrink()
    if name.startswith("reduce_") and "axes" in params:
        return Reduce(tuple(params["axes"]))
    if name == "concatenate":
        return Concatenate(params["dimension"], len(operation.inputs))
    if name == "stack" and "axis" in params:
        return Concatenate(params["axis"], len(operation.inputs), stacked=True)
    if name == "unstack":
        return Shrink(tuple(a for a in range(len(operation.inputs[0].shape)) if a != params["axis"]))
    if name in _COMBINE:
        return Combine(_COMBINE[name])  # type: ignore[arg-type]
    if name in _OF_TWO and len(operation.inputs) == 2:
        return Combine("other")
    return Other()


def _turn_or_pad(params: dict[str, Any], rank: int) -> Move:
    sides = [(-1, -1) if inner else (n, m) for n, m, inner in params.get("padding_config", ())]
    pads = {axis: pair for axis, pair in enumerate(sides) if any(pair)}
    return Move(tuple(range(rank)), pads, tuple(params.get("dimensions", ())))


def _contract(operation: Operation) -> Contract:
    (left_sum, right_sum), (left_batch, right_batch) = operation.raw[1]["dimension_numbers"]
    left: list[Any] = [f"l{axis}" for axis in range(len(operation.inputs[0].shape))]
    right: list[Any] = [f"r{axis}" for axis in range(len(operation.inputs[1].shape))]
    for kind, pairs in (
        ("s", zip(left_sum, right_sum, strict=True)),
        ("b", zip(left_batch, right_batch, strict=True)),
    ):
        for number, (one, other) in enumerate(pairs):
            left[one] = right[other] = f"{kind}{number}"
    out = [f"b{number}" for number in range(len(left_batch))]
    out += [label for label in (*left, *right) if label[0] in "lr"]
    return Contract(tuple(left), tuple(right), tuple(out))


def _convolve(params: dict[str, Any]) -> Convolve:
    numbers = params["dimension_numbers"]
    outputs, inputs, *field = numbers.rhs_spec
    spread = tuple(params["lhs_dilation"])
    transposed = any(factor > 1 for factor in spread)
    return Convolve(
        tuple(field),
        inputs,
        outputs,
        numbers.out_spec[1],
        params["feature_group_count"],
        spread if transposed else tuple(params["window_strides"]),
        tuple(params["rhs_dilation"]),
        tuple(map(tuple, params["padding"])),
        transposed,
    )


def _gather(operation: Operation) -> Effect:
    _, params = operation.raw
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    table = operation.inputs[0].shape
    looked_up = tuple(numbers.start_index_map)
    whole = all(size == table[axis] for axis, size in enumerate(sizes) if axis not in looked_up)
    if len(looked_up) != 1 or tuple(numbers.collapsed_slice_dims) != looked_up or not whole:
        stay = [axis for axis, size in enumerate(sizes) if size == table[axis] and axis not in looked_up]
        kept = stay and tuple(stay) == tuple(numbers.offset_dims)
        return Across(tuple(axis for axis in range(len(table)) if axis not in stay)) if kept else Other()
    return Gather(looked_up[0], tuple(numbers.offset_dims))
