"""Deep tanh nets at dynamical isometry learn faster than critical nets without it: Pennington et al. 2017.

Orthogonal and Gaussian weights of the same gain are equally critical: they give the net's Jacobian the same
mean squared singular value. Only orthogonal weights keep all singular values alike.

Before the first step, the script measures the singular values of the Jacobian from the input to the last
hidden layer. Then it counts the steps to a given loss on digits, for each initializer, gain and seed, at the
best of several learning rates. The paper trains on CIFAR-10.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

import keras_initx as initx
from claim import Claim, Criterion, digits, interval, reproduce
from saxe2013 import Goal, compiled, factor, learning_time, steps, told

CLAIM = Claim(
    paper="Pennington, Schoenholz and Ganguli 2017",
    link="https://arxiv.org/abs/1711.04735",
    statement="Deep tanh nets at dynamical isometry, which takes orthogonal weights, learn orders of "
    "magnitude faster than nets that are not.",
    number='"orders of magnitude faster" (abstract)',
    checked=True,
)
INITIALIZERS = {
    "orthogonal": initx.initializers.OrthogonalScaled,
    "Gaussian": initx.initializers.RandomScaled,
}
LOSS, MOMENTUM = 0.3, 0.9


class Size(NamedTuple):
    """Hidden layers, their width, gains, learning rates (likely ones first), and the step limit."""

    seeds: int = 4
    depth: int = 60
    width: int = 100
    gains: tuple[float, ...] = (1.0, 1.05)
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.001, 0.1)
    limit: int = 600


def tanh_net(size: Size) -> Any:
    model = keras.Sequential([layers.Input((64,))])
    for number in range(size.depth):
        model.add(layers.Dense(size.width, "tanh", name=f"dense{number}"))
    model.add(layers.Dense(10, name="logits"))
    return compiled(model, MOMENTUM)


def squared_singular_values(model: Any, image: np.ndarray, initializer: Any, seed: int) -> np.ndarray:
    """Returns the squared singular values of the last hidden layer's Jacobian by the input, at one image."""
    initx.initialize(model, initializer, seed=seed)
    hidden = keras.Model(model.inputs, model.layers[-2].output)
    return np.square(initx.diagnose(hidden, image[None], jacobian=True, seed=0).jacobian.singular_values)


def measure(size: Size) -> tuple[str, list[Criterion]]:
    x, y, _, _ = digits()
    data = (x.reshape(len(x), -1), y)
    goal, model = Goal(LOSS, size.limit), tanh_net(size)
    found, criteria, fastest = [], [], {}
    for gain in size.gains:
        times, spreads = {}, {}
        for name, kind in INITIALIZERS.items():
            start = kind(gain=gain)
            squares = [squared_singular_values(model, data[0][0], start, seed) for seed in range(size.seeds)]
            spreads[name] = [values.std() / values.mean() for values in squares]
            times[name] = [
                learning_time(goal, model, data, start, seed, size.rates) for seed in range(size.seeds)
            ]
            taken = fastest.setdefault(name, steps(times[name]))
            fastest[name] = np.minimum(taken, steps(times[name]))
            found.append(
                f"Gain {gain:g}, {name}: steps {told(times[name])}, squared singular values' mean "
                f"{interval([values.mean() for values in squares])} and std / mean {interval(spreads[name])}."
            )
            print(found[-1], f"Learning rates {[time.rate for time in times[name]]}.", flush=True)
        narrower = factor(spreads["Gaussian"], spreads["orthogonal"])
        faster = factor(steps(times["Gaussian"]), steps(times["orthogonal"]))
        criteria += [
            Criterion(
                f"gain {gain:g}: Gaussian's singular values spread {narrower} times as far", narrower.low > 1
            ),
            Criterion(f"gain {gain:g}: Gaussian takes {faster} times the steps, above 1", faster.low > 1),
        ]
    order = factor(fastest["Gaussian"], fastest["orthogonal"])
    criteria.append(
        Criterion(f"at the best gains Gaussian takes {order} times the steps, above 10", order.low > 10)
    )
    head = f"{size.depth} layers of {size.width}, steps to a loss of {LOSS}, at most {size.limit}."
    return " ".join([head, *found]), criteria


def main() -> None:
    reproduce(
        CLAIM,
        measure,
        quick=Size(1, depth=4, width=16, gains=(1.0,), rates=(0.01,), limit=15),
        default=Size(),
        full=Size(10, 200, 400, (1.0, 1.025, 1.05), (0.003, 0.01, 0.03, 0.001, 0.0003, 0.1), 5000),
    )


if __name__ == "__main__":
    main()
