"""Finds the weights that a training call of a model assigns to."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_initx._types import Batch, Model, Tensor, Variable
from keras_initx.probe._scopes import no_gradients
from keras_initx.uses import kept_buffers

__all__ = ["rewritten_by_training"]


def rewritten_by_training(model: Model, inputs: Batch, variables: Sequence[Variable]) -> dict[int, float]:
    """Returns the variables that a training call of a model assigns to, as a spectral normalization does.

    The call is made on one row, or on all rows if the model does not take one, and changes no variable.

    >>> model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1), keras.layers.Dense(1)])
    >>> rewritten_by_training(model, np.ones((4, 2), "float32"), model.weights)
    {}

    Args:
        model: A built Keras model.
        inputs: One batch, in the structure of the model's inputs.
        variables: The variables to look at.

    Returns:
        By `id(variable)`, the norm of the change relative to the norm of the value. Empty if the model fails
        on the call: `fit` will raise the error.
    """
    first = keras.tree.map_structure(lambda leaf: leaf[:1], inputs)
    if keras.backend.backend() == "jax" and not _assigns(model, first, variables):
        return {}
    for rows in (first, inputs):
        try:
            with no_gradients(), kept_buffers(model), keras.StatelessScope() as scope:
                model(rows, training=True)
        except Exception:  # a user's layer may raise anything, for example on a batch of one row
            continue
        found = [(variable, scope.get_current_value(variable)) for variable in variables]
        return {id(variable): _moved(variable, value) for variable, value in found if value is not None}
    return {}


def _assigns(model: Model, inputs: Batch, variables: Sequence[Variable]) -> bool:
    """Whether a training call assigns to variables, on JAX and without values; True if it needs values.

    A call with values would compile each operation for one row, which takes seconds.
    """
    import jax

    found: list[Tensor | None] = []

    def call() -> None:
        with keras.StatelessScope() as scope:
            model(inputs, training=True)
        found.extend(scope.get_current_value(variable) for variable in variables)

    try:
        jax.eval_shape(call)
    except Exception:  # a user's layer may raise anything on tensors without values
        return True
    return any(value is not None for value in found)


def _moved(variable: Variable, value: Tensor) -> float:
    old, new = (ops.convert_to_numpy(ops.cast(tensor, "float32")) for tensor in (variable.value, value))
    return float(np.linalg.norm(new - old) / (np.linalg.norm(old) + 1e-30))
