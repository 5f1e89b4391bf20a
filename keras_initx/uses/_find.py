"""`find_uses`: what takes each weight of a model, found in one run without values."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import tree

from keras_initx._types import Model, Tensor, Variable
from keras_initx.uses._backend import kept_buffers, reader, run_without_values
from keras_initx.uses._tracker import Tracker
from keras_initx.uses._use import Use

__all__ = ["find_uses", "run_and_see"]


def find_uses(
    model: Model, args: tuple[Any, ...], kwargs: dict[str, Any], variables: Sequence[Variable]
) -> list[Use]:
    """Runs a model once on tensors without values, and returns what takes its weights.

    Args:
        model: A built Keras model or layer.
        args: Arguments of its call, KerasTensors among them.
        kwargs: Arguments by name.
        variables: The weights to follow.

    Returns:
        The uses, in the order in which they ran.
    """
    tracker = Tracker(reader().effect)
    run_and_see(model, args, kwargs, variables, tracker)
    return tracker.uses


def run_and_see(
    model: Model,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    variables: Sequence[Variable],
    tracker: Tracker,
) -> Any:
    """Runs a model once on tensors without values, and shows each operation to a tracker.

    Returns:
        The outputs of the model.
    """
    tell = reader()
    leaves = tree.flatten((args, kwargs))
    symbols = [leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor)]

    found: list[Any] = []

    def run(values: list[Tensor], inputs: list[Tensor]) -> None:
        left = iter(inputs)
        placed = [next(left) if isinstance(leaf, keras.KerasTensor) else leaf for leaf in leaves]
        # Not `map_structure`, which visits a dict in another order than `flatten` on some backends.
        own_args, own_kwargs = tree.pack_sequence_as((args, kwargs), placed)
        for variable, value in zip(variables, values, strict=True):
            tracker.watch(value, variable)
        tracker.begin(inputs)
        pairs = list(zip(variables, values, strict=True))
        with keras.StatelessScope(pairs), tell.shown(tracker):
            found.append(model(*own_args, **own_kwargs))

    with kept_buffers(model):
        run_without_values(run, variables, [(tuple(t.shape), t.dtype) for t in symbols])
    return found[0]
