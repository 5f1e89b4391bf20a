"""The task of a law over a whole model: the model's loss as a function of one scale per weight, compiled."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

import keras_initx.probe as probe
from keras_initx._types import Arrays, Batch, Model, Tensor, Variable
from keras_initx.gradients import compile_function, to_numpy
from keras_initx.initializers import Task as SearchTask
from keras_initx.losses import Objective
from keras_initx.walk import KernelSite

__all__ = ["Task"]


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A model, its data and its loss, as a function of one scale for each weight.

    Attributes:
        model: The model.
        sites: The kernels that are scaled.
        variables: All variables that gradients are taken by.
        values: The values of the variables, as tensors.
        weights: For each weight that is scaled, its place among `variables`.
        kernel_of: For each weight that is scaled, the number of the kernel that it belongs to. A kernel
            belongs to itself, a bias to the kernel of its layer, and any other weight to -1. Int array of
            shape (weights,).
        batch: The rows that the model is called on, as tensors.
        targets: The targets of the rows, as tensors, or None.
        objective: Function from batch, targets and outputs to the loss, a scalar tensor.
        training: Whether the model runs as in training.
        passes: A list of one int: the number of forward passes so far, for the report.
    """

    model: Model
    sites: Sequence[KernelSite]
    variables: Sequence[Variable]
    values: Sequence[Tensor]
    weights: Sequence[int]
    kernel_of: np.ndarray
    batch: Batch
    targets: Arrays | None
    objective: Objective
    training: bool
    passes: list[int] = dataclasses.field(default_factory=lambda: [0])

    @property
    def is_kernel(self) -> np.ndarray:
        """Whether each weight is a kernel; bool of shape (weights,)."""
        return self.kernel_of == np.arange(len(self.kernel_of))

    @property
    def norms(self) -> np.ndarray:
        """The Frobenius norm of each weight before it is scaled; float64 of shape (weights,)."""
        return np.array([np.linalg.norm(to_numpy(self.values[place])) for place in self.weights])

    @property
    def rows(self) -> int:
        """Number of rows in the batch."""
        return int(tree.flatten(self.batch)[0].shape[0])

    def of_weights(self, values: Iterable[Any]) -> list[Any]:
        """Picks the entries that belong to scaled weights from one entry per variable."""
        values = list(values)
        return [values[place] for place in self.weights]

    def scaled(self, scales: Tensor) -> list[Tensor]:
        """Returns the values of all variables, each weight multiplied by its scale; differentiable."""
        values = list(self.values)
        for number, place in enumerate(self.weights):
            values[place] = values[place] * ops.cast(scales[number], values[place].dtype)
        return values

    def loss(self, values: Sequence[Tensor], rows: slice = slice(None)) -> Tensor:
        """Returns the loss of the model with these values of its variables, on some rows of the data.

        Args:
            values: One value for each of `variables`.
            rows: The rows to take.
        """
        self.passes[0] += 1
        batch, targets = (
            tree.map_structure(lambda leaf: None if leaf is None else leaf[rows], part)
            for part in (self.batch, self.targets)
        )
        # The model reads these values in place of its variables, and collects its own losses as in training.
        state = list(zip(self.variables, values, strict=True))
        with keras.StatelessScope(state, collect_losses=True):
            return self.objective(batch, targets, self.model(batch, training=self.training))

    def compile(self, function: Callable[[SearchTask, Tensor], Any]) -> Callable[[np.ndarray], Any]:
        """Compiles a function of this task and of the scales.

        Args:
            function: Called with a task and a tensor of shape (weights,).

        Returns:
            A function from an array of scales to the result of `function`, as NumPy arrays.
        """

        def traced(scales: Tensor, values: list[Tensor], batch: Batch, targets: Arrays) -> Any:
            # The arrays are arguments. JAX would copy arrays in a closure into the program as constants.
            here = dataclasses.replace(self, values=values, batch=batch, targets=targets, passes=[0])
            result = function(here, scales)
            # A compiled function is traced once, so passes are counted here and added at each call.
            spent[0] = here.passes[0]
            return result

        compiled, spent = compile_function(traced), [0]

        def call(scales: np.ndarray) -> Any:
            tensor = ops.convert_to_tensor(scales, keras.config.floatx())
            result = compiled(tensor, list(self.values), self.batch, self.targets)
            self.passes[0] += spent[0]
            return tree.map_structure(to_numpy, result)

        return call

    def input_sizes(self, scales: np.ndarray) -> np.ndarray:
        """Returns the mean absolute input of each kernel at these scales; 0 where it is not known.

        Args:
            scales: One scale for each weight.
        """
        found = np.zeros(len(self.weights))
        numbers = {id(self.variables[place]): number for number, place in enumerate(self.weights)}

        def enter(site: KernelSite, inputs: Tensor) -> None:
            found[numbers[id(site.kernel)]] = float(ops.mean(ops.abs(ops.cast(inputs, "float32"))))

        self.passes[0] += 1
        sites = [site for site in self.sites if not site.obstacle and id(site.kernel) in numbers]
        values = self.scaled(ops.convert_to_tensor(scales, keras.config.floatx()))
        with keras.StatelessScope(list(zip(self.variables, values, strict=True))):
            probe.run(self.model, self.batch, sites, lambda _, output: output, enter, self.training)
        return found
