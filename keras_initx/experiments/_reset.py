"""What each initializer draws of a model, and the trained kernels from which all trials would start."""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import keras
import numpy as np

from keras_initx._types import Model, Variable
from keras_initx.experiments._prepare import draw
from keras_initx.experiments._problem import Problem, build_model
from keras_initx.strategies import InitReport, InitRow
from keras_initx.tables import listed
from keras_initx.walk import KernelSite, Weight, iter_kernels, iter_weights

__all__ = ["Drawn", "Reset", "check_reset", "sentences_of_drawn"]


@dataclasses.dataclass(frozen=True)
class Drawn:
    """How much of a model an initializer draws.

    Attributes:
        kernels: Number of the kernels that it draws.
        of: Number of all kernels.
        share: Share of the parameters of all kernels that it draws, from 0 to 1.
        others: Paths of the other kernels: frozen, drawn by their layers' own initializers, or left.
    """

    kernels: int
    of: int
    share: float
    others: tuple[str, ...]

    def __str__(self) -> str:
        """Formats it as a sentence without its subject."""
        share, others = math.floor(100 * self.share), f"; not {listed(self.others)}" if self.others else ""
        return f"{self.kernels} of {self.of} kernels, {share} % of their parameters{others}"


class Reset(NamedTuple):
    """The findings about the start of the trials, by the label of the initializer.

    Attributes:
        drawn: How much of the model the initializer draws.
        notes: A note on weights, other than kernels, that may have been trained; only where there are any.
    """

    drawn: dict[str, Drawn]
    notes: dict[str, str]


def check_reset(problem: Problem, model: Model) -> Reset:
    """Draws a model by each initializer, and refuses a model whose trials would start from trained kernels.

    A weight may have been trained if three things hold:

        1. An initializer leaves the weight, though nobody froze it.
        2. The weight has equal values in two models that `build` returns for two seeds.
        3. It is not one number throughout.

    Args:
        problem: The problem. Its `build` is called once, and only if an initializer leaves a weight.
        model: A model that `build` returned. Its weights change.

    Raises:
        ValueError: If an initializer does not fit the model, or leaves a kernel that may have been trained.
    """
    built = [keras.ops.convert_to_numpy(keras.ops.copy(v.value)) for v in model.trainable_variables]
    reports: dict[str, InitReport] = {}
    for label, initializer in problem.initializers.items():
        # From the values of `build` each time: a layer whose config holds its values tells by them.
        for variable, value in zip(model.trainable_variables, built, strict=True) if reports else ():
            variable.assign(value)
        try:
            reports[label] = draw(model, initializer, 0).report
        except ValueError as error:
            raise ValueError(f"`initializers`: {label!r} does not fit the model. {error}") from error
    left = {label: [row for row in report.rows if not row.initializer] for label, report in reports.items()}
    fixed = _fixed(problem, model, {row.path for rows in left.values() for row in rows})
    trained = {label: [row for row in rows if row.path in fixed] for label, rows in left.items()}
    _refuse(trained, next(iter(reports.values())).rows)
    notes = {label: _note([row.path for row in rows]) for label, rows in trained.items() if rows}
    return Reset({label: _drawn(report) for label, report in reports.items()}, notes)


def sentences_of_drawn(drawn: Mapping[str, Drawn]) -> list[str]:
    """Returns a sentence for each group of initializers that draw the same kernels."""
    labels: dict[Drawn, list[str]] = {}
    for label, found in drawn.items():
        labels.setdefault(found, []).append(label)
    return [f"drawn by {', '.join(names)}: {found}" for found, names in labels.items()]


def _drawn(report: InitReport) -> Drawn:
    kernels = [row for row in report.rows if row.is_kernel]
    drawn = [row for row in kernels if row.initializer and row.path not in report.unseen]
    part, whole = (sum(row.size for row in rows) for rows in (drawn, kernels))
    others = tuple(row.path for row in kernels if row not in drawn)
    return Drawn(len(drawn), len(kernels), part / whole if whole else 1.0, others)


def _fixed(problem: Problem, model: Model, left: set[str]) -> set[str]:
    """Returns the paths of trainable weights that have equal values in two builds, but not one number."""
    weights = {path: v for path, v in _trainable(model).items() if path in left} if left else {}
    weights = {path: v for path, v in weights.items() if not _is_plain(_array(v))}
    again = _trainable(build_model(problem, 1)) if weights else {}
    return {
        path
        for path, v in weights.items()
        if path in again and np.array_equal(_array(v), _array(again[path]))
    }


def _trainable(model: Model) -> dict[str, Variable]:
    sites = list(iter_kernels(model, trace=False))
    weights: list[KernelSite | Weight] = [*sites, *iter_weights(model, sites)]
    return {
        weight.path: weight.kernel
        for weight in weights
        if weight.layer.trainable
        and weight.kernel.trainable
        and keras.backend.is_float_dtype(weight.kernel.dtype)
    }


def _array(variable: Variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable.value)


def _is_plain(value: np.ndarray) -> bool:
    """Whether a value looks untrained: one number throughout, and 0 or 1 if it is a scalar."""
    if value.size < 2:
        return all(number in (0, 1) for number in value.flat)
    return bool((value == value.flat[0]).all())


def _refuse(trained: Mapping[str, list[InitRow]], rows: tuple[InitRow, ...]) -> None:
    """Raises ValueError if there are kernels among the weights that may have been trained."""
    kernels = {label: [row for row in found if row.is_kernel] for label, found in trained.items()}
    found = {row.path: row.size for label in kernels for row in kernels[label]}
    if not found:
        return
    share = sum(found.values()) / sum(row.size for row in rows if row.is_kernel)
    labels = [label for label in kernels if kernels[label]]
    raise ValueError(
        "`build_fn` must return a model whose kernels can be drawn anew, or are frozen. Received: "
        f"{listed(list(found))} ({share:.0%} of the parameters of all kernels), which {listed(labels)} would "
        "leave with values that are equal in two models built with different seeds: trained or fixed values. "
        "Every trial would start from them, and the figures would say nothing about the initializer. Draw "
        "them where the model is built, let their layer make them by `add_weight(initializer=...)`, or "
        "freeze the layer by `trainable = False`."
    )


def _note(paths: list[str]) -> str:
    return (
        f"{listed(paths)}: not drawn anew, because nothing tells the initial values. Every "
        "trial starts from the values that the model is built with. If they were trained, the figures say "
        "nothing about the initializer: pass a model that was not trained."
    )
