"""The variables of a model and of its signatures: whatever runs, they are put back."""

from collections.abc import Iterable
from typing import Any

from keras_initx._keras_internals import SEED_STATE
from keras_initx.saved_model._endpoints import Endpoint


class States:
    """The values that variables had; they share the variables' memory until those change.

    Args:
        model: The model.
        endpoints: Its signatures, whose traces know variables that no model lists, such as the states of a
            stateful RNN, the global seed, and those of a function.
    """

    def __init__(self, model: Any, endpoints: Iterable[Endpoint]) -> None:
        import tensorflow as tf

        optimizer = getattr(model, "optimizer", None)
        listed = [*model.variables, *(optimizer.variables if optimizer is not None else ())]
        traced = [variable for one in endpoints for variable in one.concrete.variables]
        found = {id(variable): variable for variable in [*(one.value for one in listed), *traced]}
        self._kept = [(one, tf.identity(one)) for one in found.values()]

    def restore(self) -> list[str]:
        """Puts all values back, bit by bit, and returns the names of the variables that had changed.

        Seeds of random numbers are put back, too, but not named.
        """
        changed = []
        for variable, value in self._kept:
            if _bits(variable) != _bits(value):
                variable.assign(value)
                changed += [] if SEED_STATE in variable.name else [variable.name.partition(":")[0]]
        return changed


def _bits(variable: Any) -> Any:
    value = variable.numpy()
    return value.tolist() if value.dtype == object else value.tobytes()
