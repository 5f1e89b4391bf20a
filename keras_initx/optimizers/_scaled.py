"""An optimizer of the user's own class, with one learning rate, that multiplies the rate of each variable.

Keras calls `update_step(gradient, variable, learning_rate)` of an optimizer for each variable. Every other
setting acts before: schedules, callbacks, clipping, accumulation, averages, loss scales. A subclass that
multiplies the learning rate there changes nothing else. The subclass is made for the user's class, so that
`isinstance` holds and slots stay where they are.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_initx._keras_internals import is_of_keras
from keras_initx._keras_optimizers import (
    copy_decay_exclusions,
    learning_rate_of,
    optimizer_hooks,
    stepping_class,
    unpickled,
    variable_index,
)
from keras_initx._types import Optimizer, Tensor, Variable
from keras_initx.checks import check_switch
from keras_initx.optimizers._laws import KNOWN, Law, epsilon_power, law_of
from keras_initx.optimizers._multipliers import Multiplier, Multipliers

__all__ = ["ScaledRates", "scale_rates"]

_NAME = {"package": "initx", "name": "ScaledRates"}
_DECAYS = ("weight_decay", "adam_weight_decay")  # attributes; Muon has both


class _Steps:
    """What was found at `build`. A class, since TensorFlow wraps the lists and tuples of an optimizer.

    Attributes:
        rows: The multiplier of each variable, by the index of the variable.
        factors: The factors of learning rate, epsilon and weight decay for this optimizer.
    """

    def __init__(self, rows: Sequence[Multiplier], power: int = 1, scale_decay: bool = False) -> None:
        self.rows = tuple(rows)
        self.factors = tuple(
            (
                row.learning_rate,
                row.epsilon**power,
                row.weight_decay * (row.learning_rate if scale_decay else 1),
            )
            for row in rows
        )


@keras.saving.register_keras_serializable(**_NAME)
class ScaledRates:
    """What an optimizer that multiplies rates has beside its own class; `scale_rates` makes it.

    >>> optimizer = scale_rates(keras.optimizers.Adam(), Multipliers())
    >>> isinstance(optimizer, ScaledRates), isinstance(optimizer, keras.optimizers.Adam)
    (True, True)
    """

    built: bool  # an attribute of the optimizer's own class
    multipliers = Multipliers()
    scale_decay = False
    scaled_steps = _Steps(())

    def build(self, variables: Sequence[Variable]) -> None:
        """Finds the multiplier of each variable, and makes the slots."""
        if not self.built:
            rows = self.multipliers.for_variables(variables)
            self.scaled_steps = _Steps(rows, epsilon_power(type(self)), self.scale_decay)
        super().build(variables)  # type: ignore[misc]

    def update_step(self, gradient: Tensor, variable: Variable, learning_rate: Tensor) -> None:
        """Takes the class's own step, with the learning rate and the epsilon of this variable."""
        rate, epsilon, _ = self.scaled_steps.factors[variable_index(self, variable)]
        own: Any = super(ScaledRates, _with(self, ("epsilon",), epsilon))
        own.update_step(gradient, variable, _times(learning_rate, rate))

    def get_config(self) -> dict[str, Any]:
        """Returns the config of the plain optimizer, and the multipliers by path."""
        plain = next(cls for cls in type(self).__mro__ if _is_public(cls))
        # Once built, in the order of the slots: a loaded model has other paths, but the same order.
        rows = Multipliers(self.scaled_steps.rows) if self.built else self.multipliers.trainable()
        return {
            "optimizer": {
                "module": "keras.optimizers" if is_of_keras(plain) else plain.__module__,
                "class_name": plain.__name__,
                "config": super().get_config(),  # type: ignore[misc]
                "registered_name": keras.saving.get_registered_name(plain),
            },
            "multipliers": rows.get_config(),
            "scale_decay": self.scale_decay,
        }

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Optimizer:
        """Returns the optimizer. Its class is the one that the config names, whichever class is asked."""
        own = {**config["optimizer"], "config": dict(config["optimizer"]["config"])}
        plain = keras.optimizers.deserialize(own, custom_objects=custom_objects)
        rows = Multipliers.from_config(config["multipliers"])
        return scale_rates(plain, rows, scale_decay=config["scale_decay"])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the config alone, as Keras does: no module holds the class, which is made on demand."""
        return unpickled, super().__reduce__()[1]


def scale_rates(optimizer: Optimizer, multipliers: Multipliers, *, scale_decay: bool = False) -> Optimizer:
    """Returns a copy of an optimizer that multiplies the learning rate of each variable.

    The copy is of a subclass of the optimizer's class and has one `learning_rate`, so that schedules,
    callbacks, clipping, averages, accumulation of gradients, loss scales and `jit_compile` work as before.
    It is saved and loaded with the model.

    >>> variable = keras.Variable([1.0], name="w")
    >>> rates = Multipliers.of([variable], {id(variable): Multiplier(learning_rate=0.5)})
    >>> optimizer = scale_rates(keras.optimizers.SGD(0.2), rates)
    >>> optimizer.apply([keras.ops.ones((1,))], [variable])
    >>> isinstance(optimizer, keras.optimizers.SGD), f"{float(variable[0]):.2f}"  # 1 - 0.5 * 0.2
    (True, '0.90')

    Args:
        optimizer: A new Keras optimizer. Of a `LossScaleOptimizer`, the inner optimizer is taken.
        multipliers: The factors of the model's variables.
        scale_decay: Whether the multiplier of a variable's learning rate multiplies its weight decay, too. If
            not, the decay per step is the optimizer's own learning rate times its `weight_decay`.

    Returns:
        The copy. The optimizer itself does not change.

    Raises:
        ValueError: If `optimizer` is no Keras optimizer, has been built, has multipliers already, does not
            step variable by variable, or steps by another law than the one that the multipliers are for.
    """
    check_switch("scale_decay", scale_decay)
    _check(optimizer)
    if multipliers.law is not None and not _steps_by(optimizer, multipliers.law):
        raise ValueError(
            "`optimizer` must step as the one that the multipliers are for. Received: "
            f"{type(optimizer).__name__}, for multipliers of {multipliers.law}. Pass the optimizer to the "
            "strategy, too: MuP(base=base, optimizer=optimizer)."
        )
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        inner = scale_rates(optimizer.inner_optimizer, multipliers, scale_decay=scale_decay)
        scale, steps = optimizer.initial_scale, optimizer.dynamic_growth_steps
        return type(optimizer)(inner, initial_scale=scale, dynamic_growth_steps=steps, name=optimizer.name)
    config = optimizer.get_config()
    if not isinstance(config["learning_rate"], float):
        config["learning_rate"] = learning_rate_of(optimizer)  # a function may have no config
    cls = _scaled_class(type(optimizer))  # type: ignore[arg-type]  # a class is hashable
    copy = super(ScaledRates, cls).from_config(config)
    copy_decay_exclusions(optimizer, copy)
    copy.multipliers, copy.scale_decay = multipliers, scale_decay
    return copy


def _check(optimizer: Any) -> None:
    """Refuses all but new optimizers that Keras lets step variable by variable."""
    cls, plain = type(optimizer), keras.optimizers.Optimizer
    received = f"Received: {cls.__name__}"
    if not isinstance(optimizer, plain):
        raise ValueError(
            f"`optimizer` must be a Keras optimizer, such as keras.optimizers.AdamW(3e-3). {received}."
        )
    if isinstance(optimizer, ScaledRates):
        raise ValueError(f"`optimizer` must be a plain one. {received}, which has multipliers already.")
    if optimizer.built:
        raise ValueError(
            f"`optimizer` must be a new one: a copy would not have its slots. {received} with slots. Make a "
            f"new one: {cls.__name__}.from_config(optimizer.get_config())."
        )
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        _check(optimizer.inner_optimizer)
    elif cls.apply is not plain.apply or cls.update_step is plain.update_step:
        raise ValueError(
            "`optimizer` must step each variable by its `update_step`, and leave `apply` to Keras. "
            f"{received}, which does not. Take one of {list(KNOWN)}, or override `update_step` alone."
        )


def _steps_by(optimizer: Optimizer, law: Law) -> bool:
    """Whether an optimizer steps by a law. Of an optimizer of a user's own the user says so."""
    try:
        return law_of(optimizer) == law
    except ValueError:
        return law.kind in ("adam", "sgd")


