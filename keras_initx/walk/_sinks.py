"""Follows the output of a kernel through the flow, up to the next kernels."""

import keras
from keras import layers, tree

from keras_initx._types import Activation, Layer
from keras_initx.walk._branches import Branches
from keras_initx.walk._operations import (
    MOVES,
    PASSING,
    SUMS,
    activation_at,
    activation_of,
    class_name,
    is_normalization,
)

__all__ = ["is_normalized_after", "next_activation"]


def next_activation(flow: Branches, index: int) -> tuple[Activation | None, Layer | None, bool]:
    """Returns the first activation that the output of a step goes through.

    Args:
        flow: A `Flow`.
        index: Number of a step with a kernel.

    Returns:
        The activation; the layer that applies it, None if a bare operation does; and whether a normalization
        comes before it.
    """
    operation = flow.steps[index].operation
    own = activation_of(operation)
    if own:
        return own, operation, False
    queue, seen = [(child, False) for child in flow.children[index]], set()
    while queue:
        child, normalized = queue.pop(0)
        step = flow.steps[child]
        normalizes = is_normalization(step.operation)
        # Another kernel, or a layer that the trace did not see into, ends this way.
        if child in seen or flow.weights[child] or (step.opaque and not normalizes):
            continue
        seen.add(child)
        activation = activation_at(step)
        if activation:
            layer = step.operation if isinstance(step.operation, layers.Layer) else None
            # Of a bare operation no output is read: its activation is that of the kernel's own output, unless
            # something changes it on the way, or takes it beside.
            direct = layer is not None or normalized or _leads_straight(flow, index, child)
            return (activation, layer, normalized) if direct else (None, None, False)
        name = class_name(step)
        if normalizes or name in PASSING or name in SUMS:
            queue.extend((after, normalized or normalizes) for after in flow.children[child])
    return None, None, False


def _leads_straight(flow: Branches, index: int, end: int) -> bool:
    """Whether the output of a kernel comes to a step as it is, with no more than its bias added."""
    here, shifted = index, False
    while here != end:
        if len(flow.children[here]) != 1:
            return False
        (here,) = flow.children[here]
        step = flow.steps[here]
        # The operations of a backend have no arguments here; what they add is taken for a bias.
        added = [leaf for leaf in tree.flatten(step.arguments) if type(leaf) is not keras.KerasTensor]
        is_bias = not step.arguments or any(len(getattr(leaf, "shape", ())) for leaf in added)
        shifts = class_name(step) == "Add" and not shifted and is_bias
        if len(step.parents) != 1 or not (here == end or shifts or class_name(step) in MOVES):
            return False
        shifted = shifted or shifts
    return True


def is_normalized_after(flow: Branches, index: int) -> bool:
    """Tells whether a normalization lies on every way from a step to the next kernels and to the outputs."""
    queue, seen = [index], set()
    while queue:
        here = queue.pop()
        if here in seen:
            continue
        seen.add(here)
        if here != index and is_normalization(flow.steps[here].operation):
            continue
        if here in flow.trace.outputs or (here != index and flow.weights[here]):
            return False
        queue.extend(flow.children[here])
    return True
