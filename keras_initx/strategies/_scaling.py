"""The factors of learning rate, epsilon and decay by growth, and how the optimizer steps."""

import math

from keras_initx.optimizers import Law, Multiplier
from keras_initx.strategies._depth import Depth
from keras_initx.strategies._pairs import Pair

__all__ = ["multiplier"]


def multiplier(law: Law, pair: Pair, size: float, depth: Depth) -> Multiplier:
    """Returns the factors of a weight for which steps change the layer's outputs as they do in the base.

    An input of n entries, once features are learned, adds up in a unit instead of averaging out. A step must
    therefore change the outputs of a hidden layer by entries of the size 1 / n. The gradient of an entry is
    proportional to 1 / (growth of the outputs), so epsilon is, too.

    Args:
        law: How the optimizer steps.
        pair: The weight, and the one of the base.
        size: How many times as large the entries of the weight are at first, in the root mean square.
        depth: The model's depth relative to the base.
    """
    wide, deep = _by_width(law, pair), depth.multiplier(pair, law.kind)
    # Adafactor multiplies its steps by the size of the weights.
    relative = size * depth.size(pair) if law.kind == "adafactor" else 1.0
    return Multiplier(
        learning_rate=wide.learning_rate * deep.learning_rate / relative,
        epsilon=wide.epsilon * deep.epsilon,
        weight_decay=deep.weight_decay,
    )


def _by_width(law: Law, pair: Pair) -> Multiplier:
    if law.kind == "sgd":
        return Multiplier(learning_rate=pair.outputs / pair.inputs)
    if law.is_muon(pair.own.kernel):
        side = math.sqrt(max(pair.own.kernel.shape) / max(pair.base.kernel.shape))
        if not getattr(pair.own, "fans", None):
            # The biases of heads have two axes. The entries of a step are 1 over the root of the larger side.
            return Multiplier(learning_rate=1.0 if law.by_shape else side)
        # All singular values of the step are equal: their size must grow as the root of outputs / inputs.
        own = side if law.by_shape else 1.0
        return Multiplier(learning_rate=math.sqrt(pair.outputs / pair.inputs) / own)
    return Multiplier(learning_rate=1 / pair.inputs, epsilon=1 / pair.outputs)
