"""Gives a trained body a new head from a few labels, and shows which first weights of the head are best.

The body, a small convnet, learns five classes of Fashion-MNIST. It never sees the other five. For these a
new head starts from 1, 5, 20 or 100 images of each class, in four ways:

    random        the kernel by its fans, as `initialize` draws it
    prior         also the bias, with the frequencies of the classes (`LabelPrior`)
    class means   each class' mean unit feature (`ClassMeans`)
    linear probe  ridge regression on the features (`LinearProbe`)

Then the whole net is fine-tuned on the same images. From the linear probe this is LP-FT (Kumar et al. 2022).
The accuracies are those of the five classes' test images, with 95 % intervals over the seeds. Each seed has
its own body and its own few images.

    python examples/transfer.py
    python examples/transfer.py --shots 1 5 --seeds 3
"""

import argparse
import math
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parent / "reproduce"))

import keras
import numpy as np
from keras import layers

import claim
import keras_initx as initx
import keras_initx.datasets

# T-shirt, trouser, pullover, dress, coat; and sandal, shirt, sneaker, bag, boot.
OLD, NEW = range(5), range(5, 10)
STARTS = {"random": None, "prior": "LabelPrior", "class means": "ClassMeans", "linear probe": "LinearProbe"}
BATCH = 64
STEPS = 100  # of fine-tuning
RATE = 3e-4  # of fine-tuning; the body is trained at 1e-3

# Accuracies by seed, by start, shots, and whether the net was fine-tuned.
Accuracies = dict[tuple[str, int, bool], list[float]]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 20, 100], help="images of each class")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--body-steps", type=int, default=600, help="steps of 64 images of the old classes")
    parser.add_argument("--figure", type=pathlib.Path, help="file of a picture")
    arguments = parser.parse_args()
    if min(arguments.shots) < 1 or arguments.seeds < 1 or arguments.body_steps < 1:
        parser.error("--shots, --seeds and --body-steps must be at least 1.")
    return arguments


def read() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns standardized images and labels: `old`, `new` and `test`; labels of each five count from 0."""
    images = initx.datasets.read_fashion_mnist()
    (x, y), (x_test, y_test) = images.train, images.test
    mean, std = float(x.mean()), float(x.std())

    def chosen(pixels: np.ndarray, labels: np.ndarray, classes: range) -> tuple[np.ndarray, np.ndarray]:
        rows = np.isin(labels, classes)
        scaled = (pixels[rows].reshape(-1, 28, 28, 1).astype("float32") - mean) / std
        return scaled, (labels[rows] - classes[0]).astype("int32")

    return {"old": chosen(x, y, OLD), "new": chosen(x, y, NEW), "test": chosen(x_test, y_test, NEW)}


def build_model() -> keras.Model:
    """Returns a convnet whose head has five classes."""
    inputs = x = keras.Input((28, 28, 1))
    for block, width in enumerate((16, 32, 64)):
        x = layers.Conv2D(width, 3, strides=2, padding="same", activation="relu", name=f"conv{block}")(x)
    x = layers.Dense(64, "relu", name="features")(layers.Flatten(name="flatten")(x))
    return keras.Model(inputs, layers.Dense(5, name="head")(x))


def compiled(model: keras.Model, rate: float) -> keras.Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return model


def train(model: keras.Model, data: tuple[np.ndarray, np.ndarray], steps: int, seed: int) -> None:
    """Takes steps on batches that are drawn from the data."""
    x, y = data
    rows = np.random.default_rng(seed).integers(0, len(y), steps * BATCH)
    model.fit(x[rows], y[rows], batch_size=BATCH, shuffle=False, verbose=0)


def few(data: tuple[np.ndarray, np.ndarray], shots: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws as many images of each class."""
    x, y = data
    draw = np.random.default_rng((seed, shots))
    own = [draw.choice(np.flatnonzero(y == label), shots, replace=False) for label in range(5)]
    rows = np.concatenate(own)
    return x[rows], y[rows]


