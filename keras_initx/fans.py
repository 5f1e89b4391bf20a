"""How many inputs an output sums and how many outputs an input reaches, from a kernel's shape."""

import dataclasses
import math
import numbers
from collections.abc import Sequence

__all__ = ["Fans", "compute_fans"]


@dataclasses.dataclass(frozen=True)
class Fans:
    """The two counts that variance laws divide by.

    Attributes:
        fan_in: Inputs that one output element sums.
        fan_out: Output elements that one input element reaches.
    """

    fan_in: int
    fan_out: int

    def to_dict(self) -> dict[str, int]:
        """Returns the counts under their names."""
        return dataclasses.asdict(self)


def compute_fans(
    shape: Sequence[int],
    input_axes: Sequence[int] | None = None,
    output_axes: Sequence[int] | None = None,
) -> Fans:
    """Counts the inputs and outputs of a kernel.

    Without axes the shape is read as Keras lays out dense and convolution kernels: the last axis holds the
    outputs, the one before it the inputs, and all others the receptive field of a convolution. With axes the
    fans are the products of the named dimensions; an axis named in neither is a batch axis (heads, experts)
    and counts in no fan.

    >>> compute_fans((3, 3, 16, 32))
    Fans(fan_in=144, fan_out=288)
    >>> compute_fans((128, 8, 16), input_axes=(0,), output_axes=(1, 2))
    Fans(fan_in=128, fan_out=128)

    Args:
        shape: Shape of the kernel.
        input_axes: Axes that an output sums over. Give both axes arguments or neither.
        output_axes: Axes that index the outputs.

    Returns:
        The fans, as whole numbers.

    Raises:
        ValueError: If a dimension is no int of at least 0; if one axes argument comes without the other,
            names an axis that `shape` does not have, or shares an axis with the other.

    Reference:
        Glorot and Bengio, 2010, section 4.2 (n_j and n_{j+1} of equations 5 and 6);
        He et al., 2015, section 2.2 (n = k^2 c for a convolution).
    """
    if not all(isinstance(size, numbers.Integral) and size >= 0 for size in shape):
        raise ValueError(f"`shape` must hold ints of at least 0. Received: shape={shape!r}.")
    shape = tuple(int(size) for size in shape)
    if (input_axes is None) != (output_axes is None):
        raise ValueError(
            "`input_axes` and `output_axes` must be given together or not at all. "
            f"Received: input_axes={input_axes}, output_axes={output_axes}."
        )
    if input_axes is not None and output_axes is not None:
        inputs, outputs = split_axes(len(shape), input_axes, output_axes)
        return Fans(_size(shape, inputs), _size(shape, outputs))
    if len(shape) < 2:
        return Fans(math.prod(shape), math.prod(shape))
    field = math.prod(shape[:-2])
    return Fans(field * shape[-2], field * shape[-1])


def split_axes(
    rank: int, input_axes: Sequence[int], output_axes: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Checks the axes of a kernel of the given rank and makes them non-negative.

    >>> split_axes(3, (0,), (-2, -1))
    ((0,), (1, 2))

    Args:
        rank: Number of dimensions of the kernel.
        input_axes: Axes that an output sums over.
        output_axes: Axes that index the outputs.

    Returns:
        The input axes and the output axes.

    Raises:
        ValueError: If an axis is out of range or is named twice.
    """
    received = f"Received: input_axes={tuple(input_axes)}, output_axes={tuple(output_axes)}"
    axes = [*input_axes, *output_axes]
    if any(not -rank <= axis < rank for axis in axes):
        raise ValueError(
            f"`input_axes` and `output_axes` must lie in [{-rank}, {rank}) for a kernel of rank {rank}. "
            f"{received}. Name only axes that the kernel has."
        )
    positive = [axis % rank for axis in axes]
    if len(set(positive)) < len(positive):
        raise ValueError(
            "`input_axes` and `output_axes` must name each axis at most once. "
            f"{received}. Leave batch axes (heads, experts) out of both."
        )
    return tuple(positive[: len(input_axes)]), tuple(positive[len(input_axes) :])


def _size(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    return math.prod(shape[axis] for axis in axes)
