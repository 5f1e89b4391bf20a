"""Gradients and activations of a model on one batch, which leave it as it is."""

import collections
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops, tree

import keras_initx.probe as probe
from keras_initx.data import knows_inputs, refusal, take_pair
from keras_initx.gradients import choose_loss, compile_function, value_and_gradients

__all__ = ["Measurement"]

SAMPLES = 256


class Measurement:
    """One batch, and what a model makes of it at the weights that it has at the time.

    All runs are in a stateless scope, so that neither statistics nor the states of random generators change,
    and without dropout.

    Args:
        model: A built, compiled Keras model.
        data: As in `keras_initx.data.take_pair`, as is `targets`.
        targets: The targets.
        gradients: Whether gradients will be asked for.

    Raises:
        ValueError: If the data does not fit the model, or gradients have no targets.
    """

    def __init__(self, model: Any, data: Any, targets: Any, gradients: bool) -> None:
        self.model = model
        batch, found = take_pair(model, data, SAMPLES, targets)
        rows = len(tree.flatten(batch)[0])
        if gradients:
            self._objective = choose_loss(model, found, None, "WeightHistograms(gradients=True)")
        self._batch = tree.map_structure(ops.convert_to_tensor, batch)
        self._targets = tree.map_structure(
            lambda leaf: None if leaf is None else ops.convert_to_tensor(leaf[:rows]), found
        )
        self._compiled = compile_function(self._differentiate)
        self._tried = knows_inputs(model)

    def gradients(self) -> list[Any]:
        """Returns the gradient of the loss by each trainable variable of the model, in their order."""
        variables = self.model.trainable_variables, self.model.non_trainable_variables
        values = [[ops.convert_to_tensor(variable.value) for variable in part] for part in variables]
        return self._try(lambda: self._compiled(*values, self._batch, self._targets))

    def activations(self, layers: Sequence[Any], show: Callable[[int, int, Any], None]) -> None:
        """Shows what each call of some layers returns, as it runs.

        Args:
            layers: The layers.
            show: Called with the number of the layer, how many calls of it came before, and its output; of
                several outputs the first.
        """
        calls: collections.Counter[int] = collections.Counter()

        def follow(number: int) -> Callable[[Any], None]:
            def after(output: Any) -> None:
                tensor = next((leaf for leaf in tree.flatten(output) if leaf is not None), None)
                # In a loop that the backend traces an output has no value.
                if tensor is None or "Tracer" in (name := type(tensor).__name__) or name == "SymbolicTensor":
                    return
                show(number, calls[number], tensor)
                calls[number] += 1

            return after

        def run() -> None:
            with keras.StatelessScope():
                after = [(layer, follow(number)) for number, layer in enumerate(layers)]
                probe.run(self.model, self._batch, [], lambda _, output: output, after=after)

        self._try(run)

    def _differentiate(self, trained: Any, others: Any, batch: Any, targets: Any) -> list[Any]:
        # Passed, not closed over: JAX makes constants of what it finds in a closure.
        def loss(values: Sequence[Any]) -> Any:
            state = [
                *zip(self.model.trainable_variables, values, strict=True),
                *zip(self.model.non_trainable_variables, others, strict=True),
            ]
            with keras.StatelessScope(state, collect_losses=True):
                return self._objective(batch, targets, self.model(batch, training=False))

        return value_and_gradients(loss, trained, nested=False)[1]

    def _try(self, function: Callable[[], Any]) -> Any:
        """Has the first error of a model whose inputs were not known tell of the data."""
        try:
            result = function()
        except Exception as error:
            if self._tried:
                raise
            raise refusal(self.model, self._batch, error) from error
        self._tried = True
        return result
