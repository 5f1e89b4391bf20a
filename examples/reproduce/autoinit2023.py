"""AutoInit keeps a net trainable over activations and learning rates: Bingham and Miikkulainen 2023.

The paper varies All-CNN-C on CIFAR-10, one setting at a time. Here a thin All-CNN-C, with its dropout, learns
digits with every pair of five activations and four learning rates, from three starts.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

import keras_initx as initx
from claim import Claim, Criterion, difference, digits, interval, reproduce

CLAIM = Claim(
    paper="Bingham and Miikkulainen 2023",
    link="https://arxiv.org/abs/2109.08958",
    statement="AutoInit makes convolutional nets more robust to activation functions and learning rates than "
    "starts that assume one activation.",
    number="no number in the abstract: it “improves performance … across a range of activation function, "
    "dropout, weight decay, learning rate, and normalizer settings”",
    checked=True,
)
STARTS = {"Keras' default": "glorot_uniform", "He": "he_normal", "AutoInit": "AutoInit"}
BATCH, MOMENTUM = 64, 0.9
CHANCE = 0.1  # a run that diverged counts as this accuracy


class Size(NamedTuple):
    """The grid, the channels of the first three convolutions (later ones have twice as many), and passes."""

    seeds: int = 3
    activations: tuple[str, ...] = ("relu", "silu", "elu", "tanh", "softplus")
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    channels: int = 16
    epochs: int = 8
    images: int = 1437


Grid = np.ndarray  # test accuracies by activation, rate and seed


def net(activation: str, size: Size) -> Any:
    """Returns All-CNN-C, compiled once: `initialize` resets the weights and the optimizer."""
    x = inputs = layers.Input((8, 8, 1))
    x = layers.Dropout(0.2)(x)
    kernels = [3, 3, 3, 3, 3, 3, 3, 1]
    for number, kernel in enumerate(kernels):
        last_of_stage = number in (2, 5)
        channels = size.channels if number < 3 else 2 * size.channels
        strides = 2 if last_of_stage else 1
        x = layers.Conv2D(channels, kernel, strides, "same", activation=activation, name=f"conv{number}")(x)
        if last_of_stage:
            x = layers.Dropout(0.5)(x)
    x = layers.Conv2D(10, 1, name="logits")(x)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    backend = keras.backend.backend()
    model.compile(
        keras.optimizers.SGD(momentum=MOMENTUM),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=1 if backend == "torch" else -(-size.images // BATCH),
        jit_compile=backend == "jax",  # on TensorFlow compiling takes longer than it saves
    )
    return model


def train(model: Any, data: Any, initializer: str, seed: int, rate: float, epochs: int) -> float:
    """Returns the accuracy on the test images after the last epoch."""
    x, y, test_x, test_y = data
    initx.initialize(model, initializer, seed=seed)
    model.optimizer.learning_rate = rate
    keras.utils.set_random_seed(seed)  # the order of the images
    for number, layer in enumerate(model.layers):
        if isinstance(layer, layers.Dropout):  # the same noise for all starts
            layer.seed_generator.state.assign([seed, number])
    stop = keras.callbacks.TerminateOnNaN()
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[stop])
    loss, accuracy = model.evaluate(test_x, test_y, batch_size=360, verbose=0)
    return accuracy if np.isfinite(loss) else CHANCE


def grids(size: Size) -> dict[str, Grid]:
    x, y, *test = digits()
    data = (x[: size.images], y[: size.images], *test)
    found = {start: np.empty((len(size.activations), len(size.rates), size.seeds)) for start in STARTS}
    for row, activation in enumerate(size.activations):
        model = net(activation, size)
        for start, initializer in STARTS.items():
            for column, rate in enumerate(size.rates):
                for seed in range(size.seeds):
                    found[start][row, column, seed] = train(model, data, initializer, seed, rate, size.epochs)
            means = " ".join(f"{mean:.3f}" for mean in found[start][row].mean(-1))
            print(f"{activation} | {start} | test accuracy at the rates {means}", flush=True)
    return found


def ahead(found: dict[str, Grid], name: str, reduce: Any) -> list[Criterion]:
    """Asks, seed by seed, whether AutoInit's mean or worst accuracy is above each other start's."""
    by_seed = {start: reduce(grid, axis=(0, 1)) for start, grid in found.items()}
    gains = {
        start: difference(by_seed["AutoInit"], by_seed[start]) for start in STARTS if start != "AutoInit"
    }
    return [
        Criterion(f"AutoInit's {name} accuracy is higher than from {start} by {gain}", gain.low > 0)
        for start, gain in gains.items()
    ]


def nowhere_behind(found: dict[str, Grid], activations: tuple[str, ...]) -> Criterion:
    """Asks whether another start has, with some activation, a mean over the rates that is surely higher."""
    by_seed = {start: grid.mean(1) for start, grid in found.items()}
    behind = [
        f"{activation}: {gain} to {start}"
        for row, activation in enumerate(activations)
        for start in STARTS
        if (gain := difference(by_seed["AutoInit"][row], by_seed[start][row])).high < 0
    ]
    text = "with no activation is AutoInit's mean over the rates behind by an interval below 0"
    return Criterion(f"{text} ({', '.join(behind)})" if behind else text, not behind)


def lowest(grid: Grid, size: Size) -> str:
    """Names the setting with the lowest mean over seeds."""
    row, column = np.unravel_index(grid.mean(-1).argmin(), grid.shape[:2])
    return f"{size.activations[row]} at {size.rates[column]:g}"


def measure(size: Size) -> tuple[str, list[Criterion]]:
    found = grids(size)
    each = [
        f"mean {interval(grid.mean((0, 1)))} and worst {interval(grid.min((0, 1)))} from {start} "
        f"(lowest {lowest(grid, size)})"
        for start, grid in found.items()
    ]
    criteria = [
        *ahead(found, "mean", np.mean),
        *ahead(found, "worst", np.min),
        nowhere_behind(found, size.activations),
    ]
    cells = len(size.activations) * len(size.rates)
    return f"Test accuracy over {cells} settings: {', '.join(each)}.", criteria


def main() -> None:
    reproduce(
        CLAIM,
        measure,
        quick=Size(1, ("relu",), (0.01,), channels=4, epochs=1, images=64),
        default=Size(),
        # The width and epochs of All-CNN-C itself; the images stay small.
        full=Size(5, channels=96, epochs=350),
    )


if __name__ == "__main__":
    main()
