"""Laws over a whole model: one scale for each of its weights, found with gradients of its loss."""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Unpack

import keras
import numpy as np
from keras import ops

from keras_initx._types import Tensor
from keras_initx.checks import check_count, check_positive
from keras_initx.gradients import value_and_gradients
from keras_initx.initializers._base import PACKAGE, AxisAware, KernelOptions
from keras_initx.initializers._data_dependent import draw_normal
from keras_initx.initializers._law import Law, Need, Task

LEAST = 0.01  # the least scale of a kernel: its norm must not pass through zero
Value = tuple[float, ...]
Search = Iterator[tuple[np.ndarray, Value]]


class ModelLaw(Law, AxisAware):
    """Base of the laws that find one scale for each weight of a model from gradients of its loss.

    Such a law draws a kernel, as every initializer does, and has a method `search`. `keras_initx.calibrate`
    runs `search` on the model, its data and its loss. Derive a law of your own from this class and register
    it with Keras.

    >>> class Halved(ModelLaw):
    ...     def search(self, task):
    ...         yield np.where(task.is_kernel, 0.5, 1.0), (0.0,)

    Args:
        steps: Largest number of candidates that `calibrate` looks at.
        gain: Positive factor of the base draw.
        layout: Meaning of the axes where the shape does not tell it, such as `"depthwise"`: a kind, a dict or
            a `keras_initx.fans.Layout`. None reads dense kernels and plain convolutions.
        seed: None draws new values at each call, ruled by `keras.utils.set_random_seed`; an int repeats the
            values for a shape; a `keras.random.SeedGenerator` advances from call to call.
        input_axes: Axes that an output sums over. EinsumDense and the attention layers set them.
        output_axes: Axes that number the outputs. Set together with `input_axes`.

    Attributes:
        needs: Contains `"loss"` if the law is about a loss. For another law `calibrate` uses a loss where one
            is given, and otherwise a random linear function of the model's outputs.
        ranked_by: Names of the numbers that `search` yields for a candidate, for the report.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"gradients", "inputs", "loss", "targets"})
    scope = "model"
    ranked_by: ClassVar[tuple[str, ...]] = ("objective",)

    def __init__(
        self,
        steps: int = 100,
        gain: float = 1.0,
        **kernel: Unpack[KernelOptions],
    ) -> None:
        super().__init__(gain, **kernel)
        self.steps = check_count("steps", steps)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws independent normal entries of variance gain^2 / fan_in.

        Args:
            shape: Shape of the kernel.
            dtype: A float dtype; None for Keras' floatx.

        Returns:
            A kernel of this shape and dtype.
        """
        return draw_normal(self, shape, 1 / math.sqrt(self.split(shape).fans.fan_in or 1), dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"steps": self.steps}

    def search(self, task: Task) -> Search:
        """Yields candidates, without end or until no better candidate can follow.

        Args:
            task: The model's loss as a function of the scales, compiled on demand.

        Yields:
            Scales, float64 of shape (weights,), and a tuple of numbers that ranks them. `calibrate` gives the
            model the candidate with the smallest tuple; tuples are compared number by number.
        """
        raise NotImplementedError(
            f"`{type(self).__name__}` must define `search(self, task)`, which yields (scales, value)."
        )


@keras.saving.register_keras_serializable(package=PACKAGE)
class BetweenLayer(ModelLaw):
    """Scales at which all layers learn at the same relative rate while the outputs stay.

    Law: the rate of a kernel is the root mean square of its gradient over the root mean square of its
    entries. Each round scales kernel k by sqrt(rate_k / rate), where rate is the geometric mean of all rates.
    A kernel that changes fast grows, and a larger kernel changes more slowly. The product of all scales is 1.
    In a chain of layers that are homogeneous of degree 1, such as dense layers and ReLU without biases, the
    outputs therefore stay, and one round reaches the goal. A bias gets the scale of its kernel times the
    change of its layer's inputs; with it the outputs stay in such chains with biases, too. In other models
    more rounds follow until all rates are within `tolerance`; the best round is kept.

    Choose it after a law for each layer (`WithinLayer`, `LSUV`) where one learning rate serves layers of very
    different sizes.

    >>> model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    >>> law = BetweenLayer(steps=5)
    >>> law.steps, law.tolerance
    (5, 0.01)

    Args:
        steps: Largest number of rounds.
        tolerance: Largest relative distance of a rate from the mean.
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
        Kraehenbuehl, Doersch, Donahue and Darrell, 2016, "Data-dependent initializations of convolutional
        neural networks", between-layer normalization (https://arxiv.org/abs/1511.06856), in the form of the
        authors' code (philkr/magic_init, 10 rounds, 1 percent). The paper's text was not checked. Like the
        code, this law takes the gradient of a random linear function of the outputs, unless there is a loss.
        Deviations: the code also pulls the std of the outputs towards 1, applies the tolerance to logarithms,
        and draws a new linear function in each round.
    """

    needs = frozenset({"gradients", "inputs"})

    def __init__(
        self,
        steps: int = 10,
        tolerance: float = 0.01,
        gain: float = 1.0,
        **kernel: Unpack[KernelOptions],
    ) -> None:
        super().__init__(steps, gain, **kernel)
        self.tolerance = check_positive("tolerance", tolerance)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"tolerance": self.tolerance}

    def search(self, task: Task) -> Search:
        """Yields the scales of each round, ranked by the largest relative distance from the mean rate."""
        measure = task.compile(_rates)
        scales = np.ones(len(task.is_kernel))
        inputs = start = task.input_sizes(scales)
        while True:
            rates = np.asarray(measure(scales), "float64")
            used = task.is_kernel & (rates > 0)  # a dead layer has no rate
            logs = np.where(used, np.log(np.where(used, rates, 1.0)), 0.0)
            away = np.where(used, logs - logs.sum() / max(used.sum(), 1), 0.0)
            error = float(np.abs(np.expm1(away)).max()) if np.isfinite(rates).all() else math.nan
            yield scales, (error,)
            if not error > self.tolerance:
                return
            kernels = np.where(task.is_kernel, scales * np.exp(away / 2), scales)
            grown = np.divide(inputs, start, out=np.ones_like(start), where=start > 0)
            owners = (kernels * grown)[task.kernel_of]
            scales = np.where(task.is_kernel | (task.kernel_of < 0), kernels, owners)
            inputs = task.input_sizes(scales)


