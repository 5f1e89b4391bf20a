"""`show_uses`: runs a layer and shows the output of each operation that takes one of its kernels.

Gradients pass: `gradient_at_operand` tells the gradient at the signal that an operation took.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import tree

from keras_initx._keras_internals import STATELESS_SCOPE, global_attribute
from keras_initx._types import Tensor, Variable
from keras_initx.uses._backend import reader
from keras_initx.uses._tracker import Tracker
from keras_initx.uses._use import Taken, Use

__all__ = ["gradient_at_operand", "show_uses"]


def show_uses(
    call: Callable[[], Any],
    inputs: Any,
    expected: Sequence[Use],
    show: Callable[[Use, Tensor], Tensor],
    take: Callable[[Taken], Tensor] | None = None,
) -> Any:
    """Runs a function once and shows the outputs of operations that take weights.

    Args:
        call: The function: a layer's call with its arguments.
        inputs: The arguments, in any structure.
        expected: What `find_uses` found of the weights to show.
        show: Called with a use of `expected` and its output, with the bias that follows. The tensor that it
            returns takes the place of the output. A use that turns out other than expected is not shown.
        take: Called before `show`, with the operation of the use as soon as it has run. The tensor that it
            returns takes the place of the operation's own output.

    Returns:
        What the function returns.
    """
    tell = reader()
    by_weight: dict[int, list[Use]] = {}
    for use in expected:
        by_weight.setdefault(id(use.variable), []).append(use)

    def planned(use: Use) -> Use | None:
        """The expected use that this one is: of the same weight, and as late in the run."""
        own = [one for one in tracker.uses if one.variable is use.variable and one.is_kernel]
        wanted = by_weight.get(id(use.variable), [])
        number = own.index(use)
        found = wanted[number] if number < len(wanted) else None
        if found is None or (found.kind, found.roles, found.change) != (use.kind, use.roles, use.change):
            return None
        return found

    def shown(use: Use, output: Tensor) -> Tensor | None:
        known = planned(use)
        return None if known is None or known.bias is not use.bias else show(known, output)

    def took(taken: Taken) -> Tensor | None:
        return None if take is None or planned(taken.use) is None else take(taken)

    tracker = Tracker(tell.effect, shown, planned, took)
    weights = {id(w): w for use in expected for w in (use.variable, use.bias) if w is not None}
    tracker.begin(leaf for leaf in tree.flatten(inputs) if hasattr(leaf, "shape"))
    with _valued(list(weights.values()), tell.value_of) as values, tell.shown(tracker):
        for weight, value in zip(weights.values(), values, strict=True):
            tracker.watch(value, weight)
        return call()


@contextlib.contextmanager
def _valued(weights: Sequence[Variable], value_of: Callable[[Variable], Tensor]) -> Iterator[list[Tensor]]:
    """Has all code get one tensor as the value of a weight."""
    # TensorFlow reads variables where no callback sees it.
    scope, values = global_attribute(STATELESS_SCOPE), [value_of(weight) for weight in weights]
    if scope is None:
        with keras.StatelessScope(list(zip(weights, values, strict=True)), initialize_variables=False):
            yield values
        return
    # A scope within this one would hide the values of all other variables.
    for weight, value in zip(weights, values, strict=True):
        scope.add_update((weight, value))
    yield values


def gradient_at_operand(taken: Taken, gradient: Tensor, kernel: Tensor | None = None) -> Tensor | None:
    """Returns the gradient at the signal that an operation takes, through this operation alone.

    Args:
        taken: A use that ran.
        gradient: The gradient at the operation's output.
        kernel: The tensor that holds the weight. None for the tensor that the operation took.

    Returns:
        The gradient; None for a lookup, which takes no signal.
    """
    operation = taken.operation
    if taken.use.kind == "gather":
        return None
    if kernel is not None:
        inputs = [kernel if place == taken.kernel else one for place, one in enumerate(operation.inputs)]
        operation = dataclasses.replace(operation, inputs=inputs)
    found: Tensor = reader().gradient_at(operation, taken.signal, gradient)
    return found
