"""Finds the projections of attention that is written out: a softmax between two products of signals.

    query ──┐
            product ──> scale, bias, mask ──> softmax ──┐
    key ────┘                                           product ──> attention_output
    value ──────────────────────────────────────────────┘

Each projection must be one kernel of its own. A fused one, of which query, key and value are parts, belongs
to the attention and has no role in it.
"""

from keras_initx.walk._branches import Branches
from keras_initx.walk._operations import MIXTURES, PASSING, PRODUCTS, SUMS, class_name, is_softmax

__all__ = ["ROLES", "attention_roles"]

ROLES = ("query", "key", "value", "attention_output")

# From scores to softmax, which may be written out, and on to the product with the values.
_BETWEEN = PASSING | PRODUCTS | SUMS | {"Exp", "Tanh"}  # a tanh caps scores


def attention_roles(flow: Branches) -> dict[int, tuple[str, int]]:
    """Returns for the ids of kernels their role in an attention, and the number of the attention.

    Args:
        flow: A `Flow`.
    """
    found: dict[int, tuple[str, int]] = {}
    for index in range(len(flow.steps)):
        sides, mixed = _sides(flow, index)
        if len(sides) != 3 or mixed is None:
            continue
        kernels = [_kernel(flow, side) for side in sides]
        if None not in kernels and len(set(kernels)) < 3:
            found |= {kernel: ("", index) for kernel in kernels if kernel}
            continue
        kernels.append(_next_kernel(flow, mixed))
        if None not in kernels and len(set(kernels)) == 4:
            found |= {kernel: (role, index) for kernel, role in zip(kernels, ROLES, strict=True) if kernel}
    return found


def _sides(flow: Branches, index: int) -> tuple[list[int], int | None]:
    """The steps of query, key and value of an attention at a step, and the step that mixes the values."""
    if class_name(flow.steps[index]) == "DotProductAttention":
        return list(flow.steps[index].parents[:3]), index
    if not is_softmax(flow.steps, index):
        return [], None
    scores, mixed = _nearest(flow, index, back=True), _nearest(flow, index, back=False)
    if scores is None or mixed is None or len(flow.steps[scores].parents) > 2:
        return [], None
    pair = flow.steps[scores].parents
    values = [p for p in flow.steps[mixed].parents if index not in _ways_back(flow, p)]
    return [pair[0], pair[-1], *values], mixed


def _nearest(flow: Branches, index: int, back: bool) -> int | None:
    """The nearest product of two signals before or after a step, with no kernel in between."""
    queue, seen = [index], {index}
    while queue:
        here = queue.pop(0)
        for other in flow.steps[here].parents if back else flow.children[here]:
            if other in seen or flow.weights[other]:
                continue
            seen.add(other)
            name = class_name(flow.steps[other])
            if name in MIXTURES:
                return other
            if name in _BETWEEN:
                queue.append(other)
    return None


def _ways_back(flow: Branches, index: int) -> set[int]:
    """A step and the steps before it, up to the last products and kernels."""
    queue, seen = [index], {index}
    while queue:
        here = queue.pop()
        if not flow.weights[here] and class_name(flow.steps[here]) not in MIXTURES:
            new = [parent for parent in flow.steps[here].parents if parent not in seen]
            seen.update(new)
            queue += new
    return seen


def _kernel(flow: Branches, index: int) -> int | None:
    """The id of the one kernel that made a signal; None if there are others, or it is a layer's."""
    # Rotary positions and biases are sums on the way, of parts of the one kernel's output.
    steps = set(flow.last_kernels(index, stop_at_sums=False))
    return _own(flow, steps.pop()) if len(steps) == 1 else None


def _next_kernel(flow: Branches, index: int) -> int | None:
    """The id of the one kernel that takes a signal next."""
    queue, found, seen = [index], set(), {index}
    while queue:
        for child in flow.children[queue.pop()]:
            if flow.weights[child]:
                found.add(child)
            elif child not in seen:
                seen.add(child)
                queue.append(child)
    return _own(flow, found.pop()) if len(found) == 1 else None


def _own(flow: Branches, index: int) -> int | None:
    weights = flow.steps[index].weights
    return id(weights[0]) if len(weights) == 1 else None
