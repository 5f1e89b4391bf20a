"""Tells which activation a product of two signals makes."""

from typing import Any

import keras
from keras import tree

from keras_initx.walk._affine import bare
from keras_initx.walk._branches import Branches
from keras_initx.walk._operations import PRODUCTS, class_name, is_gate, label_of
from keras_initx.walk._trace import Step

__all__ = ["UNKNOWN", "product_of"]

# Names of gated linear units, by the activations of their gates.
_GATES = {"sigmoid": "glu", "hard_sigmoid": "glu", "relu": "reglu", "gelu": "geglu", "silu": "swiglu"}
UNKNOWN = object()  # an activation that is not known


def product_of(flow: Branches, step: Step) -> Any:
    """Returns the activation that a product makes: of a gated linear unit, or of a signal times numbers.

    A product with Rsqrt or Reciprocal is a normalization that is written out, which counts as linear.

    Args:
        flow: A `Flow`.
        step: A step that multiplies its operands.
    """
    if len(step.parents) == 1:
        signals = [one for one in tree.flatten(step.arguments) if isinstance(one, keras.KerasTensor)]
        return UNKNOWN if len(signals) > 1 else flow.source(step.parents[0])  # a signal times itself
    names = [class_name(flow.steps[parent]) for parent in step.parents]
    if "Rsqrt" in names or "Reciprocal" in names:
        return None
    if "Erfc" in names and _share(flow, step):  # x * erfc(-x / sqrt(2)) / 2
        return "gelu"
    sources = [flow.source(parent) for parent in step.parents]
    if len(sources) != 2 or any(source is UNKNOWN for source in sources):
        return UNKNOWN
    gate, signal = sources if is_gate(bare(sources[0])) or sources[1] is None else sources[::-1]
    # Squeeze and excitation: a gate that is made of an activated signal scales it, which keeps its shape.
    at, gate = sources.index(gate), bare(gate)
    if signal is not None:
        made_of_it = flow.ancestors[step.parents[at]] >> step.parents[1 - at] & 1
        return signal if is_gate(gate) and not is_gate(bare(signal)) and made_of_it else UNKNOWN
    if gate == "sigmoid" and _gates_itself(flow, step):
        return "silu"
    return _GATES.get(label_of(gate)) or _written_out(flow, step, label_of(gate))


def _gates_itself(flow: Branches, step: Step) -> bool:
    """Whether a product is x * f(c x), where f is one operation and c a number."""
    for gate, signal in (step.parents, step.parents[::-1]):
        parents = flow.steps[gate].parents
        while parents != (signal,) and len(parents) == 1 and class_name(flow.steps[parents[0]]) in PRODUCTS:
            parents = flow.steps[parents[0]].parents
        if parents == (signal,):
            return not flow.steps[signal].several  # two outputs of a split are two signals
    return False


def _share(flow: Branches, step: Step) -> bool:
    """Whether both operands are functions of one signal, with no kernel in between."""
    one, other = step.parents
    return bool(flow.free[one] & flow.free[other])


def _written_out(flow: Branches, step: Step, gate: str) -> Any:
    """The activation x * f(x) where f is several operations: GELU by its erf or tanh, or Mish."""
    one, other = step.parents
    if gate not in ("erf", "tanh") or not _share(flow, step):
        return UNKNOWN
    if gate == "erf":
        return "gelu"
    inner = one if bare(flow.source(one)) == "tanh" else other
    while class_name(flow.steps[inner]) != "Tanh":  # back over a shift and a factor
        if len(flow.steps[inner].parents) != 1:
            return UNKNOWN
        (inner,) = flow.steps[inner].parents
    before = flow.source(flow.steps[inner].parents[0])
    return {None: "gelu", "softplus": "mish"}.get(before, UNKNOWN)
