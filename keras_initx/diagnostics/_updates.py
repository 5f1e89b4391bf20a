"""What one step of the compiled optimizer would do to the weights."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initx.gradients import unscoped

__all__ = ["update_ratios"]


@unscoped
def update_ratios(model: Any, variables: Sequence[Any], gradients: Sequence[Any]) -> dict[int, float]:
    """Returns how far one step moves each variable, relative to its size, by the variable's id.

    The step is taken on copies by a copy of the optimizer, in its present state.

    Args:
        model: A Keras model; without an optimizer there are no ratios.
        variables: Its trainable variables.
        gradients: Gradients by them.

    Returns:
        The root mean square of the change over that of the values; of variables that are not all zero.
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not variables:
        return {}
    # Its step of gradients in their own scale is that of a LossScaleOptimizer, whose `apply` fails on JAX.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    # Without `copy` the new variable has the old one's handle on TensorFlow, its storage on torch.
    copies = [keras.Variable(ops.copy(v.value), name=v.name, dtype=v.dtype) for v in variables]
    copy = type(optimizer).from_config(optimizer.get_config())
    copy.build(copies)
    if optimizer.built:
        for new, old in zip(copy.variables, optimizer.variables, strict=True):
            new.assign(old.value)
    scale = float(copy.scale_loss(1.0))
    copy.apply([gradient * scale for gradient in gradients], copies)
    found = {}
    for variable, moved in zip(variables, copies, strict=True):
        size = _rms(variable.value)
        if size > 0:
            found[id(variable)] = _rms(moved.value - variable.value) / size
    return found


def _rms(tensor: Any) -> float:
    square = ops.mean(ops.square(ops.cast(ops.stop_gradient(tensor), "float32")))
    return float(np.sqrt(ops.convert_to_numpy(square)))
