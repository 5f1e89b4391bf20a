"""Reads the roles of a kernel's axes off its shape and layout, and counts its fans."""

import functools
import math
import numbers
from collections.abc import Sequence
from typing import TypeAlias

from keras_initx.fans._axes import Fans, KernelAxes
from keras_initx.fans._layout import Layout, LayoutLike

# Input axes and output axes.
_Axes: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]
# Kinds that need a field, and the kinds that allow exactly two axes. Every other kind needs two or more.
_LEAST_RANK = {"conv": 3, "depthwise": 3, "transposed": 3}
_RANK_TWO = ("dense", "embedding")


def compute_fans(
    shape: Sequence[int],
    input_axes: Sequence[int] | None = None,
    output_axes: Sequence[int] | None = None,
    layout: LayoutLike | None = None,
) -> Fans:
    """Counts the inputs and outputs of a kernel.

    Without axes and layout, the shape is read as Keras orders the axes of dense and convolution kernels: the
    last axis holds the outputs, the axis before it the inputs, and all other axes the receptive field. With
    axes, the fans are the products of the named dimensions. An axis that neither argument names is a batch
    axis (heads, experts) and counts in neither fan. For kernels that look like a plain convolution but are
    not, give a layout.

    >>> compute_fans((3, 3, 16, 32))
    Fans(fan_in=144, fan_out=288)
    >>> compute_fans((4, 4, 64, 128), layout=Layout("transposed", strides=2))
    Fans(fan_in=512, fan_out=1024)
    >>> compute_fans((128, 8, 16), input_axes=(0,), output_axes=(1, 2))
    Fans(fan_in=128, fan_out=128)

    Args:
        shape: Shape of the kernel: ints of at least 0.
        input_axes: Axes that an output sums over. Negative axes count from the end. Give both axes arguments
            or neither.
        output_axes: Axes that number the outputs, in the same way.
        layout: A kind such as `"depthwise"`, a dict such as `{"kind": "transposed", "strides": 2}`, or a
            `Layout`. None reads the shape as described above.

    Returns:
        The fans. A count is an int if it is whole, else a float.

    Raises:
        ValueError: If a dimension is not an int of at least 0; if one axes argument comes without the other,
            names an axis that `shape` does not have, or names an axis twice; if the layout is unknown or does
            not fit the shape; if axes come with a layout that already fixes the axes.

    Reference:
        Glorot and Bengio, 2010, section 4.2 (n_j and n_{j+1} of equations 5 and 6);
        He et al., 2015, section 2.2 (n = k^2 c for a convolution). Deviation: these papers ignore strides;
        here a stride divides a fan.
    """
    return split_kernel(shape, input_axes, output_axes, layout).fans


def split_kernel(
    shape: Sequence[int],
    input_axes: Sequence[int] | None = None,
    output_axes: Sequence[int] | None = None,
    layout: LayoutLike | None = None,
) -> KernelAxes:
    """Finds the role of each axis of a kernel: field, input, output or batch axis.

    Use it to build or read a kernel block by block. For the two counts alone, use `compute_fans`.

    >>> axes = split_kernel((3, 3, 64, 2), layout="depthwise")
    >>> axes.field, axes.inputs, axes.outputs, axes.batch
    ((0, 1), (), (3,), (2,))

    Args:
        shape: Shape of the kernel: ints of at least 0.
        input_axes: Axes that an output sums over. Negative axes count from the end. Give both axes arguments
            or neither.
        output_axes: Axes that number the outputs, in the same way.
        layout: A kind such as `"depthwise"`, a dict such as `{"kind": "transposed", "strides": 2}`, or a
            `Layout`. None reads the shape as `compute_fans` does.

    Returns:
        The roles of the axes. With groups or gates the shape in it has one axis more than the kernel.

    Raises:
        ValueError: If `compute_fans` would raise for the same arguments.
    """
    if not all(isinstance(size, numbers.Integral) and size >= 0 for size in shape):
        raise ValueError(f"`shape` must hold ints of at least 0. Received: shape={shape!r}.")
    if (input_axes is None) != (output_axes is None):
        raise ValueError(
            "`input_axes` and `output_axes` must be given together or not at all. "
            f"Received: input_axes={input_axes}, output_axes={output_axes}."
        )
    axes = None if input_axes is None or output_axes is None else (tuple(input_axes), tuple(output_axes))
    return _split(tuple(map(int, shape)), axes, None if layout is None else Layout.of(layout))


