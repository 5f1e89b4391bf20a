"""Deep linear nets with orthogonal weights learn in a time that does not grow with depth: Saxe et al. 2013.

The paper trains linear nets of many depths on MNIST. Here the nets learn digits. The script counts the steps
to a given loss, for each depth, initializer and seed, at the best of several learning rates. The rates are
multiples of 1 / depth.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

import keras_initx as initx
from claim import Claim, Criterion, Interval, difference, digits, interval, reproduce

CLAIM = Claim(
    paper="Saxe et al. 2013",
    link="https://arxiv.org/abs/1312.6120",
    statement="The learning time of deep linear nets is independent of their depth from random orthogonal "
    "weights, and not from scaled Gaussian ones.",
    number='"depth independent learning times" (abstract)',
    checked=True,
)
ORTHOGONAL, GAUSSIAN = "initx>OrthogonalScaled", "initx>RandomScaled"  # RandomScaled is N(0, 1 / fan_in)
LOSS = 0.25
CHUNK = 5  # steps over which the loss is averaged
BAND = 2  # a learning time that changes by less than this factor does not depend on depth


class Size(NamedTuple):
    """The hidden layers, their width, the learning rates times the number of layers, and the step limit."""

    seeds: int = 5
    depths: tuple[int, ...] = (10, 30, 90)
    width: int = 64
    rates: tuple[float, ...] = (4, 2, 1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32)
    limit: int = 400


class Goal(NamedTuple):
    """A training loss, the largest number of steps to it, and the images of a step."""

    loss: float
    limit: int
    batch: int = 128


class Time(NamedTuple):
    """The steps to the loss at the best learning rate, and this rate; `limit` and None if all rates fail."""

    steps: int
    rate: float | None


def linear_net(depth: int, width: int) -> Any:
    model = keras.Sequential(name=f"linear{depth}")
    model.add(layers.Input((64,)))
    for number in range(depth):
        model.add(layers.Dense(width, use_bias=False, name=f"dense{number}"))
    model.add(layers.Dense(10, use_bias=False, name="logits"))
    return model


def compiled(model: Any, momentum: float = 0.0) -> Any:
    """Compiles a model once for many starts: `initialize` resets the weights and the optimizer."""
    backend = keras.backend.backend()
    model.compile(
        keras.optimizers.SGD(momentum=momentum),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=1 if backend == "torch" else CHUNK,
        jit_compile=backend == "jax",  # on TensorFlow compiling a deep net takes longer than it saves
    )
    return model


def steps_to(goal: Goal, model: Any, data: Any, initializer: Any, seed: int, rate: float) -> int | None:
    """Returns the steps until the mean training loss of `CHUNK` steps is below the goal, or None."""
    x, y = data
    initx.initialize(model, initializer, seed=seed)
    model.optimizer.learning_rate = rate
    rng = np.random.default_rng(seed)
    first = None
    for done in range(CHUNK, goal.limit, CHUNK):
        rows = rng.integers(0, len(x), CHUNK * goal.batch)
        history = model.fit(x[rows], y[rows], batch_size=goal.batch, shuffle=False, verbose=0).history
        loss = history["loss"][0]
        first = loss if first is None else first
        if loss < goal.loss:
            return done
        if not loss < 10 * max(first, math.log(10)):  # diverged: more steps would waste time
            return None
    return None


def learning_time(
    goal: Goal, model: Any, data: Any, initializer: Any, seed: int, rates: Sequence[float]
) -> Time:
    """Returns the shortest time over the rates. A rate stops once it has taken as many steps as the best."""
    best = Time(goal.limit, None)
    for rate in rates:
        taken = steps_to(goal._replace(limit=best.steps), model, data, initializer, seed, rate)
        if taken is not None:
            best = Time(taken, rate)
    return best


def factor(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Returns the ratio of `first` to `second`, as a geometric mean over seeds."""
    return Interval(*map(math.exp, difference(np.log(first), np.log(second))))


def steps(times: Sequence[Time]) -> list[int]:
    return [time.steps for time in times]


def told(times: Sequence[Time]) -> str:
    """Formats the mean steps, and the number of seeds that did not reach the loss."""
    late = sum(time.rate is None for time in times)
    return f"{interval(steps(times))}" + (f" ({late} not there yet)" if late else "")


def measure(size: Size) -> tuple[str, list[Criterion]]:
    x, y, _, _ = digits()
    data = (x.reshape(len(x), -1), y)
    goal, times = Goal(LOSS, size.limit), {}
    for depth in size.depths:
        model = compiled(linear_net(depth, size.width))
        rates = [rate / depth for rate in size.rates]
        for initializer in (ORTHOGONAL, GAUSSIAN):
            times[initializer, depth] = [
                learning_time(goal, model, data, initializer, seed, rates) for seed in range(size.seeds)
            ]
            best = [time.rate and round(time.rate * depth, 3) for time in times[initializer, depth]]
            print(
                f"{depth} layers | {initializer} | steps {told(times[initializer, depth])} | "
                f"rates * layers {best}",
                flush=True,
            )

    first, last = size.depths[0], size.depths[-1]
    growth = {
        initializer: factor(steps(times[initializer, last]), steps(times[initializer, first]))
        for initializer in (ORTHOGONAL, GAUSSIAN)
    }
    apart = factor(steps(times[GAUSSIAN, last]), steps(times[ORTHOGONAL, last]))
    of = {
        initializer: ", ".join(told(times[initializer, depth]) for depth in size.depths)
        for initializer in growth
    }
    found = (
        f"Steps to a loss of {LOSS} with {', '.join(map(str, size.depths))} hidden layers of {size.width}: "
        f"orthogonal {of[ORTHOGONAL]}; Gaussian {of[GAUSSIAN]}; at most {size.limit}."
    )
    orthogonal, gaussian = growth.values()
    more = f"{last} layers take {{}} times the steps of {first}"
    return found, [
        Criterion(
            f"orthogonal: {more.format(orthogonal)}, between 1/{BAND} and {BAND}",
            orthogonal.low > 1 / BAND and orthogonal.high < BAND,
        ),
        Criterion(f"Gaussian: {more.format(gaussian)}, above {BAND}", gaussian.low > BAND),
        Criterion(f"with {last} layers Gaussian takes {apart} times orthogonal's, above 1", apart.low > 1),
    ]


def main() -> None:
    reproduce(
        CLAIM,
        measure,
        quick=Size(1, depths=(2, 4), width=16, rates=(1,), limit=25),
        default=Size(),
        # Wider and deeper. The paper's own width and depths were not read.
        full=Size(10, (10, 30, 90, 200), 512, limit=2000),
    )


if __name__ == "__main__":
    main()
