"""Whether the start of a low-rank adapter matters once its learning rate is tuned: Lee et al. 2026.

A decoder that learned Python's own source learns docstrings, and a net that learned the digits learns
Fashion-MNIST: `examples/adapted.py` has both. Nothing but adapters is trained, by Adam with a learning rate
that falls to a quarter. Alpha is the rank, as in Keras; rank-stable adapters count by the root of the rank.

A seed is another draw of the adapters and another order of the rows. All starts of a seed see the same
batches. The learning rate of a start and rank is the best of the same grid on a seed of its own, on rows for
validation. The common rate of a rank has the best mean over the starts there. All else is measured on the
other seeds, on rows that chose nothing. A spread is the worst start less the best one, both by their means
over the seeds: of text in percent of the loss, of images in points of accuracy.

Keras draws the adapter of a dense layer or convolution by its true fan, and that of a query or value not. So
text alone asks whether the true fan helps at first.
"""

import itertools
import pathlib
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

import claim
import keras_initx as initx
from mup2022 import told

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import adapted
import decoder

CLAIM = claim.Claim(
    paper="Lee et al. 2026",
    link="https://arxiv.org/abs/2602.04998",
    statement="Low-rank adapters come to nearly the same from all starts once the learning rate of each is "
    "tuned, and differ more at one common rate. This project's own claim: a query's and value's adapter with "
    "its true fan learns faster at first than Keras' own.",
    number='"similar peak performance (within 1-2%)" (abstract)',
    checked=True,
)
TEXT, IMAGES = "text", "images"
KERAS, LORA, STABLE = "Keras' own", "LoRA", "LoRA, rank-stable"
# Laws that need data have the names that `calibrate` takes.
STARTS: dict[str, Any] = {
    KERAS: None,
    LORA: "LoRA",
    STABLE: initx.strategies.LoRA(rank_stable=True),
    "OrthogonalLoRA": "OrthogonalLoRA",
    "PiSSA": "PiSSA",
    "OLoRA": "OLoRA",
    "EVA": "initx>EVA",
    "LoRAGA": "initx>LoRAGA",
}
EARLY, LIMIT = 10, 2.0
# The colours of Okabe and Ito, which colour-blind readers can tell apart.
COLORS = ("#000000", "#E69F00", "#D55E00", "#F0E442", "#009E73", "#56B4E9", "#0072B2", "#CC79A7")
CHANCE = float(np.log(decoder.TOKENS))
FALLS = (1, 0.75, 0.5, 0.25)  # of the learning rate
PROBED = 128  # rows that EVA and LoRA-GA see: those of the first steps


class Size(NamedTuple):
    """The ranks and learning rates, the decoder, and the steps: of adapters, and of the models before."""

    seeds: int = 3
    ranks: tuple[int, ...] = (4, 16)
    rates: tuple[float, ...] = tuple(2.0**power for power in range(-11, -2))
    width: int = 128
    depth: int = 2
    steps: int = 80
    image_steps: int = 160
    trained: int = 1500


class Run(NamedTuple):
    """The loss after the first 10 steps, and the loss and accuracy at the end."""

    early: float
    loss: float
    accuracy: float


# Runs by task, rank, start and learning rate: one by the rows for validation, and one of each seed.
Key = tuple[str, int, str, float]


class Measured(NamedTuple):
    before: dict[str, Run]  # of each task, without adapters
    tuning: dict[Key, Run]
    runs: dict[Key, list[Run]]