def measure(arguments: argparse.Namespace) -> Accuracies:
    data, found = read(), Accuracies()
    model = compiled(build_model(), RATE)
    for seed in range(arguments.seeds):
        initx.initialize(model, seed=seed)
        model.optimizer.learning_rate = 1e-3
        train(model, data["old"], arguments.body_steps, seed)
        body = model.get_weights()
        model.optimizer.learning_rate = RATE
        for shots in arguments.shots:
            images, labels = few(data["new"], shots, seed)
            for name, law in STARTS.items():
                model.set_weights(body)
                # The head is drawn anew, and the slots of the optimizer are set back.
                initx.initialize(model, include="head", seed=seed)
                if law:
                    initx.calibrate(model, (images, labels), law, include="head")
                for tuned in (False, True):
                    if tuned:
                        train(model, (images, labels), STEPS, seed)
                    accuracy = model.evaluate(*data["test"], batch_size=500, verbose=0)[1]
                    found.setdefault((name, shots, tuned), []).append(float(accuracy))
        print(f"seed {seed}: done", flush=True)
    return found


def within(interval: claim.Interval, form: str) -> str:
    """Returns the ends of an interval as text; nothing for the interval of one seed, which has no ends."""
    return f" [{interval.low:{form}}, {interval.high:{form}}]" if math.isfinite(interval.low) else ""


def show(found: Accuracies, shots: list[int]) -> None:
    """Prints accuracies, and what the start of LP-FT gains over the random one."""
    for tuned in (False, True):
        when = "after fine-tuning" if tuned else "of the start itself"
        print(f"\nAccuracy {when} (%), by images of each class")
        print(f"{'head':<14}" + "".join(f"{n:>22}" for n in shots))
        for name in STARTS:
            cells = [claim.interval([100 * a for a in found[name, n, tuned]]) for n in shots]
            told = [f"{c.mean:.1f}{within(c, '.1f')}" for c in cells]
            print(f"{name:<14}" + "".join(f"{cell:>22}" for cell in told))
    print("\nFine-tuning from the linear probe (LP-FT) against plain fine-tuning, percentage points:")
    for n in shots:
        ahead, plain = ([100 * a for a in found[name, n, True]] for name in ("linear probe", "random"))
        gain = claim.difference(ahead, plain)
        word = "ahead" if gain.low > 0 else "behind" if gain.high < 0 else "no difference shown"
        print(f"  {n:>4} images: {gain.mean:+.1f}{within(gain, '+.1f')}: {word}")
    if len(found["random", shots[0], True]) < 2:
        print("\nAn interval needs two seeds: pass --seeds 2 or more.")


def draw(found: Accuracies, shots: list[int], path: pathlib.Path) -> None:
    """Draws accuracy by images of each class, before and after fine-tuning."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colors = ("#000000", "#E69F00", "#56B4E9", "#009E73")  # Okabe and Ito
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4.4), sharey=True, layout="constrained")
    for axes, tuned in zip(panels, (False, True), strict=True):
        for color, name in zip(colors, STARTS, strict=True):
            cells = [claim.interval([100 * a for a in found[name, n, tuned]]) for n in shots]
            means = [c.mean for c in cells]
            errors = None
            if all(math.isfinite(c.low) for c in cells):
                errors = [[c.mean - c.low for c in cells], [c.high - c.mean for c in cells]]
            axes.errorbar(shots, means, errors, color=color, marker="o", capsize=3, label=name)
        axes.axhline(20, color="gray", linestyle="--", label="chance")
        axes.set_xscale("log")
        axes.set_xticks(shots, [str(n) for n in shots])
        axes.set(title="after fine-tuning" if tuned else "first weights", xlabel="images of each class")
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="accuracy on new classes (%)")
    panels[0].legend()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main() -> None:
    arguments = parse_arguments()
    found = measure(arguments)
    show(found, arguments.shots)
    if arguments.figure:
        draw(found, arguments.shots, arguments.figure)


if __name__ == "__main__":
    main()
