"""How many inputs an output sums and how many outputs an input reaches, from a kernel's shape and layout."""

import dataclasses
import functools
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from keras_initx.checks import is_whole

__all__ = ["Fans", "KernelAxes", "Layout", "compute_fans", "split_kernel"]

# What each layout may say beside its kind, and how many axes its kernels have.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "conv": ("groups", "strides"),
    "dense": (),
    "depthwise": ("strides",),
    "einsum": ("batch_axes",),
    "embedding": (),
    "gates": ("gates",),
    "transposed": ("strides",),
}
_LEAST_RANK = {"conv": 3, "depthwise": 3, "transposed": 3}
_RANK_TWO = ("dense", "embedding")


@dataclasses.dataclass(frozen=True)
class Fans:
    """The two counts that variance laws divide by.

    Attributes:
        fan_in: Inputs that one output element sums, away from the borders; a mean where a stride makes the
            count differ from position to position.
        fan_out: Output elements that one input element reaches, in the same way.
    """

    fan_in: int | float
    fan_out: int | float

    def to_dict(self) -> dict[str, int | float]:
        """Returns the counts under their names."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the axes of a kernel mean, for kernels that their shape cannot tell apart.

    >>> Layout("conv", groups=4).to_dict()
    {'kind': 'conv', 'groups': 4}

    Attributes:
        kind: `"dense"` (inputs, outputs); `"conv"` (*field, inputs / groups, outputs); `"depthwise"`
            (*field, channels, multiplier); `"transposed"` (*field, outputs, inputs); `"einsum"`, whose
            `input_axes` and `output_axes` are given beside the layout; `"gates"` (*field, inputs,
            gates * units), the fused kernels of LSTM, GRU and ConvLSTM; `"embedding"` (vocabulary, outputs).
        groups: Groups of a convolution.
        strides: Stride of a `"conv"`, `"depthwise"` or `"transposed"` kernel, one int or one per axis of its
            field.
        gates: Gates of a fused kernel: 4 for LSTM and ConvLSTM, 3 for GRU. The shape does not tell it, so
            there is no default; `initialize` reads it off the layer.
        batch_axes: Axes of an einsum kernel that inputs, kernel and outputs share (heads, experts). Keras
            hands these over as output axes; named here they count in no fan.

    Raises:
        ValueError: If the kind is unknown, an option is no positive int, or does not belong to the kind.
    """

    kind: str
    groups: int = 1
    strides: int | tuple[int, ...] = 1
    gates: int | None = None
    batch_axes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in _OPTIONS:
            raise ValueError(
                f"`layout` must be one of {sorted(_OPTIONS)}, or a dict with one of them as its 'kind'. "
                f"Received: layout={self.kind!r}."
            )
        strides = self.strides if isinstance(self.strides, tuple) else (self.strides,)
        gates = () if self.gates is None else (self.gates,)
        if not all(is_whole(n) and n > 0 for n in (self.groups, *gates, *strides)):
            raise ValueError(f"`groups`, `strides` and `gates` must be positive ints. Received: {self!r}.")
        if not isinstance(self.batch_axes, tuple) or not all(map(is_whole, self.batch_axes)):
            raise ValueError(f"`batch_axes` must be a tuple of ints. Received: {self!r}.")
        wrong = sorted(self.to_dict().keys() - {"kind", *_OPTIONS[self.kind]})
        if wrong:
            owners = sorted(kind for kind, options in _OPTIONS.items() if wrong[0] in options)
            raise ValueError(f"`{wrong[0]}` belongs to a layout of kind {owners}. Received: {self!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Returns the kind and the options that differ from their defaults, ready for JSON."""
        values = (
            (field.name, getattr(self, field.name), field.default) for field in dataclasses.fields(self)
        )
        return {n: list(v) if isinstance(v, tuple) else v for n, v, default in values if v != default}

    @classmethod
    def of(cls, layout: "str | Mapping[str, Any] | Layout") -> "Layout":
        """Returns the layout that a kind, a dict of `to_dict` or a layout stands for.

        >>> Layout.of({"kind": "transposed", "strides": [2, 2]}).strides
        (2, 2)
        """
        if isinstance(layout, Layout):
            return layout
        if isinstance(layout, str):
            return cls(layout)
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(layout, Mapping) or "kind" not in layout or not set(layout) <= set(names):
            raise ValueError(
                f"`layout` must be one of {sorted(_OPTIONS)}, a `Layout`, or a dict of 'kind' and any of "
                f"{sorted(names[1:])}. Received: layout={layout!r}."
            )
        options: Any = {n: tuple(v) if isinstance(v, list) else v for n, v in layout.items()}
        return cls(**options)


@dataclasses.dataclass(frozen=True)
class KernelAxes:
    """The part that each axis of a kernel plays.

    Attributes:
        shape: The kernel's shape, its last axis split in two where groups or gates share it; of equal size.
        field: Axes of the receptive field; an input reaches an output through each of its elements.
        inputs: Axes that an output sums over, beside the field.
        outputs: Axes that index the outputs.
        batch: Axes that separate blocks with inputs and outputs of their own: groups, gates, heads, channels
            of a depthwise kernel, rows of an embedding.
        stride_in: What divides the inputs of an output element: the stride of a transposed convolution.
        stride_out: What divides the outputs of an input element: the stride of a convolution.
    """

    shape: tuple[int, ...]
    field: tuple[int, ...] = ()
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    batch: tuple[int, ...] = ()
    stride_in: int = 1
    stride_out: int = 1

    def size(self, axes: Sequence[int]) -> int:
        """Returns the product of the dimensions of these axes."""
        return math.prod(self.shape[axis] for axis in axes)

    @functools.cached_property
    def fans(self) -> Fans:
        """The fans of one block."""
        fan_in = self.size(self.field + self.inputs) / self.stride_in
        fan_out = self.size(self.field + self.outputs) / self.stride_out
        return Fans(*(int(n) if n.is_integer() else n for n in (fan_in, fan_out)))


def compute_fans(
    shape: Sequence[int],
    input_axes: Sequence[int] | None = None,
    output_axes: Sequence[int] | None = None,
    layout: str | Mapping[str, Any] | Layout | None = None,
) -> Fans:
    """Counts the inputs and outputs of a kernel.

    Without axes and layout the shape is read as Keras lays out dense and convolution kernels: the last axis
    holds the outputs, the one before it the inputs, and all others the receptive field. With axes the fans
    are the products of the named dimensions; an axis named in neither is a batch axis (heads, experts) and
    counts in no fan. A layout names the kernels that look alike and are not.

    >>> compute_fans((3, 3, 16, 32))
    Fans(fan_in=144, fan_out=288)
    >>> compute_fans((4, 4, 64, 128), layout=Layout("transposed", strides=2))
    Fans(fan_in=512, fan_out=1024)
    >>> compute_fans((128, 8, 16), input_axes=(0,), output_axes=(1, 2))
    Fans(fan_in=128, fan_out=128)

    Args:
        shape: Shape of the kernel.
        input_axes: Axes that an output sums over. Give both axes arguments or neither.
        output_axes: Axes that index the outputs.
        layout: A `Layout`, its kind, or its dict; None to read the shape as above.

    Returns:
        The fans; ints where they are whole.

    Raises:
        ValueError: If a dimension is no int of at least 0; if one axes argument comes without the other,
            names an axis that `shape` does not have, or shares an axis with the other; if the layout is
            unknown, does not fit the shape or comes with axes though it tells them itself.

    Reference:
        Glorot and Bengio, 2010, section 4.2 (n_j and n_{j+1} of equations 5 and 6);
        He et al., 2015, section 2.2 (n = k^2 c for a convolution). That a stride thins the fans is counted
        here and not in those papers.
    """
    return split_kernel(shape, input_axes, output_axes, layout).fans


def split_kernel(
    shape: Sequence[int],
    input_axes: Sequence[int] | None = None,
    output_axes: Sequence[int] | None = None,
    layout: str | Mapping[str, Any] | Layout | None = None,
) -> KernelAxes:
    """Tells the part that each axis of a kernel plays.

    Arguments and errors are those of `compute_fans`.

    >>> axes = split_kernel((3, 3, 64, 2), layout="depthwise")
    >>> axes.field, axes.inputs, axes.outputs, axes.batch
    ((0, 1), (), (3,), (2,))
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


@functools.lru_cache(maxsize=1024)
def _split(shape: tuple[int, ...], axes: Any, layout: Layout | None) -> KernelAxes:
    rank = len(shape)
    kind = "einsum" if layout is None and axes is not None else layout and layout.kind
    if layout is not None and (kind == "einsum") != (axes is not None):
        raise ValueError(
            "`input_axes` and `output_axes` must be given with the layout 'einsum', and with no other. "
            f"Received: layout={layout!r}, axes={axes}. EinsumDense and attention hand their axes over; drop "
            "`layout` there or give it as {'kind': 'einsum', 'batch_axes': [...]}."
        )
    if kind == "einsum":
        return _split_einsum(shape, axes[0], axes[1], layout.batch_axes if layout else ())
    if layout is None:
        if rank < 2:  # Keras counts a vector in both fans, as a field is
            return KernelAxes(shape, field=tuple(range(rank)))
        layout = Layout("dense" if rank == 2 else "conv")
    least, exact = _LEAST_RANK.get(layout.kind, 2), layout.kind in _RANK_TWO
    if rank < least or (exact and rank > least):
        raise ValueError(
            f"`layout` {layout!r} must be that of a kernel with {'' if exact else 'at least '}{least} axes. "
            f"Received: shape={shape}. Name the layout of the layer that the kernel belongs to."
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
    shape = (*shape[:-1], blocks, shape[-1] // blocks)
    return KernelAxes(shape, field, before, (rank,), last, stride_out=stride)


def _split_einsum(
    shape: tuple[int, ...], input_axes: tuple[int, ...], output_axes: tuple[int, ...], batch: tuple[int, ...]
) -> KernelAxes:
    rank = len(shape)
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
    shared = {axis % rank for axis in batch}
    inputs, outputs = ([axis for axis in axes if axis not in shared] for axes in (inputs, outputs))
    rest = tuple(axis for axis in range(rank) if axis not in {*inputs, *outputs})
    return KernelAxes(shape, (), tuple(inputs), tuple(outputs), rest)
