"""Laws over a whole model: a search, step by step, for one scale of each weight."""

import dataclasses
import itertools
import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_initx._types import Arrays
from keras_initx.calibration._plan import Job
from keras_initx.calibration._task import Task
from keras_initx.initializers import ModelLaw
from keras_initx.walk import KernelSite, iter_kernels, iter_weights, select

__all__ = ["Found", "make_task", "search"]


@dataclasses.dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        scales: One factor for each weight of the task.
        steps: Number of candidates.
        objective: The number that the law makes small, at the start and at the end: the last of `ranked`.
        ranked: The numbers that rank the candidates, the most important first: by name, at the start and at
            the end.
        interrupted: Whether Ctrl-C ended the search.
    """

    scales: np.ndarray
    steps: int
    objective: tuple[float, float]
    ranked: dict[str, tuple[float, float]]
    interrupted: bool


def make_task(job: Job, sites: Sequence[KernelSite], held: Sequence[keras.Variable]) -> Task:
    """Returns the task to scale some kernels of a model and its other trained weights.

    Args:
        job: The model, its data and its loss.
        sites: The kernels.
        held: Weights that keep their values.
    """
    model, settings = job.model, job.settings
    assert job.objective is not None, "a law over the model has a loss, or a random function in its place"
    # Kernels of one axis, such as scales of normalizations, are weights beside the kernels here.
    every = list(iter_kernels(model, trace=False))
    others: list[Any] = [*(site for site in every if len(site.kernel.shape) < 2), *iter_weights(model, every)]
    chosen: list[Any] = [*sites, *(weight for weight in others if weight.kernel.trainable)]
    if settings.include is not None or settings.exclude is not None:
        chosen = select(chosen, settings.include, settings.exclude)
    trained = [*model.trainable_variables, *(site.kernel for site in sites)]
    # Shared weights count once. Frozen kernels that were chosen follow the trainable variables.
    variables = list({id(variable): variable for variable in trained}.values())
    places = {id(variable): place for place, variable in enumerate(variables)}
    kept = {id(variable) for variable in held}
    weights = [w for w in chosen if id(w.kernel) in places and id(w.kernel) not in kept]
    numbers = {id(weight.kernel): number for number, weight in enumerate(weights)}
    kernel_of = np.full(len(weights), -1)
    for site in sites:
        for variable in filter(lambda v: v is not None and id(v) in numbers, (site.bias, site.kernel)):
            kernel_of[numbers[id(variable)]] = numbers.get(id(site.kernel), -1)
    return Task(
        model=model,
        sites=sites,
        variables=variables,
        values=[ops.convert_to_tensor(variable.value) for variable in variables],
        weights=[places[id(weight.kernel)] for weight in weights],
        kernel_of=kernel_of,
        batch=tree.map_structure(ops.convert_to_tensor, job.batch),
        targets=_cut(job.targets, len(tree.flatten(job.batch)[0])),
        objective=job.objective,
        training=settings.training,
    )


def _cut(targets: Arrays | None, rows: int) -> Arrays | None:
    return tree.map_structure(
        lambda leaf: None if leaf is None else ops.convert_to_tensor(leaf[:rows]), targets
    )


def search(law: ModelLaw, task: Task) -> Found:
    """Runs the search of a law and returns the best candidate; Ctrl-C ends the search early.

    Args:
        law: The law.
        task: The task that the law searches.

    Raises:
        ValueError: If no candidate has a finite objective.
    """
    best: tuple[tuple[float, ...], np.ndarray] | None = None
    first: tuple[float, ...] | None = None
    steps, interrupted = 0, False
    bar = keras.utils.Progbar(law.steps, verbose=int(_watched()), stateful_metrics=["objective"])
    try:
        for scales, value in itertools.islice(law.search(task), law.steps):
            steps += 1
            first = value if first is None else first
            # Tuples compare from their first number on: a later number counts only between equals.
            if np.isfinite(value).all() and (best is None or value < best[0]):
                best = value, np.array(scales)
            bar.update(steps, [("objective", value[-1])])
    except KeyboardInterrupt:
        if best is None:  # no candidate yet: Ctrl-C ends the call, and the weights stay
            raise
        interrupted = True
    if best is None or first is None:
        raise ValueError(
            f"`data` must keep the objective of {type(law).__name__} finite: the loss and its gradients. "
            f"Received: {first} at the weights as they are. Scale `data`, calibrate with `initx>LSUV` first, "
            "or use float32 in place of half precision."
        )
    bar.update(steps, finalize=True)
    pairs = list(zip(first, best[0], strict=True))
    names = law.ranked_by if len(law.ranked_by) == len(pairs) else map(str, range(len(pairs)))
    return Found(best[1], steps, pairs[-1], dict(zip(names, pairs, strict=True)), interrupted)


def _watched() -> bool:
    """Returns whether a progress bar would be seen: on a terminal or in a notebook."""
    return sys.stdout.isatty() or "ipykernel" in sys.modules
