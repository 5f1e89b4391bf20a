"""A small model learns more from little data if it starts with weights of a large one: Xu et al. 2024.

The paper takes weights of ViTs and ConvNeXts that learned ImageNet-21K. Here the donor is a vision
transformer that learned all 30,000 training images of five classes of Fashion-MNIST: sandals, shirts,
sneakers, bags and ankle boots. A model of half the width and half the depth learns the other five classes
from a few images: T-shirts, trousers, pullovers, dresses and coats, of which the donor saw no image. Its head
is drawn anew.

A seed is another choice of the few images, another order of them, and another start. All starts of a seed see
the same batches. There is one donor. The learning rate of a start is the best of the same grid for each, by
the mean accuracy over the seeds on 1,000 training images that are held out. The accuracies are those on the
5,000 test images of the five classes.
"""

import pathlib
import sys
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

import claim
import keras_initx as initx
import keras_initx.datasets

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import decoder

CLAIM = claim.Claim(
    paper="Xu et al. 2024",
    link="https://arxiv.org/abs/2311.18823",
    statement="A small model that starts from weights selected from a larger pretrained one reaches a higher "
    "accuracy than from a random start; the first layers serve better than evenly spaced ones.",
    number="CIFAR-100: ViT-T 72.4 % to 81.4 %, ConvNeXt-F 81.3 % to 84.4 % (the authors' README)",
    checked=False,
)
DONOR_CLASSES, CLASSES = range(5, 10), range(5)
PATCH, BATCH, HELD_OUT = 7, 50, 1000
KERAS, BY_ROLE, FIRST, UNIFORM = "Keras' default", "by_role", "the first layers", "evenly spaced layers"
RANDOM, SELECTED = (KERAS, BY_ROLE), (FIRST, UNIFORM)
DONOR_RATE = 1e-3

Images = tuple[np.ndarray, np.ndarray]
# Accuracies by seed on the images held out, and on those of the test, by start, images and learning rate.
Accuracies = dict[tuple[str, int, float], tuple[list[float], list[float]]]


class Size(NamedTuple):
    """The numbers of images to learn from, the learning rates, and the steps of 50 images."""

    seeds: int = 5
    few: tuple[int, ...] = (100, 500)
    rates: tuple[float, ...] = (0.0003, 0.001, 0.003)
    steps: int = 300
    donor_steps: int = 1200
    width: int = 64  # of the donor, as its depth
    depth: int = 6


def net(width: int, depth: int) -> keras.Model:
    """A vision transformer on 16 patches of 7x7 pixels, with heads of 16 units, for five classes."""
    images = keras.Input((28, 28, 1), name="images")
    x = layers.Conv2D(width, PATCH, strides=PATCH, name="patches")(images)
    x = layers.Reshape((-1, width), name="sequence")(x)
    x = x + decoder.embed_positions(x[..., 0], width)
    for number in range(1, depth + 1):
        heads = width // decoder.HEAD_WIDTH
        x = decoder.block(x, f"block{number}", heads, 4 * width, "gelu", "glorot_uniform")
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    return keras.Model(images, layers.Dense(len(CLASSES), name="head")(x), name=f"vit_{width}x{depth}")


def read() -> tuple[Images, Images, Images]:
    """Returns the images of the donor, and those of the other classes to learn from and to test."""
    images = initx.datasets.read_fashion_mnist()
    mean, std = images.train[0].mean(), images.train[0].std()

    def of(part: Images, classes: range) -> Images:
        chosen = np.isin(part[1], classes)
        return ((part[0][chosen] - mean) / std).astype("float32"), part[1][chosen] - classes[0]

    return of(images.train, DONOR_CLASSES), of(images.train, CLASSES), of(images.test, CLASSES)