def _is_public(cls: type) -> bool:
    """Whether a class is one that a config can name: not made here, and not one of a backend alone."""
    return (
        not issubclass(cls, ScaledRates)
        and cls is not ScaledRates
        and (not is_of_keras(cls) or getattr(keras.optimizers, cls.__name__, None) is cls)
    )


@functools.cache
def _scaled_class(cls: type[Optimizer]) -> Any:
    """The subclass of an optimizer's class. All have one registered name; the config tells the class."""
    base = stepping_class(cls)
    hooks = optimizer_hooks(base, _decay, _step_together)
    made = type(f"Scaled{base.__name__}", (ScaledRates, base), hooks | {"__doc__": base.__doc__})
    # Registered for the name it is saved by; the class of that name is the one registered last.
    for named in (made, ScaledRates):
        keras.saving.register_keras_serializable(**_NAME)(named)
    return made


def _decay(optimizer: Any, variables: Sequence[Variable], own: Callable[[Any, list[Variable]], None]) -> None:
    """Decays the weights, those of equal factors together."""
    for (factor,), members in _groups(optimizer, variables, slice(2, 3)).items():
        own(_with(optimizer, _DECAYS, factor), [variables[n] for n in members])


def _step_together(
    optimizer: Any,
    gradients: Sequence[Tensor],
    variables: Sequence[Variable],
    learning_rate: Tensor,
    own: Callable[[Any, list[Tensor], list[Variable], Tensor], None],
) -> None:
    """Steps the variables of equal factors together, as Keras steps all variables on PyTorch, for speed."""
    for (rate, epsilon), members in _groups(optimizer, variables, slice(0, 2)).items():
        some = [gradients[n] for n in members], [variables[n] for n in members]
        own(_with(optimizer, ("epsilon",), epsilon), *some, _times(learning_rate, rate))


def _groups(
    optimizer: Any, variables: Sequence[Variable], chosen: slice
) -> dict[tuple[float, ...], list[int]]:
    """Positions of the variables by those of their factors that `chosen` takes."""
    found: dict[tuple[float, ...], list[int]] = {}
    for n, variable in enumerate(variables):
        found.setdefault(
            optimizer.scaled_steps.factors[variable_index(optimizer, variable)][chosen], []
        ).append(n)
    return found


def _times(learning_rate: Tensor, factor: float) -> Tensor:
    return learning_rate if factor == 1 else learning_rate * factor


def _with(optimizer: Any, names: Sequence[str], factor: float) -> Any:
    """Returns the optimizer with some of its numbers multiplied; those that are None or missing stay so.

    It is a twin that shares all else. Setting the numbers and putting them back would not do: the replicas of
    TensorFlow's distribution take turns within a step.
    """
    held: dict[str, Any] = {} if factor == 1 else {name: getattr(optimizer, name, None) for name in names}
    found = {name: value * factor for name, value in held.items() if value is not None}
    if not found:
        return optimizer
    twin = object.__new__(type(optimizer))
    vars(twin).update(vars(optimizer) | found)
    return twin
