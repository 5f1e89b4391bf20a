"""With CompleteP the best learning rate of a small Transformer is also that of large ones: Dey et al. 2025.

A decoder learns the characters of Python's own source by Adam. It grows from the base in width alone, and in
depth alone. A loss is the mean training loss of the last quarter of the steps. The optimum of a size is the
learning rate with the lowest loss, on the mean over the seeds.
"""

import pathlib
import sys
from typing import Any, NamedTuple

import numpy as np

import claim
import keras_initx as initx
import keras_initx.datasets
from mup2022 import MOVES, MUP, PLAIN, STAYS, Losses, optimum, prepared, told, train

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import decoder

CLAIM = claim.Claim(
    paper="Dey et al. 2025",
    link="https://arxiv.org/abs/2505.01618",
    statement="With muP and CompleteP the best learning rate of a narrow and shallow Transformer is also the "
    "best of wide and deep ones; otherwise it falls.",
    number="optima stay from 2 to 128 layers, and compute-optimal training saves 12 to 34 % (abstract)",
    checked=False,
)
BATCH, LENGTH = 32, 32
CHANCE = float(np.log(decoder.TOKENS))


class Size(NamedTuple):
    """The base, its greatest growth in width and in depth, the learning rates, and the steps of 32 rows."""

    seeds: int = 3
    width: int = 32
    depth: int = 2
    wide: int = 128
    deep: int = 8
    rates: tuple[float, ...] = tuple(2.0**power for power in range(-9, -4))
    steps: int = 100

    @property
    def models(self) -> dict[str, tuple[int, int]]:
        """Width and depth of the three models."""
        base = (self.width, self.depth)
        return {"base": base, "wide": (self.wide, self.depth), "deep": (self.width, self.deep)}


def measure_losses(size: Size) -> dict[str, Losses]:
    """Trains each start, model and learning rate from each seed; returns losses by what grows."""
    rows = initx.datasets.windows(initx.datasets.read_pysource().train, LENGTH)
    base = decoder.build(size.width, size.depth, length=LENGTH)
    found: dict[tuple[str, str, float], list[float]] = {}
    for name, (width, depth) in size.models.items():
        for start in (PLAIN, MUP):
            strategy: Any = "by_role"
            if start == MUP:
                if name == "base":  # there muP is the plain start
                    found |= {(MUP, name, rate): found[PLAIN, name, rate] for rate in size.rates}
                    continue
                strategy = initx.strategies.MuP(base=base, base_depth=size.depth)
            model = prepared(decoder.build(width, depth, length=LENGTH), strategy)
            for rate in size.rates:
                losses = [
                    train(model, strategy, rate, seed, size.steps, rows, BATCH, CHANCE)
                    for seed in range(size.seeds)
                ]
                found[start, name, rate] = losses
                print(f"{start}, {name}, learning rate {told(rate)}: {np.round(losses, 3)}", flush=True)
    sizes = {
        "width": {"base": size.width, "wide": size.wide},
        "depth": {"base": size.depth, "deep": size.deep},
    }
    return {
        grown: {(s, of[name], rate): v for (s, name, rate), v in found.items() if name in of}
        for grown, of in sizes.items()
    }


def judge(measured: dict[str, Losses]) -> tuple[str, list[claim.Criterion]]:
    """Returns the sentence of the page, and the criteria."""
    sentences, criteria = [], []
    for grown, losses in measured.items():
        small, large = sorted({size for _, size, _ in losses})
        best = {
            (start, size): optimum(losses, start, size) for start in (PLAIN, MUP) for size in (small, large)
        }
        rate = best[MUP, small]
        lead = claim.difference(losses[MUP, small, rate], losses[MUP, large, rate])
        moved = best[PLAIN, small] / best[PLAIN, large]
        plain = losses[PLAIN, large, best[PLAIN, large]]
        sentences.append(
            f"Best learning rates at {grown} {small}: {told(rate)}; at {grown} {large}: plain "
            f"{told(best[PLAIN, large])}, muP {told(best[MUP, large])}. At {told(rate)} the loss of {grown} "
            f"{large} under muP is {claim.interval(losses[MUP, large, rate])}, lower by {lead} than that of "
            f"{small}; the plain one has {claim.interval(losses[PLAIN, large, rate])} there, and "
            f"{claim.interval(plain)} at its own best."
        )
        criteria += [
            claim.Criterion(
                f"{grown}: the optimum of muP stays within a factor of {STAYS}",
                1 / STAYS <= best[MUP, large] / rate <= STAYS,
            ),
            claim.Criterion(
                f"{grown}: the plain optimum falls by {MOVES} or more (by {moved:g})", moved >= MOVES
            ),
            claim.Criterion(
                f"{grown}: at the small model's rate the mean loss of muP is lower at {large} (by "
                f"{np.mean(losses[MUP, small, rate]) - np.mean(losses[MUP, large, rate]):.3g})",
                bool(np.mean(losses[MUP, large, rate]) < np.mean(losses[MUP, small, rate])),
            ),
        ]
    return " ".join(sentences), criteria


def draw(measured: dict[str, Losses], path: pathlib.Path) -> None:
    """Draws the loss by learning rate, a panel for each growth, with the optima marked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # The colours of Okabe and Ito, which colour-blind readers can tell apart.
    colors = {PLAIN: "#E69F00", MUP: "#009E73"}
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4.4), sharey=True, layout="constrained")
    for axes, (grown, losses) in zip(panels, measured.items(), strict=True):
        small, large = sorted({size for _, size, _ in losses})
        for start, size, color in ((PLAIN, small, "#56B4E9"), *((s, large, c) for s, c in colors.items())):
            rates = sorted(rate for s, n, rate in losses if (s, n) == (start, size))
            found = np.array([losses[start, size, rate] for rate in rates])
            label = f"{grown} {size}" + ("" if size == small else f", {start}")
            axes.plot(rates, found.mean(axis=1), color=color, marker="o", label=label)
            axes.fill_between(rates, found.min(axis=1), found.max(axis=1), color=color, alpha=0.2)
            best = int(found.mean(axis=1).argmin())
            axes.plot(rates[best], found[best].mean(), "*", color=color, markersize=18, mec="black")
        axes.set_xscale("log", base=2)
        axes.set(title=f"{grown} {small} to {large}", xlabel="learning rate")
        axes.grid(alpha=0.3)
        axes.legend(title="star: optimum")
    panels[0].set(ylabel="training loss, last quarter of the steps")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main() -> None:
    measured: dict[str, Losses] = {}

    def measure(size: Size) -> tuple[str, list[claim.Criterion]]:
        measured.update(measure_losses(size))
        return judge(measured)

    claim.reproduce(
        CLAIM,
        measure,
        quick=Size(1, 16, 1, 32, 2, rates=(2.0**-9, 2.0**-6), steps=8),
        default=Size(),
        full=Size(wide=256, deep=16),
        draw=lambda path: draw(measured, path),
    )


if __name__ == "__main__":
    main()
