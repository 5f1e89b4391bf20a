"""Where the forward pass of a wider model has to change, since weights cannot: attention and tied logits."""

from collections.abc import Sequence

import keras

from keras_initx._types import Model
from keras_initx.strategies._pairs import Pair
from keras_initx.walk import Graph, KernelSite, Node, numbers_of_node, trace

__all__ = ["head_note", "tied_note"]


def head_note(pair: Pair) -> str:
    """Returns a note on a query whose heads grow in width, where the logits are divided by the root of it.

    Args:
        pair: The kernel of a query with a kernel of the base. The kernel has an axis for the heads.
    """
    site, shape, before = pair.own, pair.own.kernel.shape, pair.base.kernel.shape
    if site.role != "query" or len(shape) != 3 or shape[-1] <= before[-1]:
        return ""
    heads = shape[-2] * shape[-1] / before[-1]
    many = f"{heads:.0f}" if heads == int(heads) else f"{heads:.4g}"
    return (
        f"its heads grow from width {before[-1]} to {shape[-1]}: muP divides logits by this width, Keras by "
        f"its root. Let the number of heads grow: num_heads={many}, key_dim={before[-1]}"
    )


def tied_note(pair: Pair, model: Model | None, base: Model) -> str:
    """Returns a note on a tied embedding, unless the model divides the logits by the growth of the width.

    Args:
        pair: The kernel of a tied embedding.
        model: The model; None if it is not known.
        base: The base.
    """
    growth = pair.outputs
    if growth == 1:
        return ""
    if model is not None:
        own, before = (_factor(trace(m), s) for m, s in ((model, pair.own), (base, pair.base)))
        if own and before and abs(own / before * growth - 1) < 1e-3:
            return ""
    told = "divide the logits by the growth of the width"
    outputs: Sequence[keras.KerasTensor] = getattr(model, "outputs", None) or ()
    if len(outputs) == 1 and outputs[0].shape[-1] == pair.own.kernel.shape[0]:
        return f"{told}: keras.Model(model.inputs, model.outputs[0] / {growth:g})"
    return f"{told}, {growth:g}, where the model makes them of this table"


def _factor(graph: Graph, site: KernelSite) -> float:
    """The factor of plain numbers around the product of a tied kernel with the states; 0 if there is none."""
    uses = [n for n, node in enumerate(graph.nodes) if any(v is site.kernel for v in node.kernels)]
    if len(uses) < 2:
        return 0.0
    found, at = 1.0, uses[-1]
    before = graph.nodes[at].operands
    while before and before[0].node is not None and (factor := _number(graph.nodes[before[0].node])):
        found *= factor
        before = graph.nodes[before[0].node].operands
    for number, node in enumerate(graph.nodes[at + 1 :], at + 1):
        if any(operand.node == at for operand in node.operands) and (factor := _number(node)):
            found, at = found * factor, number
    return found


def _number(node: Node) -> float:
    """The number by which a node multiplies its one signal; 0 for other nodes."""
    scale, shift = numbers_of_node(node) or (0.0, 0.0)
    return 0.0 if shift else scale
