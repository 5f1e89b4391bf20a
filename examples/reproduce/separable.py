"""Nets of separable convolutions without normalization learn when kernels are drawn with their true fans.

Each output of a depthwise kernel sums k k inputs, but Keras counts k k C as its fan_in. So with Keras'
defaults, and with its `he_normal`, each such layer divides the variance by about C. After a few layers
nothing is left.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

import keras_initx as initx
from claim import Claim, Criterion, Interval, difference, digits, interval, reproduce

CLAIM = Claim(
    paper="keras_initx",
    link="strategies.md#by_role",
    statement="Separable nets without normalization train from `by_role`, with true fans, "
    "and not from Keras' defaults or its `he_normal`.",
    number="this project's own claim: six blocks",
    checked=True,
)
# The initializer of the model's layers, and the argument of `initialize`: None keeps the layers' own.
STARTS = {
    "Keras' defaults": ("glorot_uniform", None),
    "Keras' he_normal": ("he_normal", None),
    "by_role": ("glorot_uniform", "by_role"),
}
BATCH = 32
TRAINS, STALLS = 0.85, 0.5  # test accuracies; chance is 0.1


class Size(NamedTuple):
    """The separable layers after one convolution, and the passes over `images` images."""

    seeds: int = 5
    blocks: int = 6
    channels: int = 32
    rates: tuple[float, ...] = (1e-3, 3e-3)
    epochs: int = 8
    images: int = 1437


class Run(NamedTuple):
    """The std of the logits before training, the training loss, and the accuracy on the test images."""

    std: float
    loss: float
    accuracy: float


def net(initializer: str, size: Size) -> Any:
    """Returns a model, compiled once for many starts: `initialize` resets the weights and the optimizer."""
    same = {"padding": "same", "activation": "relu"}
    both = {"depthwise_initializer": initializer, "pointwise_initializer": initializer}
    x = inputs = layers.Input((8, 8, 1))
    x = layers.Conv2D(size.channels, 3, kernel_initializer=initializer, name="stem", **same)(x)
    for number in range(size.blocks):
        x = layers.SeparableConv2D(size.channels, 3, name=f"block{number}", **both, **same)(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(10, kernel_initializer=initializer, name="logits")(x))
    backend = keras.backend.backend()
    model.compile(
        keras.optimizers.Adam(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=1 if backend == "torch" else -(-size.images // BATCH),
        jit_compile=backend == "jax",  # on TensorFlow compiling takes longer than it saves
    )
    return model


def train(model: Any, data: Any, initializer: str | None, seed: int, rate: float, epochs: int) -> Run:
    x, y, test_x, test_y = data
    initx.initialize(model, initializer, seed=seed)
    std = float(ops.convert_to_numpy(ops.std(model(test_x))))
    model.optimizer.learning_rate = rate
    keras.utils.set_random_seed(seed)  # the order of the images
    history = model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0).history
    return Run(std, history["loss"][-1], model.evaluate(test_x, test_y, batch_size=360, verbose=0)[1])


def best(runs: dict[float, list[Run]]) -> tuple[float, list[Run]]:
    """Returns the rate that fits the training images best, and its runs. The test images choose nothing."""
    return min(runs.items(), key=lambda pair: np.mean([run.loss for run in pair[1]]))


def measure(size: Size) -> tuple[str, list[Criterion]]:
    x, y, *test = digits()
    data = (x[: size.images], y[: size.images], *test)
    models = {name: net(name, size) for name in ("glorot_uniform", "he_normal")}
    found, accuracies = [], {}
    for start, (layers_own, initializer) in STARTS.items():
        runs = {}
        for rate in size.rates:
            runs[rate] = [
                train(models[layers_own], data, initializer, seed, rate, size.epochs)
                for seed in range(size.seeds)
            ]
            tests = " ".join(f"{run.accuracy:.3f}" for run in runs[rate])
            print(f"{start} | learning rate {rate:g} | test accuracy {tests}", flush=True)
        rate, chosen = best(runs)
        accuracies[start] = [run.accuracy for run in chosen]
        std = np.mean([run.std for run in chosen])
        found.append(f"{interval(accuracies[start])} from {start} (learning rate {rate:g}, logits {std:.1g})")
    return f"Test accuracy {', '.join(found)}.", judge(accuracies)


def judge(accuracies: dict[str, list[float]]) -> list[Criterion]:
    defaults, he, by_role = accuracies.values()
    intervals: dict[str, Interval] = {start: interval(values) for start, values in accuracies.items()}
    stalls = [
        Criterion(f"the interval from {start} is below {STALLS}", intervals[start].high < STALLS)
        for start in ("Keras' defaults", "Keras' he_normal")
    ]
    ahead = [difference(by_role, defaults), difference(by_role, he)]
    return [
        Criterion(f"the interval from by_role is above {TRAINS}", intervals["by_role"].low > TRAINS),
        *stalls,
        Criterion(
            f"by_role is ahead of Keras' defaults by {ahead[0]} and of its he_normal by {ahead[1]}",
            all(by.low > 0 for by in ahead),
        ),
    ]


def main() -> None:
    reproduce(
        CLAIM,
        measure,
        quick=Size(seeds=1, blocks=1, channels=4, rates=(3e-3,), epochs=1, images=64),
        default=Size(),
        # There is no paper to follow: twice as deep and wide, and four times as long.
        full=Size(10, blocks=12, channels=64, rates=(3e-4, 1e-3, 3e-3), epochs=32),
    )


if __name__ == "__main__":
    main()
