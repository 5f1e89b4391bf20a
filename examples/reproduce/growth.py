"""A large model grown from a trained small one learns faster than from scratch: Samragh et al. 2024.

A decoder learns the characters of Python's own source by Adam. The large model has twice the width of one
small model, and twice the depth of another. From scratch it starts by `by_role`. It is grown in width by
clones, without noise and with noise, and in depth by stacking, or with new blocks that begin at zero. Small
models learn as many steps as the large one from scratch. After half of them, clones saved no steps.

The loss is that on rows that are held out, every 20 steps. The target of a seed is the lowest loss from
scratch. Counted are the steps to the target, and the seconds: of the start, of the steps, and of the small
model's start and steps. A step takes the median time of its model, without compilation and evaluation.

The large model sees the same batches from all starts of a seed; small models see others. The learning rate
of a start is the one of the same grid that takes the fewest steps to the target on a seed of its own; for the
small models, and from scratch, it is the one with the lowest loss.
"""

import pathlib
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

import claim
import keras_initx as initx
import keras_initx.datasets
from mup2022 import prepared, told

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import decoder

CLAIM = claim.Claim(
    paper="Samragh et al. 2024",
    link="https://arxiv.org/abs/2409.12903",
    statement="A large model that is grown from a trained small one, in width or in "
    "[depth](https://arxiv.org/abs/2110.07143), reaches the loss from scratch in fewer steps, and in less "
    "time with the small model's training included.",
    number="HyperCloning: 2.2 to 4 times faster; bert2BERT: about 45 % of the cost saved",
    checked=False,
)
SCRATCH, NARROW, SHALLOW = "from scratch", "half the width", "half the depth"
# For each growth the small model, and the arguments of `FromModel`.
GROWTHS: dict[str, tuple[str, dict[str, Any]]] = {
    "clones": (NARROW, {"width": "clone"}),
    "clones with noise": (NARROW, {"width": "clone", "noise": 0.3}),
    "stacked": (SHALLOW, {"depth": "stack"}),
    "new blocks at zero": (SHALLOW, {"depth": "identity"}),
}
STARTS = (SCRATCH, NARROW, *list(GROWTHS)[:2], SHALLOW, *list(GROWTHS)[2:])  # each after its small model
BATCH, LENGTH, EVERY, HELD_OUT = 16, 32, 20, 128


