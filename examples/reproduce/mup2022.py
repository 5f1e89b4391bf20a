"""Under muP the best learning rate of a narrow net is also best for a wide net: Yang et al. 2022, figure 1.

The paper shows it for Transformers. Here a net of three ReLU layers learns Fashion-MNIST by Adam. A loss is
the mean training loss of the last quarter of the steps. The optimum of a width is the learning rate with the
lowest loss, on the mean over the seeds. All nets of a seed see the same batches.
"""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

import claim
import keras_initx as initx
import keras_initx.datasets

CLAIM = claim.Claim(
    paper="Yang et al. 2022",
    link="https://arxiv.org/abs/2203.03466",
    statement="Under muP the best learning rate stays as the width grows, and wider nets train better at it; "
    "otherwise the best learning rate falls.",
    number="the optimum of plain Transformers moves over widths 128 to 8192, under muP it stays (figure 1)",
    checked=False,
)
PLAIN, MUP = "plain", "muP"
BATCH = 64
CHANCE = float(np.log(10))
STAYS, MOVES = 2, 4  # factors of the learning rate

# Losses by seed, by start, width and learning rate.
Losses = dict[tuple[str, int, float], list[float]]


class Size(NamedTuple):
    """The widths, of which the first is the base, the learning rates, and the steps of 64 images."""

    seeds: int = 3
    widths: tuple[int, ...] = (64, 256, 1024)
    rates: tuple[float, ...] = tuple(2.0**power for power in range(-13, -6))
    steps: int = 400


def net(width: int) -> keras.Model:
    hidden = [layers.Dense(width, "relu", name=f"hidden{number}") for number in (1, 2, 3)]
    return keras.Sequential([layers.Input((784,)), *hidden, layers.Dense(10, name="logits")])


def read() -> tuple[np.ndarray, np.ndarray]:
    """Returns the training images as standardized rows, and their labels."""
    pixels, labels = initx.datasets.read_fashion_mnist().train
    images = pixels.reshape(len(pixels), -1).astype("float32")
    return (images - images.mean()) / images.std(), labels


def prepared(model: keras.Model, start: Any) -> keras.Model:
    """Compiles a model once for all seeds and learning rates: `initialize` resets it."""
    adam = keras.optimizers.Adam()
    # The learning rates of muP follow from the widths alone, so those of one seed serve all.
    optimizer = initx.initialize(model, start, seed=0).optimizer(adam) if start != "by_role" else adam
    backend = keras.backend.backend()
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=backend == "jax",
        steps_per_execution=1 if backend == "torch" else 20,
    )
    return model


