"""Which activations a thin net of 17 layers learns with, from LSUV, orthonormal, He and Glorot draws.

After table 3 of Mishkin and Matas, 2016 (https://arxiv.org/abs/1511.06422), on scikit-learn's digits.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import functools
import statistics
from typing import Any, NamedTuple

import keras
import numpy as np
import report
import sklearn.datasets
from keras import layers

import keras_initx as initx

STAGES = ((5, 12), (6, 16), (5, 24))  # 3x3 convolutions and their channels, before each pooling
STARTS = {
    "LSUV": "initx>LSUV",
    "orthonormal": "initx>OrthogonalScaled",
    "He": "initx>HeScaled",
    "Glorot": "initx>GlorotScaled",
}
ACTIVATIONS: dict[str, Any] = {
    "maxout": None,
    "ReLU": layers.ReLU,
    "very leaky ReLU": functools.partial(layers.LeakyReLU, negative_slope=1 / 3),
    "tanh": functools.partial(layers.Activation, "tanh"),
}
# As in the authors' fitnet4_maxout_lsuv.prototxt (https://github.com/ducha-aiki/LSUVinit), for all starts and
# activations; the learning rate drops once, not three times.
BATCH, LEARNING_RATE, MOMENTUM = 128, 0.01, 0.9
EPOCHS, SEEDS, TRAIN = 30, 3, 1437
LONGER = 10  # times as many epochs for what stalled: to tell a slow start from none
CHANCE = 0.2  # of ten classes, twice the share of one


class Run(NamedTuple):
    """The std of the logits before training, and loss and accuracy on the test images after it."""

    std: float
    loss: float
    accuracy: float

    @property
    def outcome(self) -> str:
        if not np.isfinite(self.loss):
            return "diverged"
        return "learned" if self.accuracy > CHANCE else "stalled"


def digits() -> tuple[Any, ...]:
    """Standardized training images, their labels, and the same of the test images."""
    data = sklearn.datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))  # the split of the data set initx_digits
    x, y = data.images[order][..., None].astype("float32"), data.target[order]
    x = (x - x[:TRAIN].mean()) / x[:TRAIN].std()
    return x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:]


def net(activation: str, epochs: int) -> Any:
    """16 convolutions and a dense layer, compiled; maxout is the larger of two convolutions."""
    x = inputs = layers.Input((8, 8, 1))
    for stage, (depth, channels) in enumerate(STAGES, 1):
        for number in range(1, depth + 1):
            pieces = "ab" if activation == "maxout" else "a"
            convolutions = [
                layers.Conv2D(channels, 3, padding="same", name=f"conv{stage}_{number}{piece}")(x)
                for piece in pieces
            ]
            single = ACTIVATIONS[activation]
            x = single()(convolutions[0]) if single else layers.Maximum()(convolutions)
        x = layers.MaxPooling2D()(x) if stage < len(STAGES) else layers.GlobalMaxPooling2D()(x)
    model = keras.Model(inputs, layers.Dense(10, name="logits")(x))
    steps = -(-TRAIN // BATCH)
    drop = epochs * steps * 2 // 3
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([drop], [LEARNING_RATE, LEARNING_RATE / 10])
    model.compile(
        keras.optimizers.SGD(rate, momentum=MOMENTUM),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=steps,  # half of an epoch is Python's time otherwise
        jit_compile=False,
    )
    return model


def train(model: Any, start: str, seed: int, epochs: int) -> Run:
    """Starts the model over and trains it. The order of the images depends on the seed alone."""
    x, y, test_x, test_y = digits()
    initx.initialize(model, STARTS[start], seed=seed)
    if start == "LSUV":
        initx.calibrate(model, x, STARTS[start])
    std = float(np.std(model.predict(test_x, verbose=0)))
    keras.utils.set_random_seed(seed)
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)
    return Run(std, *model.evaluate(test_x, test_y, verbose=0))


def row(activation: str, start: str, runs: list[Run], longer: Run | None) -> list[str]:
    stds = [run.std for run in runs]
    learned = [100 * run.accuracy for run in runs if run.outcome == "learned"]
    return [
        activation,
        start,
        f"{min(stds):.2g} to {max(stds):.2g}",
        f"{statistics.mean(learned):.1f}" if learned else "n.c.",
        f"{min(learned):.1f} to {max(learned):.1f}" if learned else "",
        *(str(sum(run.outcome == outcome for run in runs)) for outcome in ("stalled", "diverged")),
        "" if longer is None else f"{100 * longer.accuracy:.1f}" if longer.outcome == "learned" else "n.c.",
    ]


def measure(activation: str, epochs: int, seeds: int) -> list[list[str]]:
    # Compiled once: `initialize` sets the weights and the optimizer back.
    model, patient = net(activation, epochs), net(activation, LONGER * epochs)
    rows = []
    for start in STARTS:
        runs = [train(model, start, seed, epochs) for seed in range(seeds)]
        stalled = all(run.outcome == "stalled" for run in runs)
        rows.append(
            row(activation, start, runs, train(patient, start, 0, LONGER * epochs) if stalled else None)
        )
        print(*rows[-1], sep=" | ", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one epoch and one seed; writes no table")
    quick = parser.parse_args().quick
    epochs, seeds = (1, 1) if quick else (EPOCHS, SEEDS)
    rows = [row for activation in ACTIVATIONS for row in measure(activation, epochs, seeds)]
    if quick:
        return
    report.write(
        f"lsuv_activations_{keras.backend.backend()}",
        "Which activations a thin net of 17 layers learns with",
        f"KERAS_BACKEND={keras.backend.backend()} python benchmarks/lsuv_activations.py",
        [
            *("activation", "start", "std of logits before", "test accuracy (%)", "range", "stalled"),
            *("diverged", f"{LONGER} times as long"),
        ],
        rows,
        f"scikit-learn's digits, {TRAIN} to train on and 360 to test on; {SEEDS} seeds. 16 convolutions of "
        "12, 16 and 24 channels (maxout: twice as many, in pairs), max pooling and a dense layer, without "
        f"normalization, dropout or augmentation. {EPOCHS} epochs of SGD, batch {BATCH}, momentum "
        f"{MOMENTUM}, one learning rate for all, {LEARNING_RATE}, a tenth of it for the last third. Mean and "
        f"range are of the seeds that learned. Stalled: test accuracy {100 * CHANCE:.0f}% or less. Diverged: "
        f"the loss is not a number. n.c.: no seed converged. {LONGER} times as long: the accuracy of one "
        f"seed after {LONGER * EPOCHS} epochs, where all had stalled after {EPOCHS}.",
    )


if __name__ == "__main__":
    main()