def compiled(model: keras.Model) -> keras.Model:
    """Compiles a model once for all seeds and learning rates: `initialize` resets it."""
    backend = keras.backend.backend()
    model.compile(
        keras.optimizers.Adam(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=backend == "jax",
        steps_per_execution=1 if backend == "torch" else 20,
    )
    return model


def train(model: keras.Model, data: Images, rate: float, steps: int, generator: np.random.Generator) -> None:
    """Trains for a number of steps, in a new order of the images at each pass."""
    model.optimizer.learning_rate = rate
    passes = -(-steps * BATCH // len(data[1]))
    order = np.concatenate([generator.permutation(len(data[1])) for _ in range(passes)])[: steps * BATCH]
    model.fit(data[0][order], data[1][order], batch_size=BATCH, shuffle=False, verbose=0)


def accuracy(model: keras.Model, data: Images) -> float:
    logits = model.predict(data[0], batch_size=500, verbose=0)
    return float((logits.argmax(axis=-1) == data[1]).mean())


def trained_donor(size: Size, data: Images) -> keras.Model:
    donor = compiled(net(size.width, size.depth))
    initx.initialize(donor, seed=0)
    train(donor, data, DONOR_RATE, size.donor_steps, np.random.default_rng(0))
    return donor


def few_images(data: Images, number: int, generator: np.random.Generator) -> tuple[Images, Images]:
    """Returns equally many images of each class, and those that are held out."""
    order = generator.permutation(len(data[1]))
    by_class = [order[data[1][order] == label][: number // len(CLASSES)] for label in CLASSES]
    chosen = np.concatenate(by_class)
    held_out = np.setdiff1d(order, chosen)[:HELD_OUT]
    return (data[0][chosen], data[1][chosen]), (data[0][held_out], data[1][held_out])


def measure_accuracies(size: Size, accuracies: Accuracies) -> float:
    """Trains each start, number of images and learning rate from each seed. Returns the donor's accuracy."""
    for_donor, learned, tested = read()
    donor = trained_donor(size, for_donor)
    donor_accuracy = accuracy(donor, for_donor)
    print(f"accuracy of the donor on its own images: {donor_accuracy:.3f}", flush=True)
    selected = {
        start: initx.strategies.FromModel(donor, width="select", depth=depth, mapping={"head": None})
        for start, depth in ((FIRST, "first"), (UNIFORM, "uniform"))
    }
    model = compiled(net(size.width // 2, size.depth // 2))
    for number in size.few:
        for start, strategy in {KERAS: None, BY_ROLE: "by_role", **selected}.items():
            for rate in size.rates:
                found: tuple[list[float], list[float]] = ([], [])
                for seed in range(size.seeds):
                    generator = np.random.default_rng(seed)
                    few, held_out = few_images(learned, number, generator)
                    initx.initialize(model, strategy, seed=seed)
                    train(model, few, rate, size.steps, generator)
                    for values, part in zip(found, (held_out, tested), strict=True):
                        values.append(accuracy(model, part))
                accuracies[start, number, rate] = found
                print(f"{number} images, {start}, rate {rate}: {np.round(found[1], 3)}", flush=True)
    return donor_accuracy


def best_rate(accuracies: Accuracies, start: str, number: int) -> float:
    """Returns the learning rate with the highest mean accuracy on the images that are held out."""
    means = {
        rate: np.mean(found[0]) for (s, n, rate), found in accuracies.items() if (s, n) == (start, number)
    }
    return max(means, key=lambda rate: means[rate])


def judge(accuracies: Accuracies, donor_accuracy: float) -> tuple[str, list[claim.Criterion]]:
    """Returns the sentence of the page, and the criteria."""
    sentences = [f"The donor's accuracy is {donor_accuracy:.3g} on the images that it learned."]
    criteria = []
    for number in sorted({number for _, number, _ in accuracies}):
        rates = {start: best_rate(accuracies, start, number) for start in (*RANDOM, *SELECTED)}
        found = {start: accuracies[start, number, rate][1] for start, rate in rates.items()}
        said = ", ".join(
            f"{claim.interval(found[start])} from {start} (learning rate {rates[start]:g})" for start in found
        )
        sentences.append(f"Test accuracy after {number} images: {said}.")
        for other in (*RANDOM, UNIFORM):
            lead = claim.difference(found[FIRST], found[other])
            criteria.append(
                claim.Criterion(f"{number} images: {FIRST} lead {other} by {lead}, above 0", lead.low > 0)
            )
    return " ".join(sentences), criteria


def draw(accuracies: Accuracies, path: pathlib.Path) -> None:
    """Draws the accuracy by learning rate, a panel for each number of images, the chosen rates marked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # The colours of Okabe and Ito, which colour-blind readers can tell apart.
    colors = {KERAS: "#CC79A7", BY_ROLE: "#E69F00", FIRST: "#009E73", UNIFORM: "#56B4E9"}
    numbers = sorted({number for _, number, _ in accuracies})
    figure, panels = pyplot.subplots(1, len(numbers), figsize=(10, 4.4), layout="constrained")
    for axes, number in zip(np.atleast_1d(panels), numbers, strict=True):
        for start, color in colors.items():
            rates = sorted(rate for s, n, rate in accuracies if (s, n) == (start, number))
            found = np.array([accuracies[start, number, rate][1] for rate in rates])
            axes.plot(rates, found.mean(axis=1), color=color, marker="o", label=start)
            axes.fill_between(rates, found.min(axis=1), found.max(axis=1), color=color, alpha=0.15)
            best = rates.index(best_rate(accuracies, start, number))
            axes.plot(rates[best], found[best].mean(), "*", color=color, markersize=18, mec="black")
        axes.set_xscale("log")
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.minorticks_off()
        axes.set(title=f"{number} images", xlabel="learning rate", ylabel="test accuracy")
        axes.grid(alpha=0.3)
    figure.legend(
        *axes.get_legend_handles_labels(), title="star: chosen rate; band: all seeds", loc="outside right"
    )
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main() -> None:
    accuracies: Accuracies = {}
    claim.reproduce(
        CLAIM,
        lambda size: judge(accuracies, measure_accuracies(size, accuracies)),
        quick=Size(1, few=(10,), rates=(0.001,), steps=20, donor_steps=20, depth=2),
        default=Size(),
        full=Size(10, few=(50, 100, 500, 2500), steps=2000, donor_steps=6000, width=128, depth=12),
        draw=lambda path: draw(accuracies, path),
    )


if __name__ == "__main__":
    main()
