"""An RNN of ReLUs that starts from the identity adds numbers far apart: Le, Jaitly and Hinton 2015.

The paper's adding problem: in a sequence of random numbers two are marked, and the target is the sum of these
two. The numbers of units and the batch size are the paper's. The length is 100 (in the paper 150 to 400).

The optimizer is Adam at 1e-3 with clipped gradients for all nets. The paper uses SGD and searches its rates
and clips. With SGD at a rate of 0.01 and a clip of 1, the IRNN stayed at the error of the constant answer for
12,000 steps of two seeds.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

import keras_initx as initx
from claim import Claim, Criterion, difference, interval, reproduce

CLAIM = Claim(
    paper="Le, Jaitly and Hinton 2015",
    link="https://arxiv.org/abs/1504.00941",
    statement="From the identity an RNN of ReLUs learns long dependencies as an LSTM does.",
    number='"comparable to LSTM" (abstract)',
    checked=True,
)
UNITS, BATCH = 100, 16
CONSTANT = 1 / 6  # mean squared error of the answer 1: the variance of a sum of two uniform numbers
SOLVED = CONSTANT / 10
CHUNK = 250  # training steps between two checks of the error


class Size(NamedTuple):
    """The length of the sequences, and the largest number of training steps of each net."""

    seeds: int = 3
    length: int = 100
    steps: int = 5000


def sums(count: int, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns sequences of numbers and marks, one mark in each half, and the sums of the marked numbers."""
    x = np.zeros((count, length, 2), "float32")
    x[..., 0] = rng.random((count, length))
    half, rows = length // 2, np.arange(count)
    marked = rng.integers(0, half, count), rng.integers(half, length, count)
    for position in marked:
        x[rows, position, 1] = 1
    return x, sum(x[rows, position, :1] for position in marked)


def recurrent(name: str) -> Any:
    """Returns a recurrent layer with the start that is compared."""
    if name == "LSTM":  # with a unit forget bias, Keras' default
        return layers.LSTM(UNITS)
    if name == "IRNN":
        small = keras.initializers.RandomNormal(stddev=0.001)
        return layers.SimpleRNN(UNITS, "relu", kernel_initializer=small, recurrent_initializer="initx>IRNN")
    return layers.SimpleRNN(UNITS, "tanh", recurrent_initializer="initx>RandomScaled")


def net(name: str, size: Size) -> Any:
    model = keras.Sequential([layers.Input((size.length, 2)), recurrent(name), layers.Dense(1)], name=name)
    backend = keras.backend.backend()
    model.compile(
        keras.optimizers.Adam(1e-3, global_clipnorm=1.0),
        "mse",
        jit_compile=backend == "jax"
        or (backend == "tensorflow" and size.steps > 1000),  # pays off in long runs
        steps_per_execution=1 if backend == "torch" else 50,
    )
    return model


def train(model: Any, seed: int, size: Size) -> tuple[float, int]:
    """Returns the mean error of the last `CHUNK` steps, on new sequences, and the number of all steps.

    Training stops once the sum is learned.
    """
    initx.initialize(model, None, seed=seed)  # draws each layer's own start anew, and resets the optimizer
    rng = np.random.default_rng(seed)
    done, error = 0, np.inf
    while done < size.steps and not error < SOLVED / 2:
        steps = min(CHUNK, size.steps - done)
        x, y = sums(steps * BATCH, size.length, rng)
        error = model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0).history["loss"][0]
        done += steps
    return error, done


def measure(size: Size) -> tuple[str, list[Criterion]]:
    errors: dict[str, list[float]] = {}
    found = []
    for name in ("IRNN", "tanh RNN", "LSTM"):
        model = net(name.replace(" ", "_"), size)
        runs = [train(model, seed, size) for seed in range(size.seeds)]
        errors[name] = [error for error, _ in runs]
        steps = ", ".join(str(done) for _, done in runs)
        found.append(f"{name} {interval(errors[name])} after {steps} steps")
        print(f"{name}: errors {errors[name]} after {steps} steps", flush=True)
    irnn = interval(errors["IRNN"])
    ahead, behind = (
        difference(errors["tanh RNN"], errors["IRNN"]),
        difference(errors["IRNN"], errors["LSTM"]),
    )
    return f"Adding problem of {size.length} steps, squared error (always 1: 0.167): {'; '.join(found)}.", [
        Criterion(f"the IRNN's error is below {SOLVED:.2g}: {irnn}", irnn.high < SOLVED),
        Criterion(f"the tanh RNN's is higher by {ahead}, above 0", ahead.low > 0),
        Criterion(f"IRNN less LSTM is {behind}, below {SOLVED:.2g}", behind.high < SOLVED),
    ]


def main() -> None:
    reproduce(
        CLAIM,
        measure,
        quick=Size(seeds=1, length=8, steps=10),
        default=Size(),
        full=Size(seeds=5, length=400, steps=1_000_000),
    )


if __name__ == "__main__":
    main()
