"""The variables of a model and of its signatures, which an export must leave as they were."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from keras_initx._keras_internals import SEED_STATE
from keras_initx._types import Model
from keras_initx.saved_model._endpoints import Endpoint

if TYPE_CHECKING:
    import tensorflow as tf


class States:
    """The values that the variables had when this object was made.

    A value shares the memory of its variable until the variable changes, so keeping the values of a large
    model costs no memory.

    Args:
        model: The model.
        endpoints: The model's signatures. Their traces know variables that the model does not list, such as
            the states of a stateful RNN, the global seed, and the variables of a function.
    """

    def __init__(self, model: Model, endpoints: Iterable[Endpoint]) -> None:
        import tensorflow as tf

        optimizer = getattr(model, "optimizer", None)
        listed = [*model.variables, *(optimizer.variables if optimizer is not None else ())]
        traced = [variable for one in endpoints for variable in one.concrete.variables]
        found = {id(variable): variable for variable in [*(one.value for one in listed), *traced]}
        self._kept = [(one, tf.identity(one)) for one in found.values()]

    def restore(self) -> list[str]:
        """Puts all values back, bit by bit, and returns the names of the variables that had changed.

        Seeds of random numbers are put back too, but their names are left out: a draw changes a seed, and
        does not make a model stateful.
        """
        changed = []
        for variable, value in self._kept:
            # By bits, because NaN is not equal to itself and 0.0 is equal to -0.0. Assigning only the changed
            # variables keeps the shared memory of the others.
            if _bits(variable) != _bits(value):
                variable.assign(value)
                changed += [] if SEED_STATE in variable.name else [variable.name.partition(":")[0]]
        return changed


def _bits(variable: "tf.Variable | tf.Tensor") -> bytes | list[bytes]:
    """Returns the bytes of a value. An array of strings holds pointers, so it returns the strings."""
    value = variable.numpy()
    return value.tolist() if value.dtype == object else value.tobytes()
