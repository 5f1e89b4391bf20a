"""Everything that the package knows of Keras' optimizers beyond their documented interface.

As in `_keras_internals`, a release of Keras may take each of these names away. The same test runs each
function and says what breaks without it, and nothing here runs at import.
"""

import io
import types
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_initx._types import Optimizer, Tensor, Variable

__all__ = [
    "copy_decay_exclusions",
    "learning_rate_of",
    "leaves_to_adamw",
    "optimized_variables",
    "optimizer_hooks",
    "stepping_class",
    "unpickled",
    "variable_index",
]


def learning_rate_of(optimizer: keras.optimizers.Optimizer | None) -> Any:
    """Returns the learning rate as the optimizer holds it: a variable, a schedule or a function.

    `optimizer.learning_rate` gives the value of a schedule in place of the schedule.
    """
    return getattr(optimizer, "_learning_rate", None)


def optimized_variables(optimizer: keras.optimizers.Optimizer) -> list[Variable]:
    """Returns the variables that a built optimizer has slots for, in the order of the slots."""
    return list(optimizer._trainable_variables)


def variable_index(optimizer: Optimizer, variable: Variable | Tensor) -> int:
    """Returns the number of a variable among those that an optimizer was built on.

    Within a step on TensorFlow the variable may be TensorFlow's own, or one replica of it.
    """
    return optimizer._get_variable_index(variable)


def leaves_to_adamw(variable: Variable, excluded: Sequence[str], exclude_embeddings: bool) -> bool:
    """Whether Muon steps a variable as AdamW does, with these values of its arguments of these names."""
    # A namespace in place of an optimizer, which would make variables.
    muon = types.SimpleNamespace(exclude_layers=excluded, exclude_embeddings=exclude_embeddings)
    return keras.optimizers.Muon._should_use_adamw(muon, variable)


def copy_decay_exclusions(source: Optimizer, target: Optimizer) -> None:
    """Has an optimizer leave out the same variables from weight decay as another one."""
    for name in ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"):
        if hasattr(source, name):
            setattr(target, name, getattr(source, name))


def stepping_class(cls: type[Optimizer]) -> type[Optimizer]:
    """Returns the class of an optimizer whose steps may be taken for some variables at a time.

    On PyTorch Keras makes optimizers of classes that step all variables together. Where such a class bypasses
    what the public class does once a step (Nadam), it is the public class.
    """
    if not hasattr(cls, "_parallel_update_step"):
        return cls
    public = next(base for base in cls.__mro__ if base.__module__.startswith("keras.src.optimizers."))
    return public if "_backend_update_step" in vars(public) else cls


def optimizer_hooks(
    base: type[Optimizer], decay: Callable[..., None], step: Callable[..., None]
) -> dict[str, Callable[..., None]]:
    """Returns the methods by which a subclass of an optimizer's class decays weights and steps together.

    Args:
        base: The class.
        decay: Function `decay(optimizer, variables, own)`: `own(optimizer, variables)` decays as the class
            does.
        step: Function `step(optimizer, gradients, variables, learning_rate, own)`, called where the class
            steps many variables together: `own(optimizer, gradients, variables, learning_rate)` does so.
    """

    def _apply_weight_decay(self: Any, variables: list[Variable]) -> None:
        used = [variable for variable in variables if self._use_weight_decay(variable)]
        decay(self, used, base._apply_weight_decay)

    def _parallel_update_step(
        self: Any, grads: list[Tensor], variables: list[Variable], rate: Tensor
    ) -> None:
        step(self, grads, variables, rate, base._parallel_update_step)

    hooks: dict[str, Callable[..., None]] = {"_apply_weight_decay": _apply_weight_decay}
    if hasattr(base, "_parallel_update_step"):
        hooks["_parallel_update_step"] = _parallel_update_step
    return hooks


def unpickled(saved: io.BytesIO) -> Any:
    """Returns an object of Keras from the bytes that its `__reduce__` has made."""
    return Optimizer._unpickle_model(saved)
