"""What one step of the compiled optimizer would do to the weights, and to the loss."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initx._keras_internals import set_path
from keras_initx.gradients import to_numpy, unscoped
from keras_initx.state import slotted

__all__ = ["Step", "current_rate", "take_step"]

_TELLS = 1e-4  # of the loss: a smaller promise is lost in float32


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of an optimizer.

    Attributes:
        ratios: Root mean square of the change of each variable over that of its values, by the variable's id;
            of variables that are not all zero.
        promise: By how much the loss would fall if it were as linear as its gradient says.
        fall: By how much it falls; None where that was not measured.
    """

    ratios: dict[int, float]
    promise: float
    fall: Any = None

    @property
    def kept(self) -> float | None:
        """What is kept of the promise: 1 for a tiny step, below 0 where the loss rises."""
        return None if self.fall is None else self.fall / self.promise


@unscoped
def take_step(
    model: Any,
    variables: Sequence[Any],
    gradients: Sequence[Any],
    loss: float,
    loss_at: Callable[[Sequence[Any]], float] | None = None,
    rate: float | None = None,
) -> Step | None:
    """Takes a step on copies, by a copy of the optimizer in its present state.

    Args:
        model: A Keras model; without an optimizer there is no step.
        variables: Its trainable variables.
        gradients: Gradients by them.
        loss: The loss before the step.
        loss_at: From values of the variables to the loss; None to leave the loss after the step unmeasured.
        rate: Learning rate of the step; None for the optimizer's own.

    Returns:
        The step; of the variables that the optimizer has slots for, where it is built.
    """
    optimizer = _inner(model)
    if optimizer is None or not variables:
        return None
    known = slotted(optimizer) if optimizer.built else list(variables)
    copies = {id(variable): _copy(variable) for variable in known}
    copy = type(optimizer).from_config(optimizer.get_config())
    copy.build(list(copies.values()))
    if optimizer.built:
        for new, old in zip(copy.variables, optimizer.variables, strict=True):
            new.assign(old.value)
    if rate is not None:
        copy.learning_rate = rate if _is_number(copy) else lambda: rate
    scale = float(copy.scale_loss(1.0))
    slopes = {id(v): gradient * scale for v, gradient in zip(variables, gradients, strict=True)}
    # What was frozen after the optimizer was built stands still, and keeps its place beside its slots.
    rest = {key: ops.zeros_like(value.value) for key, value in copies.items() if key not in slopes}
    copy.apply([(slopes | rest)[key] for key in copies], list(copies.values()))
    ratios, promise = {}, 0.0
    for variable, gradient in zip(variables, gradients, strict=True):
        if (moved := copies.get(id(variable))) is None:
            continue
        change = ops.subtract(_plain(moved), _plain(variable))
        promise -= float(to_numpy(ops.sum(change * ops.cast(ops.stop_gradient(gradient), "float32"))))
        size = _rms(_plain(variable))
        if size > 0:
            ratios[id(variable)] = _rms(change) / size
    if loss_at is None or not promise > _TELLS * abs(loss):
        return Step(ratios, promise)
    after = [ops.convert_to_tensor(copies.get(id(variable), variable).value) for variable in variables]
    return Step(ratios, promise, loss - loss_at(after))


def current_rate(model: Any) -> tuple[float, bool]:
    """Returns the learning rate of the next step, and whether it is a number that can be set."""
    optimizer = _inner(model)
    return float(to_numpy(ops.convert_to_tensor(optimizer.learning_rate))), _is_number(optimizer)


def _inner(model: Any) -> Any:
    """The optimizer whose step is taken: a LossScaleOptimizer's `apply` fails on JAX."""
    optimizer = getattr(model, "optimizer", None)
    return getattr(optimizer, "inner_optimizer", optimizer)


def _is_number(optimizer: Any) -> bool:
    return isinstance(optimizer.get_config()["learning_rate"], float)


def _plain(variable: Any) -> Any:
    return ops.cast(ops.stop_gradient(ops.convert_to_tensor(variable.value)), "float32")


def _copy(variable: Any) -> Any:
    # Without `copy` the new variable has the old one's handle on TensorFlow, its storage on torch.
    copy = keras.Variable(ops.copy(variable.value), name=variable.name, dtype=variable.dtype)
    set_path(copy, variable.path)  # by which optimizers choose what they decay, or which of them steps
    return copy


def _rms(tensor: Any) -> float:
    return float(np.sqrt(to_numpy(ops.mean(ops.square(tensor)))))