# Walking a model asks for the same few shapes over and over.
@functools.lru_cache(maxsize=1024)
def _split(shape: tuple[int, ...], axes: _Axes | None, layout: Layout | None) -> KernelAxes:
    rank = len(shape)
    if layout is not None and (layout.kind == "einsum") != (axes is not None):
        raise ValueError(
            "`input_axes` and `output_axes` must be given with the layout 'einsum', and with no other. "
            f"Received: layout={layout!r}, axes={axes}. EinsumDense and attention pass their axes by "
            "themselves: drop `layout` there, or give it as {'kind': 'einsum', 'batch_axes': [...]}."
        )
    if axes is not None:
        return _split_einsum(shape, axes, layout.batch_axes if layout else ())
    if layout is None:
        if rank < 2:  # Keras counts the size of a vector in both fans, as it counts a field
            return KernelAxes(shape, field=tuple(range(rank)))
        layout = Layout("dense" if rank == 2 else "conv")
    least, exact = _LEAST_RANK.get(layout.kind, 2), layout.kind in _RANK_TWO
    if rank < least or (exact and rank > least):
        raise ValueError(
            f"`layout` must fit the kernel: {layout!r} needs {'' if exact else 'at least '}{least} axes. "
            f"Received: shape={shape}. Give the layout of the layer that owns the kernel."
        )
    return _split_layout(shape, layout)


def _split_layout(shape: tuple[int, ...], layout: Layout) -> KernelAxes:
    rank = len(shape)
    field, before, last = tuple(range(rank - 2)), (rank - 2,), (rank - 1,)
    strides = layout.strides if isinstance(layout.strides, tuple) else (layout.strides,) * len(field)
    if len(strides) != len(field):
        raise ValueError(
            f"`strides` must be one int or one for each of the {len(field)} axes of the field. "
            f"Received: {layout!r}, shape={shape}."
        )
    stride = math.prod(strides)
    if layout.kind == "depthwise":
        return KernelAxes(shape, field, (), last, before, stride_out=stride)
    if layout.kind == "transposed":
        return KernelAxes(shape, field, last, before, stride_in=stride)
    if layout.kind == "embedding":
        # A lookup picks one row: an output element sums a single entry, so the rows are blocks.
        return KernelAxes(shape, (), (), last, before)
    blocks = layout.gates if layout.kind == "gates" else layout.groups
    if blocks is None:
        cure = "{'kind': 'gates', 'gates': 4} for LSTM, 3 for GRU; `initialize` reads it off the layer"
        raise ValueError(f"`gates` must be given. Received: layout='gates', shape={shape}. Pass {cure}.")
    if blocks == 1:
        return KernelAxes(shape, field, before, last, stride_out=stride)
    if shape[-1] % blocks:
        raise ValueError(
            f"`layout` {layout!r} must divide the last axis of the kernel. Received: shape={shape}. "
            "Give the layer's own number of groups or gates."
        )
    # Keras puts the outputs of each group or gate side by side: (..., inputs, blocks * outputs).
    shape = (*shape[:-1], blocks, shape[-1] // blocks)
    return KernelAxes(shape, field, before, (rank,), last, stride_out=stride)


def _split_einsum(shape: tuple[int, ...], axes: _Axes, batch: tuple[int, ...]) -> KernelAxes:
    rank, (input_axes, output_axes) = len(shape), axes
    received = f"Received: input_axes={input_axes}, output_axes={output_axes}"
    if any(not -rank <= axis < rank for axis in (*input_axes, *output_axes, *batch)):
        raise ValueError(
            f"`input_axes` and `output_axes` must lie in [{-rank}, {rank}) for a kernel of rank {rank}. "
            f"{received}, batch_axes={batch}. Name only axes that the kernel has."
        )
    inputs, outputs = [axis % rank for axis in input_axes], [axis % rank for axis in output_axes]
    if len({*inputs, *outputs}) < len(inputs) + len(outputs):
        raise ValueError(
            "`input_axes` and `output_axes` must name each axis at most once. "
            f"{received}. Leave batch axes (heads, experts) out of both."
        )
    # Keras lists an axis that inputs and outputs share among the output axes. `batch_axes` takes it out.
    shared = {axis % rank for axis in batch}
    inputs, outputs = ([axis for axis in axes if axis not in shared] for axes in (inputs, outputs))
    rest = tuple(axis for axis in range(rank) if axis not in {*inputs, *outputs})
    return KernelAxes(shape, (), tuple(inputs), tuple(outputs), rest)
