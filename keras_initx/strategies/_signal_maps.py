"""The table from layers and operations without kernels to maps of moments, which AutoInit reads.

A map takes a node of the trace and the moments of its operands. It returns the moments of the output, or None
if they are not known, for example because an axis is open. Then AutoInit scales the next kernel for (0, 1).
"""

import math
from collections.abc import Callable, Hashable, Sequence

import keras
import numpy as np

import keras_initx.strategies._moments as maps
from keras_initx._types import Activation
from keras_initx.strategies._moments import Moments
from keras_initx.walk import Node, Operand, with_effect

__all__ = ["constant", "map_signal", "softmax_size"]

Inputs = Sequence[Moments]
Map = Callable[[Node, Inputs], "Moments | None"]


def constant(value: object) -> Moments | None:
    """Moments of a number, an array or the current value of a variable; None for anything else."""
    try:
        array = np.asarray(keras.ops.convert_to_numpy(value), dtype="float64")
    except Exception:  # a string, a slice, a symbolic value: each backend raises errors of its own
        return None
    return Moments(float(array.mean()), float(array.var())) if array.size else None


def map_signal(node: Node, inputs: Inputs) -> Moments | None:
    """Returns the moments of the output of a node without kernels, or None if they are not known.

    Args:
        node: The node. If it has an activation, the caller applies it afterwards.
        inputs: Moments of the node's operands.
    """
    if node.kind in _PASSING:
        return inputs[0]
    return _MAPS[node.kind](node, inputs) if node.kind in _MAPS else None


def softmax_size(activation: Activation, shape: Sequence[int | None]) -> int:
    """How many weights sum to 1, if an activation is a softmax over one axis of known size; 0 otherwise."""
    name = activation if isinstance(activation, str) else type(activation).__name__.lower()
    axis = getattr(activation, "axis", -1)
    axis = axis[0] if isinstance(axis, tuple | list) and len(axis) == 1 else axis
    if name != "softmax" or not isinstance(axis, int) or not shape:
        return 0
    return shape[axis] or 0


def _signals(node: Node) -> list[Operand]:
    return [operand for operand in node.operands if operand.node is not None]


def _size(shape: Sequence[int | None]) -> int:
    """The number of elements; 0 if an axis is open."""
    return math.prod(size or 0 for size in shape)


def _is_channel(axis: int, rank: int) -> bool:
    # `ops.mean` and its like do not tell which axis holds the channels. Below four axes it is the last one.
    last = keras.config.image_data_format() == "channels_last" or rank < 4
    return axis % rank == (rank - 1 if last else 1)


def _reduced(node: Node) -> tuple[int, int] | None:
    """How many positions and how many channels a reduction takes together; None if an axis is open."""
    shape, axis = _signals(node)[0].shape, node.operation.axis
    axes = range(1, len(shape)) if axis is None else [axis] if isinstance(axis, int) else axis
    channels = [shape[a] or 0 for a in axes if _is_channel(a, len(shape))]
    positions = [shape[a] or 0 for a in axes if not _is_channel(a, len(shape))]
    return (math.prod(positions), math.prod(channels)) if all(positions + channels) else None


def _mean(node: Node, inputs: Inputs) -> Moments | None:
    counts = _reduced(node)
    return maps.averaged(inputs[0], *counts) if counts else None


def _sum(node: Node, inputs: Inputs) -> Moments | None:
    counts = _reduced(node)
    return maps.scaled(maps.averaged(inputs[0], *counts), math.prod(counts)) if counts else None


def _max(node: Node, inputs: Inputs) -> Moments | None:
    counts = _reduced(node)
    # Over channels no map is known: they share their inputs, but not their kernels.
    return maps.maximum(inputs[0], counts[0]) if counts and counts[1] == 1 else None


def _window(node: Node) -> int:
    """How many elements a pooling takes together; 0 if an axis is open."""
    size = getattr(node.operation, "pool_size", None)
    if size is None:  # global pooling: all positions
        before, after = _size(_signals(node)[0].shape), _size(node.shape)
        return before // after if after else 0
    return size ** (len(node.shape) - 2) if isinstance(size, int) else math.prod(size)


def _average_pool(node: Node, inputs: Inputs) -> Moments | None:
    window = _window(node)
    return maps.averaged(inputs[0], window) if window else None


