"""Finds the projections of attention that is written out: two products of signals, one behind the other.

    query ──┐
            product ──> scale, bias, mask ──> softmax ──┐
    key ────┘                                           product ──> attention_output
    value ──────────────────────────────────────────────┘

In place of the softmax there may be another activation: attention with ReLU or sigmoid. With none, as in
linear attention, the first product may join query and key or key and value. The projections then belong to
the attention, and have no role in it. Each projection must be one kernel of its own: a fused one, of which
query, key and value are parts, has no role either.
"""

from keras_initx.walk._branches import Branches
from keras_initx.walk._operations import MIXTURES, PASSING, PRODUCTS, SUMS, activation_at, class_name

__all__ = ["ROLES", "attention_roles"]

ROLES = ("query", "key", "value", "attention_output")

# Operations on the scores. Those of a softmax that is written out, as on JAX, are among them.
_LINEAR = PASSING | PRODUCTS | SUMS
_NONLINEAR = frozenset({"Exp", "Square"})


def attention_roles(flow: Branches) -> dict[int, tuple[str, int]]:
    """Returns for the ids of kernels their role in an attention, and the number of the attention.

    Args:
        flow: A `Flow`.
    """
    found: dict[int, tuple[str, int]] = {}
    for index in range(len(flow.steps)):
        sides, mixed, nonlinear = _sides(flow, index)
        if len(sides) != 3:
            continue
        kernels = [_kernel(flow, side) for side in sides]
        fused = None not in kernels and len(set(kernels)) < 3
        if fused or not nonlinear:
            found |= {kernel: ("", index) for kernel in kernels if kernel} if None not in kernels else {}
            continue
        kernels.append(_next_kernel(flow, mixed))
        if None not in kernels and len(set(kernels)) == 4:
            found |= {kernel: (role, index) for kernel, role in zip(kernels, ROLES, strict=True) if kernel}
    return found


def _sides(flow: Branches, index: int) -> tuple[list[int], int, bool]:
    """The steps of query, key and value, if a step is the first product of an attention.

    Returns:
        The steps, none if it is no such product; the step that mixes the values; and whether the scores go
        through an activation before.
    """
    step = flow.steps[index]
    if class_name(step) == "DotProductAttention":
        return list(step.parents[:3]), index, True
    if class_name(step) not in MIXTURES or flow.weights[index] or not step.parents:
        return [], index, False
    mixed, nonlinear = _next_product(flow, index)
    if mixed is None:
        return [], index, False
    values = [p for p in flow.steps[mixed].parents if index not in _ways_back(flow, p)]
    return [step.parents[0], step.parents[-1], *values], mixed, nonlinear


def _next_product(flow: Branches, index: int) -> tuple[int | None, bool]:
    """The next product of two signals with no kernel in between, and whether an activation lies before it."""
    queue, seen = [index], {index}
    activated: set[int] = set()
    while queue:
        for child in flow.children[queue.pop(0)]:
            step = flow.steps[child]
            if child in seen or flow.weights[child]:
                continue
            seen.add(child)
            name = class_name(step)
            if name in MIXTURES:
                return child, any(flow.ancestors[child] >> one & 1 for one in activated)
            if name in _NONLINEAR or activation_at(step):
                activated.add(child)
                queue.append(child)
            elif name in _LINEAR:
                queue.append(child)
    return None, False


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
