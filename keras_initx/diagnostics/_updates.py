"""One step of the compiled optimizer, on copies: the changes of the weights, and the change of the loss.

A report can see a healthy signal and still miss that the learning rate is too large. The step tells:

    promise   the fall of the loss if the loss were linear: the sum of -change * gradient over all weights
    fall      the loss before the step minus the loss after it, on the same batch and the same masks
    kept      fall / promise: near 1 for a small step, falls with its length, below 0 if the loss rises

The step is the optimizer's own, not -rate * gradient: momentum, Adam's second moments, weight decay, clipping
and schedules all count. To leave the optimizer and the weights as they are, a second optimizer is built from
the config of the first, receives copies of its slots, and steps on copies of the weights.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initx._keras_internals import set_path
from keras_initx._types import Model, Tensor, Variable
from keras_initx.diagnostics._adapters import update_ratio
from keras_initx.gradients import to_numpy, unscoped
from keras_initx.state import slotted
from keras_initx.walk import Adapter

__all__ = ["Step", "current_rate", "take_step"]

_TELLS = 1e-4  # promise over loss: the rounding of float32 in two losses would hide a smaller fall


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of an optimizer.

    Attributes:
        ratios: Root mean square of the change of each variable, divided by the root mean square of its
            values, by the id of the variable. Variables of zeros are left out.
        promise: Fall of the loss if the loss were linear, with its present gradient.
        fall: Measured fall of the loss. None if it was not measured.
    """

    ratios: dict[int, float]
    promise: float
    fall: float | None = None

    @property
    def kept(self) -> float | None:
        """Fall over promise: 1 for a tiny step, below 0 if the loss rises. None if no fall was measured."""
        return None if self.fall is None else self.fall / self.promise


@unscoped
def take_step(
    model: Model,
    variables: Sequence[Variable],
    gradients: Sequence[Tensor],
    loss: float,
    loss_at: Callable[[Sequence[Tensor]], float] | None = None,
    rate: float | None = None,
    adapters: Sequence[Adapter] = (),
) -> Step | None:
    """Takes a step on copies, by a copy of the optimizer in its present state.

    Args:
        model: A Keras model.
        variables: The model's trainable variables.
        gradients: Gradients of the loss with respect to the variables.
        loss: The loss before the step.
        loss_at: Function from values of the variables to the loss. None leaves the fall unmeasured.
        rate: Learning rate of the step. None for the optimizer's own.
        adapters: Adapters of the model: their base kernels get the change that the factors make.

    Returns:
        The step; None if the model has no optimizer or nothing to train. A built optimizer moves only the
        variables that it has slots for, and the step has only their ratios.
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
    # An optimizer with a loss scale divides the gradients by it, so they are multiplied first.
    scale = float(copy.scale_loss(1.0))
    slopes = {id(v): gradient * scale for v, gradient in zip(variables, gradients, strict=True)}
    # A variable that was frozen after the optimizer was built keeps its place among the slots, so it gets a
    # gradient of zeros. Its change is not read.
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
    for adapter in adapters:
        if (ratio := update_ratio(adapter, copies)) is not None:
            ratios[id(adapter.kernel)] = ratio
    # A promise of 0 or less (of pure momentum, say) has no fall to compare with.
    if loss_at is None or not promise > _TELLS * abs(loss):
        return Step(ratios, promise)
    after = [ops.convert_to_tensor(copies.get(id(variable), variable).value) for variable in variables]
    return Step(ratios, promise, loss - loss_at(after))


def current_rate(model: Model) -> tuple[float, bool]:
    """Returns the learning rate of the next step, and whether it is a number that can be set.

    Args:
        model: A compiled Keras model. A schedule of its optimizer is not a number that can be set.
    """
    optimizer = _inner(model)
    return float(to_numpy(ops.convert_to_tensor(optimizer.learning_rate))), _is_number(optimizer)


def _inner(model: Model) -> Any:
    """The model's optimizer, or None. Of a LossScaleOptimizer, the inner one: its `apply` fails on JAX."""
    optimizer = getattr(model, "optimizer", None)
    return getattr(optimizer, "inner_optimizer", optimizer)


def _is_number(optimizer: keras.optimizers.Optimizer) -> bool:
    return isinstance(optimizer.get_config()["learning_rate"], float)


def _plain(variable: Variable) -> Tensor:
    return ops.cast(ops.stop_gradient(ops.convert_to_tensor(variable.value)), "float32")


def _copy(variable: Variable) -> Variable:
    # Without `copy` the new variable has the old one's handle on TensorFlow, its storage on torch.
    copy = keras.Variable(ops.copy(variable.value), name=variable.name, dtype=variable.dtype)
    # Optimizers choose by the path: which variables to decay, and in a MultiOptimizer, which optimizer steps.
    set_path(copy, variable.path)
    return copy


def _rms(tensor: Tensor) -> float:
    return float(np.sqrt(to_numpy(ops.mean(ops.square(tensor)))))