def _max_pool(node: Node, inputs: Inputs) -> Moments | None:
    window = _window(node)
    return maps.maximum(inputs[0], window) if window else None


def _sum_of(node: Node, inputs: Inputs, signs: Sequence[float]) -> Moments:
    """A signed sum. A signal that comes twice counts as one signal of twice the size: x + x is 2 x."""
    factors: dict[Hashable, float] = {}
    terms: dict[Hashable, Moments] = {}
    for place, (operand, x, sign) in enumerate(zip(node.operands, inputs, signs, strict=True)):
        key = ("constant", place) if operand.node is None else operand.node
        factors[key] = factors.get(key, 0.0) + sign
        terms[key] = x
    return maps.added(list(terms.values()), list(factors.values()))


def _add(node: Node, inputs: Inputs) -> Moments:
    return _sum_of(node, inputs, [1.0] * len(inputs))


def _subtract(node: Node, inputs: Inputs) -> Moments:
    return _sum_of(node, inputs, [1.0, -1.0])


def _average(node: Node, inputs: Inputs) -> Moments:
    return _sum_of(node, inputs, [1 / len(inputs)] * len(inputs))


def _multiply(node: Node, inputs: Inputs) -> Moments | None:
    signals = [operand.node for operand in _signals(node)]
    # x * x is not a product of independent signals.
    if len(set(signals)) < len(signals):
        return maps.activated(keras.ops.square, inputs[0]) if len(inputs) == 2 else None
    return maps.multiplied(inputs)


def _divide(node: Node, inputs: Inputs) -> Moments | None:
    by = node.operands[1]
    known = by.node is None and not inputs[1].variance and inputs[1].mean
    return maps.scaled(inputs[0], 1 / inputs[1].mean) if known else None


def _join(node: Node, inputs: Inputs) -> Moments | None:
    sizes = [_size(operand.shape) for operand in _signals(node)]
    signals = [x for x, operand in zip(inputs, node.operands, strict=True) if operand.node is not None]
    return maps.concatenated(signals, sizes) if all(sizes) else None


def _pad(node: Node, inputs: Inputs) -> Moments | None:
    before, after = _size(_signals(node)[0].shape), _size(node.shape)
    plain = getattr(node.operation, "mode", "constant") == "constant" and len(node.operands) == 1
    return maps.padded(inputs[0], before / after) if plain and before and after else None


def _dropout(node: Node, inputs: Inputs) -> Moments:
    whole = node.kind.startswith("Spatial") or bool(getattr(node.operation, "noise_shape", None))
    return maps.dropped(inputs[0], node.operation.rate, whole)


def _rescale(node: Node, inputs: Inputs) -> Moments | None:
    scale, offset = constant(node.operation.scale), constant(node.operation.offset)
    if scale is None or offset is None:
        return None
    return maps.added([maps.multiplied([inputs[0], scale]), offset])


def _unit(node: Node, inputs: Inputs) -> Moments | None:
    shape, axis = _signals(node)[0].shape, node.operation.axis
    size = _size([shape[a] for a in ([axis] if isinstance(axis, int) else axis)])
    return maps.rms_normalized(inputs[0], size) if size else None


def _contract(equation: str, left: Sequence[int | None], right: Sequence[int | None]) -> int:
    """The number of products that one output element of an einsum sums; 0 if an axis is open."""
    terms, output = equation.replace(" ", "").split("->")
    sizes: dict[str, int] = {}
    for term, shape in zip(terms.split(","), (left, right), strict=True):
        if "." not in term:
            sizes |= {letter: size or 0 for letter, size in zip(term, shape, strict=True)}
    summed = {letter for letter in terms if letter.isalpha() and letter not in output}
    return math.prod(sizes.get(letter, 0) for letter in summed)


def _product_of(inputs: Inputs, count: int) -> Moments | None:
    """A sum of `count` products of two signals; a weighted mean, if one signal is softmax weights."""
    if not count:
        return None
    for weights, x in ((inputs[0], inputs[1]), (inputs[1], inputs[0])):
        if weights.sums_to_one:
            return maps.mixed(weights, x, count)
    return maps.contracted(inputs[0], inputs[1], count)


def _einsum(node: Node, inputs: Inputs) -> Moments | None:
    signals = _signals(node)
    equation = node.operation.subscripts
    if len(signals) != 2 or len(inputs) != 2 or "->" not in equation:
        return None
    return _product_of(inputs, _contract(equation, signals[0].shape, signals[1].shape))


