"""Follows weights through the operations that run, and tells what takes each of them.

The tracker is called for each operation, with tensors with or without values. It keeps three tables:

    views      tensors that hold weights and no signal, each with its pieces
    products   outputs of operations that took a weight, up to the bias that is added to them
    signals    tensors that come from the inputs; all other tensors are constants

Most operations take no weight, and are let through at the price of a lookup for each input. The tables hold
the tensors themselves, so that no other tensor can get the identity of one that has gone.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

from keras_initx._types import Tensor
from keras_initx.uses._operations import (
    Combine,
    Concatenate,
    Contract,
    Convolve,
    Gather,
    Inner,
    Move,
    Operation,
    Reshape,
    Shrink,
    Tile,
)
from keras_initx.uses._outputs import Outputs, after
from keras_initx.uses._use import of_convolution, of_own_field, of_product, of_table
from keras_initx.uses._views import (
    Piece,
    broadcast,
    fits,
    repeats,
    shape_of,
    sizes_of,
    with_change,
    with_dims,
)

__all__ = ["Tracker"]


class Tracker(Outputs):
    """Follows the weights of a model while it runs.

    Attributes:
        opens: Names of compiled functions of JAX that are shown as the operations that they are made of.
    """

    opens: frozenset[str] = frozenset()

    def enter_loop(self, tensors: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        """Takes the arguments of a loop's body, each with the tensor outside that it stands for, if any.

        A weight stays that weight. Everything else is a signal: a state is one from the second step on.
        """
        for inner, outer in tensors:
            pieces = () if outer is None else self.pieces(outer)
            if pieces:
                self._hold(inner, pieces)
            elif not self.pieces(inner):
                self.feed(inner)

    def enter_step(self, tensors: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Takes what the body of a loop gets of tensors in one step: each step, and the whole tensor."""

    def see(self, operation: Operation) -> list[Tensor] | None:
        """Takes an operation that has run; returns tensors to go on with in place of its outputs, or None."""
        held = [self.pieces(tensor) for tensor in operation.inputs]
        if not any(held):
            if any(id(tensor) in self._signals for tensor in operation.inputs):
                for output in operation.outputs:
                    self.feed(output)
            return self._follow(operation) if self._products else None
        taken = self._take_weights(operation, held)
        for output in taken or operation.outputs:
            if id(output) not in self._views:
                self.feed(output)
        return taken

    def _take_weights(self, operation: Operation, held: list[tuple[Piece, ...]]) -> list[Tensor] | None:
        effect = self._effect_of(operation)
        if isinstance(effect, Inner):
            return None
        if isinstance(effect, Contract):
            return self._contract(operation, effect, held)
        if isinstance(effect, Convolve | Gather):
            place = effect.table if isinstance(effect, Gather) else 1
            if held[place]:
                return self._take(operation, effect, held[place])
            self._lose(operation, held)
            return None
        if isinstance(effect, Combine):
            return self._combine(operation, effect, held)
        if isinstance(effect, Concatenate):
            return self._concatenate(operation, effect, held)
        if isinstance(effect, Move | Reshape | Shrink | Tile):
            source = held[effect.source] if isinstance(effect, Shrink) else held[0]
            for output in operation.outputs:
                self._hold(output, [with_dims(p, after(effect, p.dims, shape_of(output))) for p in source])
            return None
        self._lose(operation, held)
        return None

    def _contract(
        self, operation: Operation, effect: Contract, held: list[tuple[Piece, ...]]
    ) -> list[Tensor] | None:
        first, second = effect.operands
        sizes = shape_of(operation.outputs[0])
        if held[first] and held[second]:
            tokens = next((place for place in (first, second) if any(map(repeats, held[place]))), None)
            if tokens is None:
                self._factorize(operation, effect, held)
                return None
            held = self._join(operation, held, tokens)
        if not any(self._is_signal(operation.inputs[place]) for place in effect.operands):
            tokens = next((place for place in (first, second) if any(map(repeats, held[place]))), None)
            if tokens is None:
                self._lose(operation, held)
            else:  # learned queries meet a kernel that is not followed
                self._join(operation, held, tokens)
            return None
        if not held[first] and not held[second]:  # only the shift is a weight
            self._lose(operation, held)
            return None
        later = bool(held[second])
        pieces = held[second] if later else held[first]
        found = [
            self._use(
                "product", operation, piece, of_product(piece, effect, later, sizes), alone=len(pieces) == 1
            )
            for piece in pieces
        ]
        signal, kernel = (first, second) if later else (second, first)
        shift = held[effect.shift] if effect.shift is not None else ()
        return self._finish(operation, found, signal, kernel, shift)

    def _join(
        self, operation: Operation, held: list[tuple[Piece, ...]], place: int
    ) -> list[tuple[Piece, ...]]:
        """Takes a weight that repeats over a batch, such as learned queries, as a signal."""
        for piece in held[place]:
            self._use("joins", operation, piece)
        tensor = operation.inputs[place]
        self.feed(tensor)
        del self._views[id(tensor)]
        return [() if number == place else pieces for number, pieces in enumerate(held)]

    def _factorize(self, operation: Operation, effect: Contract, held: list[tuple[Piece, ...]]) -> None:
        """A product of two weights: x (A B) counts as (x A) B, whose first factor has its inputs first."""
        for later, place in enumerate(effect.operands):
            for piece in held[place]:
                told = of_product(piece, effect, bool(later), shape_of(operation.outputs[0]))
                if told is not None and not later:
                    roles, dims = told
                    told = dataclasses.replace(roles, inputs=roles.outputs, outputs=roles.inputs), dims
                use = self._use("product", operation, piece, told)
                use.change, use.factor = use.change or "a product with another weight", True
        # The product is no signal: it may be a norm of the weight, by which the weight is divided.
        pieces = [piece for place in effect.operands for piece in held[place]]
        self._hold(operation.outputs[0], [with_change(with_dims(p, None), operation.name) for p in pieces])

    def _take(
        self, operation: Operation, effect: Convolve | Gather, pieces: tuple[Piece, ...]
    ) -> list[Tensor] | None:
        sizes = shape_of(operation.outputs[0])
        found = []
        for piece in pieces:
            if isinstance(effect, Convolve):
                told = of_convolution(piece, effect, sizes)
                use = self._use("convolution", operation, piece, told, alone=len(pieces) == 1)
                use.convolution = of_own_field(piece, effect)
            else:
                told = of_table(piece, effect.axis, effect.rest, sizes)
                use = self._use("gather", operation, piece, told, alone=len(pieces) == 1)
            found.append(use)
        shift = effect.shift if isinstance(effect, Convolve) else None
        signal, kernel = (0, 1) if isinstance(effect, Convolve) else (1 - min(effect.table, 1), effect.table)
        if isinstance(effect, Convolve) and effect.transposed:
            places = reversed(range(len(operation.inputs)))
            signal = next((p for p in places if self._is_signal(operation.inputs[p])), signal)
        added = self.pieces(operation.inputs[shift]) if shift is not None else ()
        return self._finish(operation, found, signal, kernel, added)

    def _combine(
        self, operation: Operation, effect: Combine, held: list[tuple[Piece, ...]]
    ) -> list[Tensor] | None:
        output, (first, second) = operation.outputs[0], effect.operands
        if not held[first] and not held[second]:
            self._lose(operation, held)
            return None
        one, other = (first, second) if held[first] else (second, first)
        partner = operation.inputs[other]
        if held[other] or not self._is_signal(partner):
            pieces = [with_dims(p, broadcast(p.dims, shape_of(output))) for p in (*held[one], *held[other])]
            # A number times a weight is linear in it; a sum with a number, or a power, is not.
            scaled = effect.how == "scales" or (effect.how == "divides" and one == first)
            plain = scaled and not held[other]
            self._hold(output, pieces if plain else [with_change(p, operation.name) for p in pieces])
            return None
        kinds = {"adds": "shift", "scales": "scale", "divides": "scale"}
        kind: Any = kinds.get(effect.how, "unknown")
        product = self._products.get(id(partner))
        if kind == "shift" and product and len(held[one]) > 1:
            product[1].shifted = True
        for piece in held[one]:
            if (
                kind == "shift"
                and product
                and len(held[one]) == 1
                and fits(piece, product[2], shape_of(output))
            ):
                _, use, dims = product
                use.dims = dims
                self._shift(operation, use, piece)
                return self._show(use, output)
            self._use(kind, operation, piece)
        return None

    def _concatenate(
        self, operation: Operation, effect: Concatenate, held: list[tuple[Piece, ...]]
    ) -> list[Tensor] | None:
        if not all(held[: effect.count]):
            self._lose(operation, held, kind="joins")
            return None
        pieces = []
        for own in held[: effect.count]:
            for piece in own:
                dims = piece.dims
                if dims is not None and effect.stacked:
                    dims = (*dims[: effect.axis], (), *dims[effect.axis :])
                pieces.append(Piece(piece.variable, dims, piece.change, alone=False))
        self._hold(operation.outputs[0], pieces)
        return None

    def _lose(
        self,
        operation: Operation,
        held: list[tuple[Piece, ...]],
        kind: Any = "unknown",
    ) -> None:
        """A weight goes where its axes are not followed: into the signal, or into a function of weights."""
        pieces = [piece for own in held for piece in own]
        if not any(map(self._is_signal, operation.inputs)):
            for output in operation.outputs:
                # The shape may stay, as under an absolute value. Then the axes stay, too.
                kept = [p if sizes_of(p.dims) == shape_of(output) else with_dims(p, None) for p in pieces]
                self._hold(output, [with_change(p, operation.name) for p in kept])
            return
        for piece in pieces:
            self._use(kind, operation, piece)
