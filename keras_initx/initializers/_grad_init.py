"""GradInit: scales after which the first step of training helps most."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initx._types import Tensor
from keras_initx.checks import check_choice, check_positive
from keras_initx.fans import Layout
from keras_initx.gradients import unscoped, value_and_gradients
from keras_initx.initializers._base import PACKAGE
from keras_initx.initializers._law import Task
from keras_initx.initializers._over_model import LEAST, ModelLaw, Search

_LEARNING_RATES = {"sgd": 0.1, "adam": 1e-3}


@keras.saving.register_keras_serializable(package=PACKAGE)
class GradInit(ModelLaw):
    """Scales of all weights at which the first step of SGD or Adam leaves the least loss.

    Law: with g the gradient of the loss on one part of the data, the first step moves the weights W by
    -learning_rate g / |g| (`"sgd"`) or -learning_rate sign(g) (`"adam"`). The scales of all weights, biases
    and normalizations included, are tuned by Adam so that the loss after that step, on a part of the data of
    which half is new, gets small; the step itself is taken as given. Where the gradient's norm, Euclidean for
    SGD and the sum of sizes for Adam, is above `max_norm`, the scales lessen the norm instead. Choose it for
    models of no known class, or to train a post-norm Transformer without warm-up; give it the learning rate
    that you will train with. It costs about as much as `steps` to `2 * steps` steps of training.

    >>> law = GradInit(optimizer="adam", learning_rate=5e-4, steps=100)
    >>> law.optimizer, law.max_norm
    ('adam', None)

    Args:
        optimizer: `"sgd"` or `"adam"`, whichever you will train with.
        learning_rate: Size of the first step; None for 0.1 with SGD and 1e-3 with Adam.
        max_norm: Bound of the gradient's norm; None for 1 with SGD and none with Adam.
        scale_rate: Learning rate of the scales.
        steps: Steps of the scales.
        gain: Positive factor of the base draw, which has variance gain^2 / fan_in.
        layout: As in `RandomScaled`.
        seed: As in `RandomScaled`.
        input_axes: Axes that an output sums over; EinsumDense and the attention layers set them.
        output_axes: Axes that index the outputs; set together with `input_axes`.

    Raises:
        ValueError: If an argument is outside its range; on a call, if `dtype` is not a float.

    Reference:
        Zhu, Ni, Xu, Kong, Huang and Goldstein, 2021, "GradInit: learning to initialize neural networks for
        stable and efficient training", algorithm 1 (https://arxiv.org/abs/2102.08098), as its authors' code
        has it (zhuchen03/gradinit: normalized SGD step, 390 steps, gradients of scales clipped to 1, scales
        of kernels at least 0.01; two thirds of a batch for each loss, half of it shared). The paper's text
        was not checked. Deviations: the code draws batches anew for each step, this has the same rows in
        each, so that the best of all steps is known and kept; batch normalization runs as `training` says.
    """

    ranked_by = ("norm beyond its bound", "loss after a step")

    def __init__(
        self,
        optimizer: str = "sgd",
        learning_rate: float | None = None,
        max_norm: float | None = None,
        scale_rate: float = 0.01,
        steps: int = 390,
        gain: float = 1.0,
        layout: str | Mapping[str, Any] | Layout | None = None,
        seed: int | keras.random.SeedGenerator | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(steps, gain, layout, seed, input_axes, output_axes)
        self.optimizer = check_choice("optimizer", optimizer, tuple(_LEARNING_RATES))
        self.learning_rate = None if learning_rate is None else check_positive("learning_rate", learning_rate)
        self.max_norm = None if max_norm is None else check_positive("max_norm", max_norm)
        self.scale_rate = check_positive("scale_rate", scale_rate)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        names = ("optimizer", "learning_rate", "max_norm", "scale_rate")
        return super().get_config() | {name: getattr(self, name) for name in names}

    def search(self, task: Task) -> Search:
        """Yields the scales of each step with the norm beyond its bound and the loss after the first step."""
        rate = self.learning_rate or _LEARNING_RATES[self.optimizer]
        bound = self.max_norm or (1.0 if self.optimizer == "sgd" else math.inf)
        adam = self.optimizer == "adam"
        after = task.compile(functools.partial(_after, rate=rate, adam=adam))
        norm = task.compile(functools.partial(_norm, adam=adam))
        scales, loosen, descend = unscoped(_start)(len(task.is_kernel), self.scale_rate)
        least = np.where(task.is_kernel, LEAST, 0.0).astype("float32")
        while True:
            now = np.asarray(ops.convert_to_numpy(scales), "float64")
            value, size, slope = after(now)
            yield now, (max(float(size) - bound, 0.0), float(value))
            optimizer = descend
            if size > bound:
                optimizer, slope = loosen, norm(now)
            unscoped(optimizer.apply)([ops.convert_to_tensor(slope, "float32")], [scales])
            scales.assign(ops.maximum(scales, least))


def _start(count: int, rate: float) -> tuple[keras.Variable, keras.Optimizer, keras.Optimizer]:
    """Scales of 1, and an optimizer for each of two goals, with moments of its own."""
    scales = keras.Variable(np.ones(count, "float32"))
    loosen, descend = (keras.optimizers.Adam(rate, clipvalue=1.0) for _ in range(2))
    return scales, loosen, descend


def _parts(task: Task) -> tuple[slice, slice]:
    """Two thirds of the rows each, half of them in both."""
    third = task.rows // 3
    return slice(0, 2 * third or None), slice(third, None)


def _slopes(task: Task, values: Sequence[Tensor], adam: bool) -> tuple[list[Tensor], Tensor]:
    first, _ = _parts(task)
    _, slopes = value_and_gradients(functools.partial(task.loss, rows=first), values)
    if adam:
        return slopes, sum(ops.sum(ops.abs(g)) for g in slopes)
    return slopes, ops.sqrt(sum(ops.sum(ops.square(g)) for g in slopes))


def _after(task: Task, scales: Tensor, rate: float, adam: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The loss after the first step, the gradient's norm before it, and the loss' slope by the scales."""
    slopes, size = _slopes(task, task.scaled(scales), adam)
    moves = [rate * (ops.sign(g) if adam else g / (size + 1e-30)) for g in slopes]
    _, second = _parts(task)

    def moved(scales: Sequence[Tensor]) -> Tensor:
        values = [value - move for value, move in zip(task.scaled(scales[0]), moves, strict=True)]
        return task.loss(values, rows=second)

    value, (slope,) = value_and_gradients(moved, [scales])
    # The code divides the loss by the learning rate, which Adam divides out; the clip does not.
    return value, size, slope / rate


def _norm(task: Task, scales: Tensor, adam: bool) -> Tensor:
    """The slope of the gradient's norm by the scales."""
    _, (slope,) = value_and_gradients(lambda scales: _slopes(task, task.scaled(scales[0]), adam)[1], [scales])
    return slope