def _matmul(node: Node, inputs: Inputs) -> Moments | None:
    signals = _signals(node)
    return _product_of(inputs, signals[0].shape[-1] or 0) if len(signals) == len(inputs) == 2 else None


def _dot(node: Node, inputs: Inputs) -> Moments | None:
    axes, shape = node.operation.axes, _signals(node)[0].shape
    axis = axes if isinstance(axes, int) else axes[0]
    plain = not node.operation.normalize and isinstance(axis, int)
    return _product_of(inputs, shape[axis] or 0) if plain else None


def _attend(
    queries: Moments, keys: Moments, values: Moments, width: int, count: int, scale: float
) -> Moments:
    """Attention of one head over `count` positions, with logits of `width` products times a scale."""
    logits = maps.scaled(maps.contracted(queries, keys, width), scale)
    return maps.mixed(maps.softmax(logits, count), values, count)


def _fused_attention(node: Node, inputs: Inputs) -> Moments | None:
    """Fused attention: signals of shape (batch, positions, heads, width), and the scale 1 / sqrt(width)."""
    shape = node.operands[1].shape
    if len(inputs) < 3 or not shape or not shape[1] or not shape[-1]:
        return None
    return _attend(inputs[0], inputs[1], inputs[2], shape[-1], shape[1], shape[-1] ** -0.5)


def _attention(node: Node, inputs: Inputs) -> Moments | None:
    """Keras' `Attention` layer, which has no projections: operands query, value and, optionally, key."""
    shape = node.operands[1].shape
    plain = node.operation.score_mode == "dot" and len(inputs) in (2, 3) and shape[1] and shape[-1]
    if not plain:
        return None
    return _attend(inputs[0], inputs[-1], inputs[1], shape[-1] or 0, shape[1] or 0, 1.0)


def _by(function: Callable[..., Moments], *names: str) -> Map:
    """A map that takes the signal and some attributes of the layer."""
    return lambda node, inputs: function(inputs[0], *(getattr(node.operation, name) for name in names))


# Layers and operations that move elements, or do not change them at initialization.
_PASSING = with_effect("moves") | {"Activation"}  # of the latter the caller applies the activation
_MAPS: dict[str, Map] = {
    "Add": _add, "Subtract": _subtract, "Average": _average, "Multiply": _multiply, "Divide": _divide,
    "TrueDivide": _divide, "Negative": lambda _, inputs: maps.scaled(inputs[0], -1.0),
    "UpSampling2D": lambda node, inputs: inputs[0] if node.operation.interpolation == "nearest" else None,
    "Concatenate": _join, "Stack": _join, "Pad": _pad,
    "Mean": _mean, "Sum": _sum, "Max": _max, "Amax": _max, "MaxPool": _max_pool, "AveragePool": _average_pool,
    "Dropout": _dropout, "GaussianDropout": _dropout, "AlphaDropout": _by(maps.alpha_dropped, "rate"),
    "GaussianNoise": lambda node, inputs: maps.noised(inputs[0], node.operation.stddev**2),
    "BatchNormalization": lambda _, inputs: maps.normalized(inputs[0], over_batch=True),
    "Normalization": lambda _, inputs: maps.normalized(inputs[0], over_batch=True),
    "LayerNormalization": lambda _, inputs: maps.normalized(inputs[0], over_batch=False),
    "GroupNormalization": lambda _, inputs: maps.normalized(inputs[0], over_batch=False),
    "RMSNormalization": lambda _, inputs: maps.rms_normalized(inputs[0]),
    "RMSNorm": lambda _, inputs: maps.rms_normalized(inputs[0]),
    "UnitNormalization": _unit, "Rescaling": _rescale, "ResidualScale": _by(maps.scaled, "initial"),
    "Einsum": _einsum, "Matmul": _matmul, "Dot": _dot,
    "DotProductAttention": _fused_attention, "Attention": _attention,
    **{f"ZeroPadding{n}D": _pad for n in (1, 2, 3)},
    **{f"SpatialDropout{n}D": _dropout for n in (1, 2, 3)},
    **{f"{kind}MaxPooling{n}D": _max_pool for kind in ("", "Global") for n in (1, 2, 3)},
    **{f"{kind}AveragePooling{n}D": _average_pool for kind in ("", "Global") for n in (1, 2, 3)},
}  # fmt: skip
