"""The loss that laws over a whole model take gradients of."""

from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_initx.calibration._task import Objective

__all__ = ["choose_objective"]


def choose_objective(model: Any, targets: Any, loss: Any, law: Any, seed: int | None) -> Objective:
    """Returns the loss that was given, or that the model was compiled with.

    Args:
        model: A built Keras model.
        targets: What it is to be called with; None if there is nothing.
        loss: A name, config, `keras.losses.Loss` or function of targets and outputs; None for the model's.
        law: The law that wants it. One that needs no loss gets a linear one where there are no targets.
        seed: Seed of the linear one; None for the law's own.
    """
    if targets is None and not law.needs_loss:
        return _linear(law.seed if seed is None else seed)
    name = type(law).__name__
    if targets is None:
        raise ValueError(
            f"`targets` must be given: `{name}` takes gradients of a loss. Received: targets=None. Pass "
            "`targets=y`, or data that is a pair (x, y) or an iterable of such pairs."
        )
    if loss is not None:
        function = keras.losses.get(loss)
        return lambda _, targets, outputs: ops.mean(function(targets, outputs))
    if getattr(model, "loss", None) is None:
        raise ValueError(
            f"`loss` must be given, or the model be compiled with one: `{name}` takes its gradients. "
            f'Received: loss=None, and `{model.name}` has none. Pass for example loss="mse".'
        )
    return lambda batch, targets, outputs: model.compute_loss(batch, targets, outputs, training=False)


def _linear(seed: Any) -> Objective:
    """Returns a random linear function of the outputs, with independent normal coefficients."""
    rng = np.random.default_rng(seed)
    drawn: dict[tuple[int, tuple[int, ...]], Any] = {}

    def loss(_: Any, __: Any, outputs: Any) -> Any:
        total = 0.0
        for number, output in enumerate(tree.flatten(outputs)):
            key = number, tuple(output.shape)
            if key not in drawn:
                drawn[key] = rng.standard_normal(output.shape)
            total += ops.sum(ops.convert_to_tensor(drawn[key], output.dtype) * output)
        return total

    return loss
