"""`Use`: one operation that takes a weight, and the roles of the weight's axes in it."""

import dataclasses
import math
from typing import Literal, TypeAlias

from keras_initx._types import Tensor, Variable
from keras_initx.uses._operations import Contract, Convolve, Operation
from keras_initx.uses._views import Dims, Factor, Piece

__all__ = [
    "Kind",
    "Roles",
    "Taken",
    "Use",
    "makes_kernel",
    "of_convolution",
    "of_mixed",
    "of_own_field",
    "of_product",
    "of_table",
]

# What takes the weight: `joins` for a weight that becomes a part of the signal, such as a class token.
Kind: TypeAlias = Literal["product", "convolution", "gather", "scale", "shift", "joins", "unknown"]


@dataclasses.dataclass(frozen=True)
class Roles:
    """The factors of a weight by their role in one operation.

    Attributes:
        field: Positions that a convolution slides over.
        inputs: Summed over.
        outputs: Numbers the units of the output.
        batch: Shared by signal, weight and output: heads, experts, channels of a depthwise convolution.
    """

    field: tuple[Factor, ...] = ()
    inputs: tuple[Factor, ...] = ()
    outputs: tuple[Factor, ...] = ()
    batch: tuple[Factor, ...] = ()

    def axes(self, role: str) -> tuple[int, ...]:
        """The axes of the weight that have a role, in order."""
        return tuple(sorted({f.axis for f in getattr(self, role) if f.axis is not None}))

    def size(self, role: str) -> int:
        """The number of entries that have a role."""
        return math.prod(f.size for f in getattr(self, role))

    @property
    def clear(self) -> bool:
        """Whether each axis of the weight has one role."""
        named = [self.axes(role) for role in ("field", "inputs", "outputs", "batch")]
        flat = [axis for axes in named for axis in axes]
        return len(flat) == len(set(flat))