class Size(NamedTuple):
    """The large model, which small ones have half of, the learning rates, and the steps of 16 rows."""

    seeds: int = 3
    width: int = 64
    depth: int = 4
    rates: tuple[float, ...] = tuple(2.0**power for power in range(-9, -5))
    steps: int = 400
    small_steps: int = 400

    @property
    def models(self) -> dict[str, tuple[int, int]]:
        """Width and depth of the large model, and of the small ones."""
        return {
            SCRATCH: (self.width, self.depth),
            NARROW: (self.width // 2, self.depth),
            SHALLOW: (self.width, self.depth // 2),
        }


class Run(NamedTuple):
    """The losses at every 20 steps, from step 0 on, and the seconds that the start took."""

    losses: list[float]
    start_seconds: float

    def steps_to(self, target: float) -> float:
        """Returns the steps after which the loss is at most the target; infinity if it never is."""
        return next((number * EVERY for number, loss in enumerate(self.losses) if loss <= target), np.inf)

    @property
    def steps(self) -> int:
        return (len(self.losses) - 1) * EVERY


class Measured(NamedTuple):
    """Runs by start and seed, the learning rates by start, and the seconds of a step by model."""

    runs: dict[str, list[Run]]
    rates: dict[str, float]
    seconds: dict[str, float]


class Trainer:
    """The models, each compiled once for all runs, the text, and the seconds of the steps of each model."""

    def __init__(self, size: Size) -> None:
        self.size = size
        text = initx.datasets.read_pysource()
        self.rows = initx.datasets.windows(text.train, LENGTH)
        held_out = initx.datasets.windows(text.test, LENGTH)
        chosen = np.random.default_rng(0).permutation(len(held_out[0]))[:HELD_OUT]
        self.held_out = (held_out[0][chosen], held_out[1][chosen])
        self.models = {
            name: prepared(decoder.build(width, depth, length=LENGTH), "by_role")
            for name, (width, depth) in size.models.items()
        }
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    def run(self, start: str, rate: float, seed: int, until: float = -np.inf) -> Run:
        """Trains a small model, or the large one from a start, at most until a loss."""
        small = start in (NARROW, SHALLOW)
        model = self.models[start if small else SCRATCH]
        steps = self.size.small_steps if small else self.size.steps
        strategy: Any = "by_role"
        if start in GROWTHS:
            donor, arguments = GROWTHS[start]
            strategy = initx.strategies.FromModel(self.models[donor], **arguments)
        began = time.perf_counter()
        initx.initialize(model, strategy, seed=seed)
        took = time.perf_counter() - began
        run = Run([self._loss(model)], took)
        model.optimizer.learning_rate = rate
        order = np.random.default_rng(seed).permutation(len(self.rows[0]))
        order = order[-steps * BATCH :] if small else order[: steps * BATCH]
        for part in np.split(order, steps // EVERY):
            began = time.perf_counter()
            x, y = (array[part] for array in self.rows)
            model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
            self.seconds[model.name].append((time.perf_counter() - began) / EVERY)
            run.losses.append(self._loss(model))
            if run.losses[-1] <= until:
                break
        return run

    def _loss(self, model: keras.Model) -> float:
        return model.evaluate(*self.held_out, batch_size=HELD_OUT, verbose=0)


def measure_runs(size: Size) -> Measured:
    """Chooses the learning rates on a seed of its own, and runs each start from each of the other seeds."""
    trainer = Trainer(size)
    measured = Measured({start: [] for start in STARTS}, {}, {})
    target = -np.inf  # which no run reaches: the first start, from scratch, sets it
    for start in STARTS:
        until = target if start in GROWTHS else -np.inf
        runs = {rate: trainer.run(start, rate, size.seeds, until) for rate in size.rates}
        measured.rates[start] = best = choose(runs, until)
        if start == SCRATCH:
            target = min(runs[best].losses)
        elif start in (NARROW, SHALLOW):
            trainer.run(start, best, size.seeds)  # once more: growths take the weights of the last run
        for rate, run in runs.items():
            print(f"{start}, {told(rate)}: {min(run.losses):.3f} in {run.steps} steps", flush=True)
    for seed in range(size.seeds):
        for start in STARTS:
            run = trainer.run(start, measured.rates[start], seed)
            measured.runs[start].append(run)
            print(f"seed {seed}, {start}: lowest loss {min(run.losses):.3f}", flush=True)
    for name, model in trainer.models.items():
        measured.seconds[name] = float(np.median(trainer.seconds[model.name]))
    return measured


def choose(runs: Mapping[float, Run], target: float) -> float:
    """Returns the learning rate that takes the fewest steps to the target, or else has the lowest loss."""
    return min(runs, key=lambda rate: (runs[rate].steps_to(target), min(runs[rate].losses)))


class Cost(NamedTuple):
    """What a run took to the loss from scratch: all that it took if it did not get there."""

    there: bool
    steps: float
    seconds: float


def costs(measured: Measured, start: str) -> list[Cost]:
    """Returns the costs of a start by seed, those of the small model included."""
    found = []
    for seed, run in enumerate(measured.runs[start]):
        taken = run.steps_to(min(measured.runs[SCRATCH][seed].losses))
        steps = min(taken, run.steps)
        seconds = run.start_seconds + steps * measured.seconds[SCRATCH]
        if start in GROWTHS:
            small = GROWTHS[start][0]
            before = measured.runs[small][seed]
            seconds += before.start_seconds + before.steps * measured.seconds[small]
        found.append(Cost(taken <= run.steps, steps, seconds))
    return found


def judge(measured: Measured) -> tuple[str, list[claim.Criterion]]:
    """Returns the sentence of the page, and the criteria."""

    def lowest(start: str) -> claim.Interval:
        return claim.interval([min(run.losses) for run in measured.runs[start]])

    def told_of(start: str) -> str:
        return f"{start} ({told(measured.rates[start])})"

    scratch = costs(measured, SCRATCH)
    said = [
        f"From scratch ({told(measured.rates[SCRATCH])}): lowest loss {lowest(SCRATCH)}, after "
        f"{claim.interval([cost.steps for cost in scratch])} steps of {measured.seconds[SCRATCH]:.2g} s"
    ]
    for small in (NARROW, SHALLOW):
        alone, steps = sum(cost.there for cost in costs(measured, small)), measured.runs[small][0].steps
        said.append(
            f"the model of {told_of(small)} has {lowest(small)} after {steps} steps of "
            f"{measured.seconds[small]:.2g} s, and is there without growth in {alone} of {len(scratch)} seeds"
        )
    criteria = []
    for growth in GROWTHS:
        found = costs(measured, growth)
        late = sum(not cost.there for cost in found)
        saved = {
            of: claim.interval(
                [1 - getattr(a, of) / getattr(b, of) for a, b in zip(found, scratch, strict=True)]
            )
            for of in ("steps", "seconds")
        }
        said.append(
            f"{told_of(growth)}: {claim.interval([cost.steps for cost in found])} steps"
            + (f" ({late} of {len(found)} not there)" if late else "")
            + "".join(f", saves {share} of the {of}" for of, share in saved.items())
        )
        criteria += [
            claim.Criterion(
                f"{growth}: the share of {of} saved is above 0: {share}", not late and share.low > 0
            )
            for of, share in saved.items()
        ]
    return "; ".join(said) + ".", criteria


def draw(measured: Measured, path: pathlib.Path) -> None:
    """Draws the loss by steps of the large model, and by the seconds with those of the small model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # The colours of Okabe and Ito, which colour-blind readers can tell apart.
    colors = ("#000000", "#E69F00", "#D55E00", "#56B4E9", "#009E73")
    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    by_steps, by_seconds = panels
    target = np.mean([min(run.losses) for run in measured.runs[SCRATCH]])

    def seconds_of(start: str, model: str) -> tuple[np.ndarray, np.ndarray]:
        """The mean losses over the seeds, and the seconds that they took."""
        losses = np.mean([run.losses for run in measured.runs[start]], axis=0)
        begun = np.mean([run.start_seconds for run in measured.runs[start]])
        return begun + np.arange(len(losses)) * EVERY * measured.seconds[model], losses

    for start, color in zip((SCRATCH, *GROWTHS), colors, strict=True):
        found = np.array([run.losses for run in measured.runs[start]])
        steps = np.arange(found.shape[1]) * EVERY
        by_steps.plot(steps, found.mean(axis=0), color=color, label=start)
        by_steps.fill_between(steps, found.min(axis=0), found.max(axis=0), color=color, alpha=0.15)
        seconds, losses = seconds_of(start, SCRATCH)
        if start in GROWTHS:
            before, small_losses = seconds_of(GROWTHS[start][0], GROWTHS[start][0])
            by_seconds.plot(before, small_losses, color=color, linestyle="--", linewidth=1)
            seconds = seconds + before[-1]
        by_seconds.plot(seconds, losses, color=color)
    for axes in panels:
        axes.axhline(target, color="gray", linestyle=":")
        axes.grid(alpha=0.3)
    by_steps.set(xlabel="steps of the large model", ylabel="loss", ylim=(target - 0.2, target + 1.2))
    by_seconds.set(xlabel="seconds, with the small model's training (dashed)")
    by_steps.legend(title="band: all seeds; dots: from scratch")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main() -> None:
    found: list[Measured] = []

    def measure(size: Size) -> tuple[str, list[claim.Criterion]]:
        found.append(measure_runs(size))
        return judge(found[-1])

    claim.reproduce(
        CLAIM,
        measure,
        quick=Size(1, width=32, depth=2, rates=(2.0**-8,), steps=40, small_steps=20),
        default=Size(),
        full=Size(5, width=256, depth=8, steps=4000, small_steps=4000),
        draw=lambda path: draw(found[-1], path),
    )


if __name__ == "__main__":
    main()
