"""GradInit: scales after which the first step of training helps most."""

import functools
import math
from collections.abc import Sequence
from typing import Any, Unpack

import keras
import numpy as np
from keras import ops

from keras_initx._types import Tensor
from keras_initx.checks import check_choice, check_positive
from keras_initx.gradients import unscoped, value_and_gradients
from keras_initx.initializers._base import PACKAGE, KernelOptions
from keras_initx.initializers._law import Task
from keras_initx.initializers._over_model import LEAST, ModelLaw, Search

_LEARNING_RATES = {"sgd": 0.1, "adam": 1e-3}


@keras.saving.register_keras_serializable(package=PACKAGE)
class GradInit(ModelLaw):
    """Scales of all weights at which the first step of SGD or Adam leaves the least loss.

    Law: let g be the gradient of the loss on one part of the data. The first step moves the weights by
    -learning_rate g / |g| (`"sgd"`) or -learning_rate sign(g) (`"adam"`). Adam tunes the scales of all
    weights, biases and normalizations included, so that the loss after this step gets small. This loss is
    taken on another part of the data, which shares half its rows, and the step counts as constant in it. The
    norm of g is Euclidean for SGD and the sum of absolute values for Adam. While it is above `max_norm`, the
    scales are tuned to make the norm smaller instead.

    Choose it for models of an unknown kind, or to train a post-norm Transformer without warm-up. Give it the
    learning rate of your training. It costs about as much as `steps` to `2 * steps` training steps.

    >>> law = GradInit(optimizer="adam", learning_rate=5e-4, steps=100)
    >>> law.optimizer, law.max_norm
    ('adam', None)

    Args:
        optimizer: The optimizer of your training: `"sgd"` or `"adam"`.
        learning_rate: Size of the first step; None for 0.1 with SGD and 1e-3 with Adam.
        max_norm: Bound of the gradient's norm; None for 1 with SGD and no bound with Adam.
        scale_rate: Learning rate of the scales.
        steps: Number of steps of the scales.
        gain: Positive factor of the draw, which has variance gain^2 / fan_in.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Raises:
        ValueError: If an argument is outside its range; on a call, if `dtype` is not a float.

    Reference:
        Zhu, Ni, Xu, Kong, Huang and Goldstein, 2021, "GradInit: learning to initialize neural networks for
        stable and efficient training", algorithm 1 (https://arxiv.org/abs/2102.08098), in the form of the
        authors' code (zhuchen03/gradinit: normalized SGD step, 390 steps, gradients of scales clipped to 1,
        scales of kernels at least 0.01; two thirds of a batch for each loss, half of it shared). The paper's
        text was not checked. Deviations: the code draws a new batch for each step; this law has the same rows
        in each step, so that the best step is known and kept. Batch normalization runs as `training` says.
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
        **kernel: Unpack[KernelOptions],
    ) -> None:
        super().__init__(steps, gain, **kernel)
        self.optimizer = check_choice("optimizer", optimizer, tuple(_LEARNING_RATES))
        self.learning_rate = None if learning_rate is None else check_positive("learning_rate", learning_rate)
        self.max_norm = None if max_norm is None else check_positive("max_norm", max_norm)
        self.scale_rate = check_positive("scale_rate", scale_rate)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        names = ("optimizer", "learning_rate", "max_norm", "scale_rate")
        return super().get_config() | {name: getattr(self, name) for name in names}

    def search(self, task: Task) -> Search:
        """Yields the scales of each step, ranked by the norm above its bound, then by the loss."""
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
    """Returns scales of 1, and an optimizer with its own moments for each of the two goals."""
    scales = keras.Variable(np.ones(count, "float32"))
    loosen, descend = (keras.optimizers.Adam(rate, clipvalue=1.0) for _ in range(2))
    return scales, loosen, descend


def _parts(task: Task) -> tuple[slice, slice]:
    """Returns two parts of the rows, two thirds each; half of each part is in both."""
    third = task.rows // 3
    return slice(0, 2 * third or None), slice(third, None)


def _slopes(task: Task, values: Sequence[Tensor], adam: bool) -> tuple[list[Tensor], Tensor]:
    first, _ = _parts(task)
    _, slopes = value_and_gradients(functools.partial(task.loss, rows=first), values)
    if adam:
        return slopes, sum(ops.sum(ops.abs(g)) for g in slopes)
    return slopes, ops.sqrt(sum(ops.sum(ops.square(g)) for g in slopes))


def _after(task: Task, scales: Tensor, rate: float, adam: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the loss after the first step, the gradient's norm before it, and the slope of this loss."""
    slopes, size = _slopes(task, task.scaled(scales), adam)
    moves = [rate * (ops.sign(g) if adam else g / (size + 1e-30)) for g in slopes]
    _, second = _parts(task)

    def moved(scales: Sequence[Tensor]) -> Tensor:
        values = [value - move for value, move in zip(task.scaled(scales[0]), moves, strict=True)]
        return task.loss(values, rows=second)

    value, (slope,) = value_and_gradients(moved, [scales])
    # The authors' code divides the loss by the learning rate. Adam divides this out, but the clip does not.
    return value, size, slope / rate


def _norm(task: Task, scales: Tensor, adam: bool) -> Tensor:
    """Returns the slope of the gradient's norm with respect to the scales."""
    _, (slope,) = value_and_gradients(lambda scales: _slopes(task, task.scaled(scales[0]), adam)[1], [scales])
    return slope
