"""Follows the outputs of operations that took a weight, up to the bias that is added to them.

An output is shown as soon as nothing more is known to happen to it: an earlier run has told whether it is
cut, or a bias is added. It may be reshaped and transposed on the way.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from keras_initx._types import Tensor, Variable
from keras_initx.uses._operations import (
    Contract,
    Convolve,
    Effect,
    Move,
    Operation,
    Reshape,
    Shrink,
    Tile,
)
from keras_initx.uses._use import Roles, Taken, Use, makes_kernel, of_mixed, of_product
from keras_initx.uses._views import (
    Dims,
    Piece,
    moved,
    of_shape,
    reshaped,
    shape_of,
    shrunk,
    size_of,
    tiled,
)

__all__ = ["Outputs", "after"]


class Outputs:
    """The tensors of a run that are known: weights in another form, signals, and outputs of products.

    Attributes:
        uses: The uses found so far, in the order in which they ran.
        looped: Whether the operations that run now stand in a loop or a branch of the backend.

    Args:
        effect_of: Tells what an operation does to the axes of its operands.
        shown: Called with a use and its output, with the bias if one is added. Returns a tensor to go on
            with, or None. Without it nothing is replaced.
        planned: Returns what an earlier run found of a use: `shown` waits for the bias and the cut that
            follow.
        took: Called with each operation of a use as soon as it has run. Returns a tensor to go on with in
            place of the operation's output, or None.
    """

    def __init__(
        self,
        effect_of: Callable[[Operation], Effect],
        shown: Callable[[Use, Tensor], Tensor | None] | None = None,
        planned: Callable[[Use], Use | None] = lambda _: None,
        took: Callable[[Taken], Tensor | None] = lambda _: None,
    ) -> None:
        self.uses: list[Use] = []
        self.looped = False
        self._effect_of, self._shown, self._planned, self._took = effect_of, shown, planned, took
        self._views: dict[int, tuple[Tensor, tuple[Piece, ...]]] = {}
        self._products: dict[int, tuple[Tensor, Use, Dims]] = {}
        self._signals: dict[int, Tensor] = {}
        self._taken: set[int] = set()  # the products that another operation has taken
        self._cuts: set[int] = set()  # the products that were cut

    def begin(self, inputs: Iterable[Tensor]) -> None:
        """Takes the inputs of the run."""
        for tensor in inputs:
            self.feed(tensor)

    def feed(self, tensor: Tensor) -> None:
        """Takes a tensor as a signal."""
        self._signals[id(tensor)] = tensor

    def watch(self, tensor: Tensor, variable: Variable) -> None:
        """Takes a tensor as the value of a weight."""
        self._views[id(tensor)] = tensor, (Piece(variable, of_shape(tuple(variable.shape))),)

    def pieces(self, tensor: Tensor) -> tuple[Piece, ...]:
        """The weights that a tensor holds; none for a signal."""
        found = self._views.get(id(tensor))
        return found[1] if found and found[0] is tensor else ()

    def follows(self, tensor: Tensor) -> bool:
        """Whether it matters what happens to a tensor: it holds weights, or is the output of a product."""
        return bool(self.pieces(tensor)) or id(tensor) in self._products

    @property
    def replaces(self) -> bool:
        """Whether outputs may be replaced, in a run with values."""
        return self._shown is not None

    def _is_signal(self, tensor: object) -> bool:
        return id(tensor) in self._signals

    def _hold(self, tensor: Tensor, pieces: Sequence[Piece]) -> None:
        # A weight may meet itself, as in w - mean(w). Then one piece stays, which knows its axes if any does.
        plain = [piece for piece in pieces if not piece.change]
        changed: dict[int, Piece] = {}
        for piece in pieces:
            if piece.change and getattr(changed.get(id(piece.variable)), "dims", None) is None:
                changed[id(piece.variable)] = piece
        self._views[id(tensor)] = tensor, (*plain, *changed.values())

    def _use(
        self,
        kind: Any,
        operation: Operation,
        piece: Piece,
        told: tuple[Roles, Dims] | None = None,
        alone: bool = True,
    ) -> Use:
        roles, dims = told or (None, None)
        use = Use(
            piece.variable,
            kind,
            operation.name,
            roles,
            piece.change,
            dims,
            alone=alone and piece.alone,
            looped=self.looped,
        )
        self.uses.append(use)
        return use

    def _finish(
        self,
        operation: Operation,
        found: list[Use],
        signal: int,
        kernel: int,
        shift: Sequence[Piece] = (),
    ) -> list[Tensor] | None:
        """Follows the output of a product up to its bias, or shows it."""
        dims = found[0].dims
        if len(found) != 1 or dims is None:
            return None
        (use,) = found
        rows_are_kernels = use.kind == "gather" and use.roles is not None and len(use.roles.outputs) > 1
        replaced = None if rows_are_kernels else self._took(Taken(use, operation, signal, kernel))
        output = operation.outputs[0] if replaced is None else replaced
        if len(shift) == 1:
            self._shift(operation, use, shift[0])
            return self._show(use, output)
        if self._shown and not self._waits(use) and not rows_are_kernels:
            return self._show(use, output)
        self._products[id(output)] = output, use, dims
        return None if replaced is None else [replaced]

    def _waits(self, use: Use) -> bool:
        """Whether something more happens to an output before it is shown: it is cut, or a bias is added."""
        planned = self._planned(use)
        return planned is not None and (planned.cuts > use.cuts or planned.bias is not None)

    def _shift(self, operation: Operation, use: Use, piece: Piece) -> None:
        self._use("shift", operation, piece)
        whole = piece.dims is not None and size_of(
            [f for factors in piece.dims for f in factors]
        ) == math.prod(piece.variable.shape)
        if whole and not piece.change and piece.alone:
            use.bias = piece.variable
        else:
            use.shifted = True

    def _show(self, use: Use, output: Tensor) -> list[Tensor] | None:
        replaced = self._shown(use, output) if self._shown else None
        return None if replaced is None else [replaced]

    def _follow(self, operation: Operation) -> list[Tensor] | None:
        """Goes on from the output of a product to its reshaped, transposed or cut copies."""
        place = next((p for p, tensor in enumerate(operation.inputs) if id(tensor) in self._products), None)
        if place is None or len(operation.outputs) != 1:
            return None
        product, use, dims = self._products[id(operation.inputs[place])]
        effect, output = self._effect_of(operation), operation.outputs[0]
        if use.kind == "gather" and isinstance(effect, Contract):
            return self._take_rows(operation, effect, use, dims)
        if isinstance(effect, Contract | Convolve) and makes_kernel(
            use, dims, effect, place, len(output.shape)
        ):
            use.generates = True
            if isinstance(effect, Contract) and len(use.variable.shape) > 2:
                use.roles = of_mixed(use, dims, effect, place, len(output.shape))
        if id(product) in self._taken:  # also taken whole
            use.cuts = 0 if id(product) in self._cuts else use.cuts
            return None
        self._taken.add(id(product))
        # A convolution that computes more than its map is cut to it: the map is its output.
        cut = isinstance(effect, Shrink) and use.kind == "convolution"
        follows = cut or isinstance(effect, Move | Reshape)
        moved_to = after(effect, dims, shape_of(output)) if follows else None
        if moved_to is None:
            return None
        if cut:
            self._cuts.add(id(product))
            use.cuts, use.dims = use.cuts + 1, moved_to
            if self._shown and not self._waits(use):
                return self._show(use, output)
        self._products[id(output)] = output, use, moved_to
        return None

    def _take_rows(self, operation: Operation, effect: Contract, use: Use, dims: Dims) -> list[Tensor] | None:
        """Goes on with rows of a table that are matrices: of a mixture of experts, each row is a kernel."""
        if use.roles is None or len(use.roles.outputs) < 2:
            return None
        later = id(operation.inputs[effect.operands[1]]) in self._products
        told = of_product(Piece(use.variable, dims), effect, later, shape_of(operation.outputs[0]))
        self.uses.remove(use)
        found = self._use("product", operation, Piece(use.variable, dims, use.change, use.alone), told)
        return self._finish(operation, [found], effect.operands[not later], effect.operands[later])


def after(effect: Effect, dims: Dims | None, shape: tuple[int, ...]) -> Dims | None:
    """Returns the factors after a move, a reshape, a tiling or a cut; None if the effect is another."""
    if dims is None:
        return None
    if isinstance(effect, Move):
        return moved(dims, effect.axes, shape)
    if isinstance(effect, Reshape):
        return reshaped(dims, shape)
    if isinstance(effect, Tile):
        return tiled(dims, shape)
    if isinstance(effect, Shrink) and effect.axes is not None:
        dims = tuple(() if axis is None else dims[axis] for axis in effect.axes)
    return shrunk(dims, shape) if isinstance(effect, Shrink) else None
