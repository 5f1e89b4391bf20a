"""What one step of the compiled optimizer would do to the weights."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initx.state import slotted

__all__ = ["update_ratios"]


def update_ratios(model: Any, variables: Sequence[Any], gradients: Sequence[Any]) -> dict[int, float]:
    """Returns how far one step moves each variable, relative to its size, by the variable's id.

    The step is taken on copies by a copy of the optimizer, in its present state.

    Args:
        model: A Keras model; without an optimizer there are no ratios.
        variables: Its trainable variables.
        gradients: Gradients by them.

    Returns:
        The root mean square of the change over that of the values; of variables that are not all zero, and
        that the optimizer has slots for where it is built.
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not variables:
        return {}
    # Its step of gradients in their own scale is that of a LossScaleOptimizer, whose `apply` fails on JAX.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    known = slotted(optimizer) if optimizer.built else list(variables)
    copies = {id(variable): _copy(variable) for variable in known}
    copy = type(optimizer).from_config(optimizer.get_config())
    copy.build(list(copies.values()))
    if optimizer.built:
        for new, old in zip(copy.variables, optimizer.variables, strict=True):
            new.assign(old.value)
    scale = float(copy.scale_loss(1.0))
    slopes = {id(v): gradient * scale for v, gradient in zip(variables, gradients, strict=True)}
    # What was frozen after the optimizer was built stands still, and keeps its place beside its slots.
    rest = {key: ops.zeros_like(value.value) for key, value in copies.items() if key not in slopes}
    copy.apply([(slopes | rest)[key] for key in copies], list(copies.values()))
    found = {}
    for variable in variables:
        moved, size = copies.get(id(variable)), _rms(variable.value)
        if moved is not None and size > 0:
            found[id(variable)] = _rms(moved.value - variable.value) / size
    return found


def _copy(variable: Any) -> Any:
    # Without `copy` the new variable has the old one's handle on TensorFlow, its storage on torch.
    copy = keras.Variable(ops.copy(variable.value), name=variable.name, dtype=variable.dtype)
    copy._path = variable.path  # by which optimizers choose what they decay, or which of them steps
    return copy


def _rms(tensor: Any) -> float:
    square = ops.mean(ops.square(ops.cast(ops.stop_gradient(tensor), "float32")))
    return float(np.sqrt(ops.convert_to_numpy(square)))