def train(
    model: keras.Model,
    start: Any,
    rate: float,
    seed: int,
    steps: int,
    data: tuple[np.ndarray, np.ndarray],
    batch: int = BATCH,
    chance: float = CHANCE,
) -> float:
    """Returns the mean loss of the last quarter of the steps, or the loss of chance if it is not finite."""
    initx.initialize(model, start, seed=seed)
    model.optimizer.learning_rate = rate
    order = np.random.default_rng(seed).permutation(len(data[1]))[: steps * batch]
    for part in np.split(order, [(steps - steps // 4) * batch]):
        x, y = (array[part] for array in data)
        (loss,) = model.fit(x, y, batch_size=batch, shuffle=False, verbose=0).history["loss"]
    return loss if np.isfinite(loss) else chance


def measure_losses(size: Size, losses: Losses) -> None:
    """Trains each start, width and learning rate from each seed."""
    data = read()
    for start, width in [(start, width) for start in (PLAIN, MUP) for width in size.widths]:
        if start == MUP and width == size.widths[0]:  # at the width of the base, muP is the plain net
            losses |= {(MUP, width, rate): losses[PLAIN, width, rate] for rate in size.rates}
            continue
        strategy = initx.strategies.MuP(base=net(size.widths[0])) if start == MUP else "by_role"
        model = prepared(net(width), strategy)
        for rate in size.rates:
            found = [train(model, strategy, rate, seed, size.steps, data) for seed in range(size.seeds)]
            losses[start, width, rate] = found
            print(f"{start}, width {width}, learning rate {told(rate)}: {np.round(found, 3)}", flush=True)


def told(rate: float) -> str:
    return f"2^{np.log2(rate):g}"


def optimum(losses: Losses, start: str, size: int) -> float:
    """Returns the learning rate with the lowest mean loss."""
    means = {rate: np.mean(found) for (s, n, rate), found in losses.items() if (s, n) == (start, size)}
    return min(means, key=lambda rate: means[rate])


def judge(losses: Losses, widths: tuple[int, ...]) -> tuple[str, list[claim.Criterion]]:
    """Returns the sentence of the page, and the criteria."""
    best = {(start, width): optimum(losses, start, width) for start in (PLAIN, MUP) for width in widths}
    narrow, wide = widths[0], widths[-1]
    rate = best[MUP, narrow]
    at_rate = {width: losses[MUP, width, rate] for width in widths}
    stays = all(1 / STAYS <= best[MUP, width] / rate <= STAYS for width in widths)
    moved = best[PLAIN, narrow] / best[PLAIN, wide]
    lead = min(np.mean(at_rate[width]) for width in widths[:-1]) - np.mean(at_rate[wide])
    said = "; ".join(
        f"{start}: " + ", ".join(f"{told(best[start, width])} at width {width}" for width in widths)
        for start in (PLAIN, MUP)
    )
    leads = ", ".join(
        f"{claim.difference(at_rate[width], at_rate[wide])} than of {width}" for width in widths[:-1]
    )
    lost = claim.difference(losses[PLAIN, wide, rate], losses[PLAIN, wide, best[PLAIN, wide]])
    sentence = (
        f"Best learning rates: {said}. At {told(rate)}, the narrow net's, the loss of width {wide} under muP "
        f"is {claim.interval(at_rate[wide])}, lower by {leads}; the plain net of width {wide} loses {lost} "
        "there against its own best."
    )
    return sentence, [
        claim.Criterion(f"under muP all optima are within a factor of {STAYS} of width {narrow}'s", stays),
        claim.Criterion(
            f"the plain optimum falls by {MOVES} or more from width {narrow} to {wide} (by {moved:g})",
            moved >= MOVES,
        ),
        claim.Criterion(
            f"at the narrow net's rate the mean loss under muP is lowest at width {wide} (by {lead:.3g})",
            bool(lead > 0),
        ),
    ]


def measure(size: Size, losses: Losses) -> tuple[str, list[claim.Criterion]]:
    measure_losses(size, losses)
    return judge(losses, size.widths)


def draw(losses: Mapping[tuple[str, int, float], list[float]], path: pathlib.Path) -> None:
    """Draws the loss by learning rate, a line for each width, with the optima marked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # The colours of Okabe and Ito, which colour-blind readers can tell apart.
    colors = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7")
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4.4), sharey=True, layout="constrained")
    for axes, start in zip(panels, (PLAIN, MUP), strict=True):
        for color, width in zip(colors, sorted({width for _, width, _ in losses}), strict=False):
            rates = sorted(rate for s, w, rate in losses if (s, w) == (start, width))
            found = np.array([losses[start, width, rate] for rate in rates])
            axes.plot(rates, found.mean(axis=1), color=color, marker="o", label=f"width {width}")
            axes.fill_between(rates, found.min(axis=1), found.max(axis=1), color=color, alpha=0.2)
            best = int(found.mean(axis=1).argmin())
            axes.plot(rates[best], found[best].mean(), "*", color=color, markersize=18, mec="black")
        axes.set_xscale("log", base=2)
        axes.set(title=start, xlabel="learning rate")
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="training loss, last quarter of the steps")
    panels[0].legend(title="star: optimum")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main() -> None:
    losses: Losses = {}
    claim.reproduce(
        CLAIM,
        lambda size: measure(size, losses),
        quick=Size(1, widths=(16, 32), rates=(2.0**-10, 2.0**-7), steps=8),
        default=Size(),
        full=Size(5, widths=(64, 256, 1024, 4096)),
        draw=lambda path: draw(losses, path),
    )


if __name__ == "__main__":
    main()