def _rates(task: Task, scales: Tensor) -> Tensor:
    values = task.scaled(scales)
    _, slopes = value_and_gradients(task.loss, values)
    pairs = task.of_weights(zip(values, slopes, strict=True))
    return ops.stack([ops.sqrt(ops.mean(g * g) / (ops.mean(w * w) + 1e-30)) for w, g in pairs])


@keras.saving.register_keras_serializable(package=PACKAGE)
class MetaInit(ModelLaw):
    """Norms of the kernels at which the loss is most linear along its own gradient.

    Law: let g be the gradient of the loss with respect to all weights, H its Hessian and s the sign of g. The
    gradient quotient is the mean over all weights of |(g - H g) / (g + epsilon s) - 1|. It is close to
    |H g / g|, the share of the gradient that one step of size 1 undoes. Sign descent with momentum on the
    norm of each kernel makes the quotient small. Directions of kernels stay, and biases stay. A step needs
    third derivatives and costs several training steps.

    Choose it for models without normalization for which no closed form is known. Do not choose it if ReLU
    layers are dead on the data: their quotient is constant.

    >>> law = MetaInit(steps=50, learning_rate=0.05)
    >>> law.steps, law.momentum
    (50, 0.9)

    Args:
        steps: Number of steps.
        learning_rate: Change of a kernel's norm in one step without momentum.
        momentum: Share of the last change that the next change repeats, in [0, 1).
        epsilon: Positive addition to the denominator.
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
        Dauphin and Schoenholz, 2019, "MetaInit: initializing learning by learning to initialize", equation 1
        and its pseudo-code (https://papers.nips.cc/paper/2019/hash/876e8108f87eb61877c6263228b67256-Abstract.html),
        in the form of public copies of this code. The paper's text was not checked. Deviations: the code
        draws Gaussian inputs and random labels for each step, and this law takes the given data and targets
        (`data=None` with random targets is the code's way); a norm stays above a hundredth of its start; the
        best step is kept instead of the last.
    """

    def __init__(
        self,
        steps: int = 500,
        learning_rate: float = 0.1,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        gain: float = 1.0,
        **kernel: Unpack[KernelOptions],
    ) -> None:
        super().__init__(steps, gain, **kernel)
        self.learning_rate = check_positive("learning_rate", learning_rate)
        self.momentum = float(momentum)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"`momentum` must be in [0, 1). Received: momentum={momentum!r}.")
        self.epsilon = check_positive("epsilon", epsilon)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        own = {name: getattr(self, name) for name in ("learning_rate", "momentum", "epsilon")}
        return super().get_config() | own

    def search(self, task: Task) -> Search:
        """Yields the scales of each step, ranked by their gradient quotient."""
        measure = task.compile(functools.partial(_quotient, epsilon=self.epsilon))
        scales, change = np.ones(len(task.is_kernel)), 0.0
        while True:
            value, slope = measure(scales)
            yield scales, (float(value),)
            change = self.momentum * change - self.learning_rate * np.sign(slope)
            moved = scales + change / np.maximum(task.norms, 1e-30)
            scales = np.where(task.is_kernel & (task.norms > 0), np.maximum(moved, LEAST), scales)


def _quotient(task: Task, scales: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    def half_square(values: Sequence[Tensor]) -> Tensor:
        _, slopes = value_and_gradients(task.loss, values)
        return sum(ops.sum(g * g) for g in slopes) / 2

    def quotient(scales: Sequence[Tensor]) -> Tensor:
        values = task.scaled(scales[0])
        _, slopes = value_and_gradients(task.loss, values)
        _, changes = value_and_gradients(half_square, values)
        return sum(map(apart, slopes, changes)) / sum(math.prod(value.shape) for value in values)

    def apart(g: Tensor, change: Tensor) -> Tensor:
        sign = 2 * ops.cast(g >= 0, g.dtype) - 1  # never 0
        return ops.sum(ops.abs((g - change) / (g + epsilon * sign) - 1))

    value, (slope,) = value_and_gradients(quotient, [scales])
    return value, slope