class Adapted:
    """A task's model with adapters of one rank, compiled once, and the weights of its starts."""

    def __init__(self, task: adapted.Task, steps: int, rank: int, start: str) -> None:
        self.task, self.steps = task, steps
        self.model = adapted.with_adapters(task, rank)
        if start == STABLE:
            initx.initialize(self.model, STARTS[STABLE])  # sets the alpha, which compiled steps hold
        adapted.compiled(self.model)
        self.weights = self.model.get_weights()
        self.starts: dict[tuple[str, int], list[np.ndarray]] = {}

    def run(self, start: str, rate: float, seed: int, rows: adapted.Rows) -> Run:
        """Trains the adapters from a start, and measures on the rows."""
        if (start, seed) not in self.starts:
            self.starts[start, seed] = self._started(start, seed)
        self.model.set_weights(self.starts[start, seed])
        for slot in self.model.optimizer.variables:
            slot.assign(np.zeros(slot.shape))
        task = self.task
        order = np.random.default_rng(seed).permutation(len(task.learned[1]))
        first, rest = np.split(order[: self.steps * task.batch], [EARLY * task.batch])
        adapted.train(self.model, task.learned, rate, task.batch, first)
        early, _ = self._measured(rows)
        for factor, part in zip(FALLS, np.array_split(rest.reshape(-1, task.batch), len(FALLS)), strict=True):
            adapted.train(self.model, task.learned, rate * factor, task.batch, part.ravel())
        return Run(early, *self._measured(rows))

    def before(self, rows: adapted.Rows) -> Run:
        """Measures the trained model on the rows: B is zero."""
        self.model.set_weights(self.weights)
        loss, accuracy = self._measured(rows)
        return Run(loss, loss, accuracy)

    def _measured(self, rows: adapted.Rows) -> tuple[float, float]:
        """Returns the loss, or that of chance if it is not finite, and the accuracy."""
        loss, accuracy = self.model.evaluate(*rows, batch_size=500, verbose=0)
        return loss if np.isfinite(loss) else CHANCE, accuracy

    def _started(self, start: str, seed: int) -> list[np.ndarray]:
        """Returns the weights of the model before its first step."""
        self.model.set_weights(self.weights)
        law = STARTS[start]
        if start == KERAS:
            adapted.draw_as_keras(self.model, seed)
        elif isinstance(law, str) and law.startswith("initx>"):
            order = np.random.default_rng(seed).permutation(len(self.task.learned[1]))[:PROBED]
            initx.calibrate(self.model, tuple(part[order] for part in self.task.learned), law, seed=seed)
        else:
            initx.initialize(self.model, law, seed=seed)
        return self.model.get_weights()


