"""`show_uses`: runs a layer and shows the output of each operation that takes one of its kernels."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import tree

from keras_initx._types import Tensor
from keras_initx.uses._backend import reader
from keras_initx.uses._tracker import Tracker
from keras_initx.uses._use import Use

__all__ = ["show_uses"]


def show_uses(
    call: Callable[[], Any],
    inputs: Any,
    expected: Sequence[Use],
    show: Callable[[Use, Tensor, Tensor], Tensor],
) -> Any:
    """Runs a function once and shows the outputs of operations that take weights.

    Args:
        call: The function: a layer's call with its arguments.
        inputs: The arguments, in any structure.
        expected: What `find_uses` found of the weights to show.
        show: Called with a use of `expected`, the signal that it takes, and its output, with the bias that
            follows. The tensor that it returns takes the place of the output. A use that turns out other than
            expected is not shown.

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

    def shown(use: Use, operand: Tensor, output: Tensor) -> Tensor | None:
        known = planned(use)
        return None if known is None or known.bias is not use.bias else show(known, operand, output)

    tracker = Tracker(tell.effect, shown, planned)
    # TensorFlow reads variables where no callback sees it. In the scope all code gets these tensors.
    weights = {id(w): w for use in expected for w in (use.variable, use.bias) if w is not None}
    values = [(weight, tell.value_of(weight)) for weight in weights.values()]
    for weight, value in values:
        tracker.watch(value, weight)
    for leaf in tree.flatten(inputs):
        if hasattr(leaf, "shape"):
            tracker.feed(leaf)
    with keras.StatelessScope(values, initialize_variables=False), tell.shown(tracker):
        return call()
