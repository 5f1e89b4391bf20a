"""LSUV, orthonormal, He and Glorot: the activations with which a thin net of 17 layers learns.

After table 3 of Mishkin and Matas, 2016, with all its entries except the sigmoid.
"""

import functools
import math
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

import keras_initx as initx
from claim import Claim, Criterion, difference, digits, interval, reproduce

CLAIM = Claim(
    paper="Mishkin and Matas 2016",
    link="https://arxiv.org/abs/1511.06422",
    statement="LSUV trains thin nets of 17 layers with maxout, ReLU, very leaky ReLU and tanh, as well as "
    "other starts or better; those train, too, but for He's with maxout.",
    number="table 3, in that order: LSUV 93.94, 92.11, 92.97, 89.28 %; He n.c., 90.91, 92.43, 89.54 %; "
    "Glorot 91.75, 90.63, 92.27, 89.82 %",
    checked=False,
)
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
# From the authors' fitnet4_maxout_lsuv.prototxt (https://github.com/ducha-aiki/LSUVinit), for all starts and
# activations. The learning rate drops once here, and three times there.
BATCH, LEARNING_RATE, MOMENTUM = 128, 0.01, 0.9
CHANCE = 0.2  # a seed learned if its accuracy is above: twice the share of one of ten classes
MARGIN = 0.05  # LSUV is worse than another start if its accuracy may be this much lower


class Size(NamedTuple):
    """The passes over `images` images, the convolutions, and the activations, with maxout first."""

    seeds: int = 3
    epochs: int = 20
    images: int = 1437
    stages: tuple[tuple[int, int], ...] = STAGES
    activations: tuple[str, ...] = tuple(ACTIVATIONS)


class Run(NamedTuple):
    """The std of the logits before training, and loss and accuracy on the test images after training."""

    std: float
    loss: float
    accuracy: float

    @property
    def outcome(self) -> str:
        if not math.isfinite(self.loss):
            return "diverged"
        return "learned" if self.accuracy > CHANCE else "stalled"


def net(activation: str, size: Size) -> Any:
    """Returns convolutions and a dense layer, compiled. Maxout is the larger of two convolutions."""
    x = inputs = layers.Input((8, 8, 1))
    for stage, (depth, channels) in enumerate(size.stages, 1):
        for number in range(1, depth + 1):
            pieces = "ab" if activation == "maxout" else "a"
            convolutions = [
                layers.Conv2D(channels, 3, padding="same", name=f"conv{stage}_{number}{piece}")(x)
                for piece in pieces
            ]
            single = ACTIVATIONS[activation]
            x = single()(convolutions[0]) if single else layers.Maximum()(convolutions)
        x = layers.MaxPooling2D()(x) if stage < len(size.stages) else layers.GlobalMaxPooling2D()(x)
    model = keras.Model(inputs, layers.Dense(10, name="logits")(x))
    steps, backend = -(-size.images // BATCH), keras.backend.backend()
    drop = size.epochs * steps * 2 // 3
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([drop], [LEARNING_RATE, LEARNING_RATE / 10])
    model.compile(
        keras.optimizers.SGD(rate, momentum=MOMENTUM),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=1 if backend == "torch" else steps,  # otherwise Python takes half of the time
        jit_compile=backend == "jax",
    )
    return model


def train(model: Any, data: Any, start: str, seed: int, epochs: int) -> Run:
    """Resets the model and trains it. The order of the images depends on the seed alone."""
    x, y, test_x, test_y = data
    initx.initialize(model, STARTS[start], seed=seed)
    if start == "LSUV":
        initx.calibrate(model, x, STARTS[start])
    std = float(ops.convert_to_numpy(ops.std(model(test_x))))
    keras.utils.set_random_seed(seed)
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[keras.callbacks.TerminateOnNaN()])
    return Run(std, *model.evaluate(test_x, test_y, batch_size=len(test_x), verbose=0))


def cell(runs: list[Run]) -> str:
    """Formats the std of the logits before, the mean accuracy of the seeds that learned, and their number."""
    learned = [run.accuracy for run in runs if run.outcome == "learned"]
    others = {run.outcome for run in runs} - {"learned"}
    accuracy = f"{100 * np.mean(learned):.1f}" if learned else "n.c."
    failed = f", {len(learned)} of {len(runs)} ({', '.join(sorted(others))})" if others else ""
    return f"{min(run.std for run in runs):.2g} to {max(run.std for run in runs):.2g} | {accuracy}{failed}"


def table(size: Size) -> dict[tuple[str, str], list[Run]]:
    x, y, *test = digits()
    data = (x[: size.images], y[: size.images], *test)
    runs = {}
    for activation in size.activations:
        model = net(activation, size)  # once: `initialize` resets the weights and the optimizer
        for start in STARTS:
            runs[activation, start] = [
                train(model, data, start, seed, size.epochs) for seed in range(size.seeds)
            ]
            print(f"| {activation} | {start} | {cell(runs[activation, start])} |", flush=True)
    return runs


def learn(runs: dict[tuple[str, str], list[Run]], start: str, activations: tuple[str, ...]) -> Criterion:
    """Asks whether all runs of a start learn."""
    each = {name: sum(run.outcome == "learned" for run in runs[name, start]) for name in activations}
    seeds = len(runs[activations[0], start])
    short = [f"{name} {count} of {seeds}" for name, count in each.items() if count < seeds]
    text = f"from {start} all seeds learn with {', '.join(activations)}"
    return Criterion(f"{text} ({', '.join(short)})" if short else text, not short)


def no_worse(runs: dict[tuple[str, str], list[Run]], activation: str) -> Criterion:
    """Asks whether LSUV less each other start is above -MARGIN, with its whole interval.

    An interval that is too wide to tell fails.
    """
    accuracies = {start: [run.accuracy for run in runs[activation, start]] for start in STARTS}
    ahead = {start: difference(accuracies["LSUV"], accuracies[start]) for start in STARTS if start != "LSUV"}
    start = min(ahead, key=lambda start: ahead[start].low)
    text = f"{activation}: LSUV less {start} is {ahead[start]}, the interval is above {-MARGIN}"
    return Criterion(text, ahead[start].low > -MARGIN)


def measure(size: Size) -> tuple[str, list[Criterion]]:
    runs = table(size)
    names = size.activations
    maxout = [run.outcome for run in runs["maxout", "He"]]
    criteria = [
        learn(runs, "LSUV", names),
        learn(runs, "orthonormal", names),
        learn(runs, "He", names[1:]),
        learn(runs, "Glorot", names),
        Criterion(
            f"from He no seed learns with maxout ({maxout.count('learned')} did)", "learned" not in maxout
        ),
        *(no_worse(runs, name) for name in names),
    ]
    lsuv = [f"{name} {interval([run.accuracy for run in runs[name, 'LSUV']])}" for name in names]
    return f"Test accuracy from LSUV: {', '.join(lsuv)}.", criteria


def main() -> None:
    reproduce(
        CLAIM,
        measure,
        quick=Size(seeds=1, epochs=1, images=128, stages=((1, 4),), activations=("maxout", "tanh")),
        default=Size(),
        # The epochs and channels of the authors' solver and net.
        full=Size(seeds=5, epochs=230, stages=((5, 32), (6, 80), (5, 128))),
    )


if __name__ == "__main__":
    main()
