"""Trainings of a few steps at one width: the coordinates before them and after each step."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeGuard

import keras
import numpy as np

from keras_initx._types import Batch, Initializer, Loss, Model, Variable
from keras_initx.checks import first_line
from keras_initx.data import split_weights
from keras_initx.scaling._coordinate import minus, reader, sizes
from keras_initx.scaling._models import Sized
from keras_initx.scaling._norms import norm_of
from keras_initx.state import repeated_masks, seeded
from keras_initx.strategies import InitReport, Strategy, initialize

__all__ = ["AnyInitializer", "Run", "Trained", "Training"]

# A function that draws the weights of a model itself; its first argument is named `model`.
_OfModel: TypeAlias = Callable[[Model, int], InitReport | None]
AnyInitializer: TypeAlias = Initializer | Strategy | type[Strategy] | _OfModel | None


class Run(NamedTuple):
    """The settings that all trainings of a check share.

    Attributes:
        initializer: The `initializer` of `coordinates`.
        batch: The inputs, on which the models are trained and measured.
        targets: Their targets, with sample weights or without; or None.
        optimizer: The optimizer, of which each model gets a copy; None for the compiled one, or Adam.
        loss: The loss; None for the compiled one.
        steps: Number of training steps.
    """

    initializer: AnyInitializer
    batch: Batch
    targets: Any
    optimizer: keras.optimizers.Optimizer | None
    loss: Loss | None
    steps: int


class Trained(NamedTuple):
    """The numbers of one training.

    Attributes:
        values: For each step, 0 included, the mean absolute coordinate by path.
        changes: For each step, the mean absolute change of the coordinates since the start, by path.
        weights: The norms of the kernels at the start, by path; None where no norm is known.
        updates: The norms of the change of the kernels in all steps together, by path.
        rates: The factors of the kernels' learning rates, by path; empty without a report.
        diverged: The first step after which the loss or a coordinate was not finite; None if there is none.
    """

    values: list[dict[str, float]]
    changes: list[dict[str, float]]
    weights: dict[str, float | None]
    updates: dict[str, float | None]
    rates: dict[str, float]
    diverged: int | None


class Training:
    """A model that is trained once for each seed, always from the state in which it was built.

    The second seed uses the compiled step of the first: to compile takes longer than a few steps.

    Args:
        run: The settings.
        sized: The model, which is given new weights, an optimizer and a loss.
    """

    def __init__(self, run: Run, sized: Sized) -> None:
        self.run, self.sized, self.model = run, sized, sized.model
        self._compiled = bool(getattr(self.model, "compiled", False))
        self._own = self.model.optimizer if self._compiled else None
        self._start = _values(self.model.variables)
        self._rates: Mapping[str, float] | None = None
        self._slots: list[np.ndarray] = []

    def train(self, seed: int) -> Trained:
        """Draws the weights, trains for a few steps, and measures before and after each step.

        Args:
            seed: Seed of the weights, and of dropout.
        """
        # Dropout without a seed draws from a generator of torch, which `repeated_masks` starts anew.
        with seeded(seed), repeated_masks():
            _assign(self.model.variables, self._start)
            report = self._draw(seed)
            self._prepare(report)
            kernels = _values([site.kernel for site in self.sized.sites])
            read = reader(self.sized, self.run.batch)
            start = read()
            values, changes, diverged = [sizes(start)], [dict.fromkeys(start, 0.0)], None
            for step in range(1, self.run.steps + 1):
                loss = self._step()
                found = read()
                values.append(sizes(found))
                changes.append(sizes(minus(found, start)))
                finite = np.isfinite([loss, *values[-1].values()]).all()
                diverged = step if diverged is None and not finite else diverged
            moved = map(np.subtract, _values([site.kernel for site in self.sized.sites]), kernels)
            weights, updates = (self._norms(arrays) for arrays in (kernels, list(moved)))
        return Trained(values, changes, weights, updates, self._factors(report), diverged)

    def _norms(self, arrays: Sequence[np.ndarray]) -> dict[str, float | None]:
        of_kernels = zip(self.sized.paths, self.sized.sites, arrays, strict=True)
        return {path: norm_of(site, array) for path, site, array in of_kernels}

    def _factors(self, report: InitReport | None) -> dict[str, float]:
        if report is None:
            return {}
        rows = report.multipliers.for_variables([site.kernel for site in self.sized.sites])
        return {path: row.learning_rate for path, row in zip(self.sized.paths, rows, strict=True)}

    def _draw(self, seed: int) -> InitReport | None:
        initializer = self.run.initializer
        if not takes_model(initializer):
            return initialize(self.model, initializer, seed=seed)
        report = initializer(self.model, seed)
        if not isinstance(report, InitReport | None):
            raise ValueError(
                "`initializer` must return the report of `initialize`, or None for no learning rates. "
                f"Received: a function that returned {type(report).__name__}. End it by `return report`."
            )
        return report

    def _prepare(self, report: InitReport | None) -> None:
        """Gives the model its loss, and an optimizer before its first step, with the rates of the report."""
        rates = getattr(report, "learning_rates", {})
        if self._rates == rates:
            _assign(self.model.optimizer.variables, self._slots)
            return
        chosen = self.run.optimizer or self._own or keras.optimizers.Adam(1e-3)
        # A copy: an optimizer belongs to the variables of one model.
        fresh = rated(report, type(chosen).from_config(chosen.get_config()))
        if self.run.loss is not None or not self._compiled:
            self.model.compile(fresh, self.run.loss)
        else:  # which keeps the losses, their weights and the metrics that the user compiled
            self.model.optimizer = fresh
        self.model.optimizer.build(self.model.trainable_variables)
        self._rates, self._slots = rates, _values(self.model.optimizer.variables)

    def _step(self) -> float:
        """Takes one training step, and returns its loss."""
        y, weights = split_weights(self.run.targets)
        self.model.reset_metrics()
        try:
            logs = self.model.train_on_batch(self.run.batch, y, weights, return_dict=True)
        except Exception as error:
            raise ValueError(
                "`data` and `loss` must fit the model that `build` returns. Received: a training step that "
                f"raised {first_line(error, kind=True)}"
            ) from error
        return float(logs["loss"])


def takes_model(initializer: object) -> TypeGuard[_OfModel]:
    """Whether an initializer is a function of a model, and not of a shape and a dtype.

    >>> takes_model(lambda model, seed: None), takes_model(lambda shape, dtype: None)
    (True, False)

    Args:
        initializer: The `initializer` of `coordinates`.
    """
    if isinstance(initializer, type | keras.initializers.Initializer) or not callable(initializer):
        return False
    return next(iter(inspect.signature(initializer).parameters), "") == "model"


def rated(report: InitReport | None, optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Returns an optimizer with the learning rates of a report.

    Args:
        report: The report of `initialize`; None for no rates.
        optimizer: A new optimizer.
    """
    # Without factors the optimizer may be of any kind, also one that does not step variable by variable.
    if report is None or all(row.is_one for row in report.multipliers.rows):
        return optimizer
    return report.optimizer(optimizer)


def _values(variables: Sequence[Variable]) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in variables]


def _assign(variables: Sequence[Variable], values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