def measure_runs(size: Size) -> Measured:
    """Runs both tasks at each rank."""
    measured = Measured({}, {}, {})
    tasks = {
        TEXT: (adapted.text(size.width, size.depth, size.trained), size.steps),
        IMAGES: (adapted.images(size.trained // 3), size.image_steps),
    }
    for (name, (task, steps)), rank in itertools.product(tasks.items(), size.ranks):
        plain, stable = (Adapted(task, steps, rank, start) for start in (LORA, STABLE))
        measured.before[name] = plain.before(task.tested)
        models = {start: stable if start == STABLE else plain for start in STARTS}
        for start, rate in itertools.product(STARTS, size.rates):
            run = models[start].run(start, rate, size.seeds, task.chosen_by)
            measured.tuning[name, rank, start, rate] = run
            print(f"{name}, rank {rank}, {start}, {told(rate)}: {score(name, run):.4g}", flush=True)
        tuned, common = choose_rates(measured, name, rank)
        for start, model in models.items():
            for rate in sorted({tuned[start], common, tuned[KERAS] if start == LORA else common}):
                runs = [model.run(start, rate, seed, task.tested) for seed in range(size.seeds)]
                measured.runs[name, rank, start, rate] = runs
                found = [f"{score(name, run):.4g}" for run in runs]
                print(f"{name}, rank {rank}, {start}, {told(rate)}: tested {found}", flush=True)
    return measured


def score(task: str, run: Run) -> float:
    """Returns what should be small: the loss of text, and the errors on images in percent."""
    return run.loss if task == TEXT else 100 * (1 - run.accuracy)


def scores_of(measured: Measured, key: Key) -> np.ndarray:
    """Returns the scores by seed on the tested rows."""
    return np.array([score(key[0], run) for run in measured.runs[key]])


def choose_rates(measured: Measured, task: str, rank: int) -> tuple[dict[str, float], float]:
    """Returns the learning rate of each start, and the common one, by the rows for validation."""
    rates = sorted({rate for *_, rate in measured.tuning})
    scores = {
        start: [score(task, measured.tuning[task, rank, start, rate]) for rate in rates] for start in STARTS
    }
    tuned = {start: rates[int(np.argmin(found))] for start, found in scores.items()}
    return tuned, rates[int(np.argmin(np.mean(list(scores.values()), axis=0)))]


class Spread(NamedTuple):
    """The starts from best to worst, and by seed how far the first and last are apart."""

    starts: list[str]
    by_seed: list[float]


def spread(measured: Measured, task: str, rank: int, rates: Mapping[str, float]) -> Spread:
    """Returns the spread of the starts, each at its rate, in percent of the loss or in points."""
    scores = {start: scores_of(measured, (task, rank, start, rate)) for start, rate in rates.items()}
    starts = sorted(scores, key=lambda start: scores[start].mean())
    best, worst = scores[starts[0]], scores[starts[-1]]
    return Spread(starts, list(100 * (worst / best - 1) if task == TEXT else worst - best))


def judge(measured: Measured) -> tuple[str, list[claim.Criterion]]:
    """Returns the sentence of the page, and the criteria."""
    said, criteria = [], []
    for task, rank in dict.fromkeys(key[:2] for key in measured.runs):
        name, unit = f"{task}, rank {rank}", "%" if task == TEXT else "points"
        tuned, common = choose_rates(measured, task, rank)
        own = spread(measured, task, rank, tuned)
        shared = spread(measured, task, rank, dict.fromkeys(STARTS, common))
        means = {s: scores_of(measured, (task, rank, s, rate)).mean() for s, rate in tuned.items()}
        apart, apart_shared = claim.interval(own.by_seed), claim.interval(shared.by_seed)
        more = claim.difference(shared.by_seed, own.by_seed)
        said.append(
            f"{name}: {score(task, measured.before[task]):.4g} before; "
            + ", ".join(f"{start} {means[start]:.4g} ({told(tuned[start])})" for start in own.starts)
            + f"; spread {apart} {unit}; at {told(common)} for all {apart_shared} {unit}, "
            f"{shared.starts[0]} best and {shared.starts[-1]} worst"
        )
        criteria += [
            claim.Criterion(
                f"{name}: the spread at tuned rates is at most {LIMIT:g} {unit}: {apart}",
                apart.high <= LIMIT,
            ),
            claim.Criterion(f"{name}: it is larger at one rate, by {more} {unit}", more.low > 0),
        ]
        if task == TEXT:
            lead = early_lead(measured, rank, tuned[KERAS])
            of = f"the true fans' loss is lower than {KERAS} after {EARLY} steps at {told(tuned[KERAS])}"
            criteria.append(claim.Criterion(f"{name}: {of}, by {lead}", lead.low > 0))
    return f"Loss of text, errors on images in percent. {'. '.join(said)}.", criteria


def early_lead(measured: Measured, rank: int, rate: float) -> claim.Interval:
    """Returns by how much the loss of text from LoRA is lower than from Keras' own start, after few steps."""
    keras_own, lora = (
        [run.early for run in measured.runs[TEXT, rank, start, rate]] for start in (KERAS, LORA)
    )
    return claim.difference(keras_own, lora)


def draw(measured: Measured, path: pathlib.Path) -> None:
    """Draws the validation by learning rate, and below the test at the tuned rates and the common one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = list(dict.fromkeys(key[:2] for key in measured.runs))
    rates = sorted({rate for *_, rate in measured.tuning})
    figure, panels = pyplot.subplots(2, len(columns), figsize=(14, 7), layout="constrained", squeeze=False)
    for (task, rank), by_rate, tested in zip(columns, *panels, strict=True):
        tuned, common = choose_rates(measured, task, rank)
        for place, (start, color) in enumerate(zip(STARTS, COLORS, strict=True)):
            found = [score(task, measured.tuning[task, rank, start, rate]) for rate in rates]
            by_rate.plot(rates, found, color=color, marker=".", label=start)
            by_rate.plot(tuned[start], min(found), "*", color=color, markersize=14, mec="black")
            for rate, marker, size, beside in ((tuned[start], "*", 12, -0.15), (common, "o", 5, 0.15)):
                mean, low, _ = claim.interval(scores_of(measured, (task, rank, start, rate)))
                tested.plot([low, 2 * mean - low], [place + beside] * 2, color=color)
                tested.plot(mean, place + beside, marker, color=color, markersize=size, mec="black")
        best = min(line.get_ydata().min() for line in by_rate.lines)
        by_rate.axvline(common, color="gray", linestyle=":")
        by_rate.set_xscale("log", base=2)
        by_rate.set(title=f"{task}, rank {rank}", xlabel="learning rate", ylim=(0.98 * best, 1.3 * best))
        tested.set(xlabel="loss" if task == TEXT else "errors in percent", ylim=(len(STARTS) - 0.5, -0.5))
        tested.set_yticks(range(len(STARTS)), STARTS if tested is panels[1][0] else [""] * len(STARTS))
        by_rate.grid(alpha=0.3)
        tested.grid(alpha=0.3)
    panels[0][0].set(ylabel="validation: loss, or errors in percent")
    figure.legend(
        *by_rate.get_legend_handles_labels(), title="star: tuned rate\ndot: common rate", loc="outside right"
    )
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
        quick=Size(1, (2,), (2.0**-7,), width=32, depth=1, steps=14, image_steps=14, trained=30),
        default=Size(),
        full=Size(5, width=256, depth=4, steps=400, image_steps=800, trained=6000),
        draw=lambda path: draw(found[-1], path),
    )


if __name__ == "__main__":
    main()