@dataclasses.dataclass(eq=False)
class Use:
    """One operation that takes a weight.

    Attributes:
        variable: The weight.
        kind: What takes it.
        operation: The backend's name for the operation.
        roles: The roles of the weight's axes; None if they are not known.
        change: What was computed with the weight before; empty if it was only moved, so that the output is
            linear in it.
        dims: For each axis of the output, the factors of the weight on it; factors of the signal have no
            axis.
        convolution: The details of a convolution.
        alone: Whether the whole operand is this weight.
        bias: The weight that is added to the output, or None.
        shifted: Whether something else is added that was made of a weight, so that scaling the kernel and its
            bias does not scale the sum.
        cuts: How often the output is cut before anything else takes it.
        looped: Whether the operation stands in a loop of the backend.
        factor: Whether the other operand is a weight, too.
        generates: Whether the output is the kernel of another product, as in a hypernetwork.
    """

    variable: Variable
    kind: Kind
    operation: str
    roles: Roles | None = None
    change: str = ""
    dims: Dims | None = None
    convolution: Convolve | None = None
    alone: bool = True
    bias: Variable | None = None
    shifted: bool = False
    cuts: int = 0
    looped: bool = False
    factor: bool = False
    generates: bool = False

    @property
    def is_kernel(self) -> bool:
        """Whether the weight makes outputs of inputs here: by a product, a convolution or a lookup."""
        return self.kind in ("product", "convolution", "gather")

    @property
    def unit_axes(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """The axes of the weight and of the output that index the units, in one order; None if unknown."""
        if self.roles is None or self.dims is None or not self.roles.clear:
            return None
        placed = [
            (f.axis, f.size, p) for p, factors in enumerate(self.dims) for f in factors if f.axis is not None
        ]
        # A lookup takes a row by its number: the rows are no units of its output.
        shared = () if self.kind == "gather" else self.roles.axes("batch")
        units = sorted({*self.roles.axes("outputs"), *shared})
        shape = tuple(self.variable.shape)
        if sorted(axis for axis, _, _ in placed) != units or any(
            size != shape[axis] for axis, size, _ in placed
        ):
            return None
        places = sorted({place - len(self.dims) for _, _, place in placed})
        if (
            len(places) == 1
        ):  # side by side on one axis, where they must keep the order that they have in the weight
            return (tuple(units), tuple(places)) if [axis for axis, _, _ in placed] == units else None
        if len(places) < len(units):
            return None
        by_axis = {axis: place - len(self.dims) for axis, _, place in placed}
        return tuple(units), tuple(by_axis[axis] for axis in units)


@dataclasses.dataclass(frozen=True, eq=False)
class Taken:
    """The operation of a use, in a run with values.

    Attributes:
        use: The use, as `find_uses` found it.
        operation: The operation, which has run.
        signal: Place of the signal among the operation's inputs.
        kernel: Place of the tensor that holds the weight.
    """

    use: Use
    operation: Operation
    signal: int
    kernel: int

    @property
    def operand(self) -> Tensor:
        """The signal that the operation takes."""
        return self.operation.inputs[self.signal]

    @property
    def output(self) -> Tensor:
        """The output of the operation, without the bias that follows."""
        return self.operation.outputs[0]


def of_product(
    piece: Piece, effect: Contract, second: bool, sizes: tuple[int, ...]
) -> tuple[Roles, Dims] | None:
    """Returns the roles of a weight in a product, and its factors on the axes of the output.

    Args:
        piece: The weight within one operand.
        effect: The product.
        second: Whether the weight is the second operand.
        sizes: Sizes of the axes of the output.
    """
    if piece.dims is None:
        return None
    own, other = (effect.right, effect.left) if second else (effect.left, effect.right)
    roles: dict[str, list[Factor]] = {"inputs": [], "outputs": [], "batch": []}
    factors_of = {}
    for label, factors in zip(own, piece.dims, strict=True):
        role = "outputs" if label not in other else "batch" if label in effect.out else "inputs"
        # An output sums a weight as often as it repeats.
        roles[role] += (factor for factor in factors if factor.axis is not None or role == "inputs")
        factors_of[label] = factors if role != "inputs" else ()
    dims = tuple(
        factors_of.get(label) or ((Factor(None, size),) if size != 1 else ())
        for label, size in zip(effect.out, sizes, strict=True)
    )
    return Roles(**{name: tuple(found) for name, found in roles.items()}), dims


def makes_kernel(use: Use, dims: Dims, effect: Contract | Convolve, place: int, rank: int) -> bool:
    """Whether the output of a product is the kernel of the next operation.

    A kernel has no axis of positions, and the next operation sums one of its axes and keeps another.

    Args:
        use: The use of a weight in the first product.
        dims: Factors of the weight on the axes of its output.
        effect: The next operation, which takes no weight.
        place: Place of the output among the inputs of the next operation.
        rank: Number of axes of the output of the next operation.
    """
    if use.kind != "product":
        return False
    if isinstance(effect, Convolve):
        return place == 1
    later = place == effect.operands[1]
    told = of_product(Piece(use.variable, dims), effect, later, (-1,) * rank)
    own, other = (effect.right, effect.left) if later else (effect.left, effect.right)
    shared = all(
        label in other or any(f.axis is not None for f in factors)
        for label, factors in zip(own, dims, strict=True)
        if factors
    )
    if told is None or use.roles is None or not shared:
        return False
    units = set(use.roles.axes("outputs"))
    return bool(units & set(told[0].axes("inputs")) and units & set(told[0].axes("outputs")))


def of_mixed(use: Use, dims: Dims, effect: Contract, place: int, rank: int) -> Roles | None:
    """Returns the roles of a stack of kernels that a product has mixed into one, such as experts by shares.

    Each of them is a kernel of the next product, and the axis along which they were mixed numbers them.

    Args:
        use: The use of the stack in the product that mixes.
        dims: Factors of the stack on the axes of the mixed kernel.
        effect: The product that takes the mixed kernel.
        place: Place of the mixed kernel among the inputs of this product.
        rank: Number of axes of the output of this product.
    """
    told = of_product(Piece(use.variable, dims), effect, place == effect.operands[1], (-1,) * rank)
    if told is None or use.roles is None:
        return use.roles
    return dataclasses.replace(told[0], batch=(*use.roles.inputs, *told[0].batch))


def of_convolution(piece: Piece, effect: Convolve, sizes: tuple[int, ...]) -> tuple[Roles, Dims] | None:
    """Returns the roles of a kernel in a convolution, and its factors on the axes of the output."""
    if piece.dims is None:
        return None
    field = tuple(factor for axis in effect.field for factor in piece.dims[axis])
    inputs, outputs = piece.dims[effect.inputs], piece.dims[effect.outputs]
    batch: tuple[Factor, ...] = ()
    if effect.depthwise:
        inputs, batch = (), inputs
    elif effect.groups > 1:
        # One channel for each group: channels and multiplier may lie side by side on the axis of the outputs.
        count, lead = 1, 0
        while lead < len(outputs) and count < effect.groups:
            count *= outputs[lead].size
            lead += 1
        if count == effect.groups and (lead < len(outputs) or not inputs):
            batch, outputs = outputs[:lead], outputs[lead:]
    on_channels = (*batch, *outputs)
    dims = tuple(
        on_channels if place == effect.channels else ((Factor(None, size),) if size != 1 else ())
        for place, size in enumerate(sizes)
    )
    return Roles(field, inputs, outputs, batch), dims


def of_own_field(piece: Piece, effect: Convolve) -> Convolve:
    """Returns a convolution over the axes that the weight has: some backends add one to a field of one."""
    added = max(len(effect.field) + 2 - len(piece.variable.shape), 0)
    if not added or piece.dims is None:
        return effect
    empty = [place for place, axis in enumerate(effect.field) if not piece.dims[axis]][:added]
    kept = [place for place in range(len(effect.field)) if place not in empty]
    return dataclasses.replace(
        effect,
        field=tuple(effect.field[place] for place in kept),
        strides=tuple(effect.strides[place] for place in kept),
        dilation=tuple(effect.dilation[place] for place in kept),
        padding=None if effect.padding is None else tuple(effect.padding[place] for place in kept),
    )


def of_table(
    piece: Piece, axis: int, rest: tuple[int, ...], sizes: tuple[int, ...]
) -> tuple[Roles, Dims] | None:
    """Returns the roles of a table in a lookup, and its factors on the axes of the output."""
    if piece.dims is None:
        return None
    others = [place for place in range(len(piece.dims)) if place != axis]
    outputs = tuple(factor for place in others for factor in piece.dims[place])
    on = {place: piece.dims[own] for own, place in zip(others, rest, strict=True)}
    dims = tuple(on.get(p, (Factor(None, size),) if size != 1 else ()) for p, size in enumerate(sizes))
    return Roles(batch=piece.dims[axis], outputs=outputs), dims
