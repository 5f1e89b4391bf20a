"""The fans of a kernel, and the roles of its axes."""

import dataclasses
import functools
import math
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Fans:
    """The two counts that variance laws divide by.

    Attributes:
        fan_in: Number of inputs that one output element sums, away from the borders. Where a stride makes
            this number differ from position to position, it is the mean over positions.
        fan_out: Number of output elements that one input element reaches, away from the borders. Where a
            stride makes this number differ from position to position, it is the mean over positions.
    """

    fan_in: int | float
    fan_out: int | float

    def to_dict(self) -> dict[str, int | float]:
        """Returns the two counts under the names `"fan_in"` and `"fan_out"`."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class KernelAxes:
    """The role of each axis of a kernel.

    A kernel is a set of blocks that do not mix. A plain kernel is one block. Groups, gates, heads, depthwise
    channels and the rows of an embedding are blocks with their own inputs and outputs.

    Attributes:
        shape: The kernel's shape. Where groups or gates share the last axis, that axis appears here as two:
            (blocks, outputs of a block). The number of entries is the kernel's.
        field: Axes of the receptive field. An input reaches an output through each element of the field.
        inputs: Axes that an output sums over, besides the field.
        outputs: Axes that number the outputs of a block.
        batch: Axes that number the blocks.
        stride_in: Divisor of fan_in: the stride of a transposed convolution.
        stride_out: Divisor of fan_out: the stride of a convolution.
    """

    shape: tuple[int, ...]
    field: tuple[int, ...] = ()
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    batch: tuple[int, ...] = ()
    stride_in: int = 1
    stride_out: int = 1

    def size(self, axes: Sequence[int]) -> int:
        """Returns the product of the dimensions of these axes; 1 for no axes."""
        return math.prod(self.shape[axis] for axis in axes)

    @functools.cached_property
    def fans(self) -> Fans:
        """The fans of one block: ints where they are whole, else floats."""
        # A stride s keeps one output position in s, so an input meets only field / s of the taps. A
        # transposed convolution is the same map backwards: there an output meets field / s taps.
        fan_in = self.size(self.field + self.inputs) / self.stride_in
        fan_out = self.size(self.field + self.outputs) / self.stride_out
        return Fans(*(int(n) if n.is_integer() else n for n in (fan_in, fan_out)))
