"""`Flow`: which operation takes the output of which, what follows a weight, and what a factor does."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from keras_initx._types import Tensor, Variable
from keras_initx.uses._constants import plain
from keras_initx.uses._operations import (
    Combine,
    Concatenate,
    Contract,
    Convolve,
    Effect,
    Gather,
    Move,
    Operation,
    Reduce,
    Reshape,
    Shrink,
    Tile,
)

__all__ = ["Flow"]

# They multiply their outputs by a factor that is not negative, as their inputs.
_LINEAR = frozenset("gather gathernd leakyrelu prelu relu takealongaxis".split())  # noqa: SIM905
_REDUCTIONS = frozenset("amax amin max mean min reducemax reducemin reducesum sum".split())  # noqa: SIM905
# Normalizations in one operation: a signal, then a scale and a shift among the rest.
_NORMS = ("cudnnbatchnorm", "fusedbatchnormv3", "nativebatchnorm", "nativelayernorm")


@dataclasses.dataclass(frozen=True)
class _Step:
    """An operation, with the identities of its tensors, and of the weights that they hold."""

    name: str
    effect: Effect
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    weights: frozenset[int]
    signals: int  # the number of its operands that come from the input or a weight

    @property
    def key(self) -> str:
        """What it computes; empty for an operation that only moves entries."""
        if isinstance(self.effect, Move | Reshape | Tile):
            return ""
        how = self.effect.how if isinstance(self.effect, Combine) else "other"
        named = {"adds": "add", "scales": "multiply", "divides": "divide", "other": plain(self.name)}
        return named[how]


class Flow:
    """The operations of one run.

    Args:
        pieces: Returns the weights that a tensor holds.
        is_constant: Whether a tensor is made of no input and no weight.
    """

    def __init__(
        self, pieces: Callable[[Tensor], Sequence[Any]], is_constant: Callable[[Tensor], bool]
    ) -> None:
        self._pieces, self._is_constant = pieces, is_constant
        self._steps: list[_Step] = []
        self._held: dict[int, Any] = {}  # all tensors of the run, so that none gets the identity of another
        self._weights: dict[int, int] = {}
        self._outputs: set[int] = set()

    def watch(self, tensor: Tensor, variable: Variable) -> None:
        """Takes a tensor as the value of a weight."""
        self._held[id(tensor)], self._weights[id(tensor)] = tensor, id(variable)

    def see(self, operation: Operation, effect: Effect) -> None:
        """Takes an operation that has run."""
        tensors = [t for t in operation.inputs if hasattr(t, "shape")]
        self._held.update({id(t): t for t in (*tensors, *operation.outputs)})
        if all(map(self._is_constant, tensors)):
            return
        weights = frozenset(id(piece.variable) for t in tensors for piece in self._pieces(t))
        signals = sum(not self._is_constant(t) for t in tensors)
        inputs, outputs = (tuple(map(id, side)) for side in (operation.inputs, operation.outputs))
        self._steps.append(_Step(operation.name, effect, inputs, outputs, weights, signals))

    def finish(self, outputs: Iterable[Tensor]) -> None:
        """Takes the outputs of the run, and lets the tensors go."""
        self._outputs = set(map(id, outputs))
        self._held.clear()

    @property
    def known(self) -> bool:
        """Whether the run has told something."""
        return bool(self._steps)

    def after(self, variable: Variable) -> Counter[str]:
        """What follows a weight up to the next weight or sum: the names of operations, and how often."""
        return self._follow(id(variable))[0]

    def beside(self, variable: Variable) -> Counter[frozenset[int]]:
        """For each sum that follows a weight, the ids of the weights that it follows."""
        return Counter(frozenset(self._met[merge]) for merge in self._follow(id(variable))[1])

    @functools.cached_property
    def _met(self) -> dict[int, set[int]]:
        found: dict[int, set[int]] = {}
        for weight in frozenset(weight for step in self._steps for weight in step.weights):
            for merge in self._follow(weight)[1]:
                found.setdefault(merge, set()).add(weight)
        return found

    def _follow(self, weight: int) -> tuple[Counter[str], set[int]]:
        """What follows a weight, and the outputs of the operations where it meets another signal."""
        found: Counter[str] = Counter()
        merged: set[int] = set()
        left = [out for s in self._steps if weight in s.weights for out in s.outputs]
        seen: set[int] = set()
        while left:
            tensor = left.pop()
            if tensor in seen:
                continue
            seen.add(tensor)
            found["output"] += tensor in self._outputs
            for step in self._takers.get(tensor, ()):
                if step.weights:
                    continue
                if step.signals > 1 and step.key:
                    found[step.key] += step.outputs[0] not in merged
                    merged.add(step.outputs[0])
                else:
                    found[step.key] += bool(step.key)
                    left += step.outputs
        return +found, merged

    @functools.cached_property
    def _takers(self) -> dict[int, list[_Step]]:
        found: dict[int, list[_Step]] = {}
        for step in self._steps:
            for tensor in dict.fromkeys(step.inputs):
                found.setdefault(tensor, []).append(step)
        return found

    def undoes(self, scaled: Iterable[int], tables: Iterable[int]) -> bool:
        """Whether a factor of weights reaches all products with tables whole, and nothing else.

        Args:
            scaled: The ids of the weights that get the factor.
            tables: The ids of tables whose products are larger by one over the factor.
        """
        own, words = set(scaled), set(tables)
        # For each tensor the power of the factor in it; None if it is not a power.
        powers: dict[int, float | None] = {t: float(v in own) for t, v in self._weights.items()}
        rows = {t for t, v in self._weights.items() if v in words}
        met = False
        for step in self._steps:
            if isinstance(step.effect, Move | Reshape) and step.inputs[0] in rows:
                rows |= set(step.outputs)
            operands = step.effect.operands if isinstance(step.effect, Contract) else ()
            if any(step.inputs[place] in rows for place in operands):
                others = [powers.get(step.inputs[p], 0) for p in operands if step.inputs[p] not in rows]
                if others != [1]:
                    return False
                met = True
                continue
            found = _power(step, [powers.get(tensor, 0) for tensor in step.inputs])
            powers.update(dict.fromkeys(step.outputs, found))
        return met and all(powers.get(tensor, 0) == 0 for tensor in self._outputs)


def _power(step: _Step, powers: list[float | None]) -> float | None:
    """The power of a factor in the outputs of an operation, from those in its inputs; None if it is none."""
    if not any(power != 0 for power in powers):
        return 0
    if None in powers:
        return None
    known = [power or 0 for power in powers]
    effect, name = step.effect, plain(step.name)
    if isinstance(effect, Combine):
        one, other = (known[place] for place in effect.operands)
        if effect.how == "adds" or name in ("max", "maximum", "min", "minimum"):
            return one if one == other else None
        return {"scales": one + other, "divides": one - other}.get(effect.how)
    if isinstance(effect, Contract | Convolve):
        first, second = effect.operands if isinstance(effect, Contract) else (0, 1)
        found = known[first] + known[second]
        return found if effect.shift is None or known[effect.shift] == found else None
    if isinstance(effect, Concatenate):
        return known[0] if len(set(known[: effect.count])) == 1 else None
    if name.startswith(_NORMS):
        rest = [power for power in known[1:] if power]
        return 1 if known[0] == 0 and rest == [1, 1] else None
    if isinstance(effect, Shrink | Gather):
        return known[effect.source if isinstance(effect, Shrink) else effect.table]
    plainly = isinstance(effect, Move | Reshape | Tile) or name in _LINEAR
    if plainly or (isinstance(effect, Reduce) and name.removeprefix("reduce") in _REDUCTIONS):
        return known[0] if not any(known[1:]) else None
    return None
