"""Measures gradients and activations of a model on one batch, and leaves the model as it is."""

import collections
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops, tree

import keras_initx.probe as probe
from keras_initx._types import Arrays, Batch, Data, Layer, Model, Tensor
from keras_initx.data import knows_inputs, refusal, take_pair
from keras_initx.gradients import compile_function, value_and_gradients
from keras_initx.losses import choose_loss

__all__ = ["Measurement"]

SAMPLES = 256  # rows: enough for a histogram, few enough to cost little beside an epoch


class Measurement:
    """One batch, on which a model is measured as often as asked, with the weights that it has at that time.

    All runs are without dropout and in a stateless scope, so that neither moving statistics nor the states of
    random generators change.

    Args:
        model: A built, compiled Keras model.
        data: Arrays or an iterable of batches, as `keras_initx.data.take_pair` takes them.
        targets: The targets, if `data` does not bring them.
        gradients: Whether `gradients` will be called, which needs targets.

    Raises:
        ValueError: If the data does not fit the model, or gradients have no targets.
    """

    def __init__(self, model: Model, data: Data | None, targets: Arrays | None, gradients: bool) -> None:
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
        # A subclassed model tells its inputs only by failing on them: then the first error is about the data.
        self._tried = knows_inputs(model)

    def gradients(self) -> list[Tensor]:
        """Returns the gradient of the loss with respect to each trainable variable, in the model's order."""
        variables = self.model.trainable_variables, self.model.non_trainable_variables
        values = [[ops.convert_to_tensor(variable.value) for variable in part] for part in variables]
        return self._try(lambda: self._compiled(*values, self._batch, self._targets))

    def activations(self, layers: Sequence[Layer], show: Callable[[int, int, Tensor], None]) -> None:
        """Runs the model and shows the output of each call of some layers.

        Args:
            layers: The layers.
            show: Called with the number of the layer in `layers`, the number of its calls before this call,
                and its output; if a layer has several outputs, the first.
        """
        calls: collections.Counter[int] = collections.Counter()

        def follow(number: int) -> Callable[[Tensor], None]:
            def after(output: Tensor) -> None:
                tensor = next((leaf for leaf in tree.flatten(output) if leaf is not None), None)
                # In a loop that the backend traces, an output has no value yet.
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

    def _differentiate(
        self, trained: Sequence[Tensor], others: Sequence[Tensor], batch: Batch, targets: Arrays | None
    ) -> list[Any]:
        # Tensors are passed as arguments, not taken from the closure: JAX compiles closed-over values in as
        # constants, so that later weights would not count.
        def loss(values: Sequence[Tensor]) -> Tensor:
            state = [
                *zip(self.model.trainable_variables, values, strict=True),
                *zip(self.model.non_trainable_variables, others, strict=True),
            ]
            with keras.StatelessScope(state, collect_losses=True):
                return self._objective(batch, targets, self.model(batch, training=False))

        return value_and_gradients(loss, trained, nested=False)[1]

    def _try(self, function: Callable[[], Any]) -> Any:
        """Runs a function; if a model of unknown inputs fails at first, raises an error about the data."""
        try:
            result = function()
        except Exception as error:
            if self._tried:
                raise
            raise refusal(self.model, self._batch, error) from error
        self._tried = True
        return result
