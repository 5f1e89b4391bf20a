"""A large model grown from a trained small one learns faster than from scratch: Samragh et al. 2024, and others.

A decoder learns the characters of Python's own source by Adam. The large model has twice the width of one small
model and twice the depth of another. From scratch it starts by `by_role`. It is grown in width by clones
(HyperCloning), without noise and with noise, and in depth by stacking, or with new blocks that begin at zero.

The loss is that on rows that are held out, every 20 steps. The target of a seed is the lowest loss from scratch.
Counted are the steps to the target, and the seconds: those of the start, those of the steps, and those of the
small model's training. A step takes the median time of the model, without compilation and evaluation.

All starts of a seed see the same batches; small models see others. The learning rate of a start is the one of the
same grid that reaches the target in the fewest steps on a seed of its own; a small model's is the one with the
lowest loss.
"""

import pathlib
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
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
    statement="A large model that is grown from a trained small one ([in width](https://arxiv.org/abs/1511.05641), "
    "[in depth](https://arxiv.org/abs/2110.07143)) reaches the loss from scratch in fewer steps, and in less time "
    "with the small model's training included.",
    number="2 to 4 times faster to the accuracy from scratch (HyperCloning); 45 % of the cost saved (bert2BERT)",
    checked=False,
)
SCRATCH = "from scratch"
# For each growth, what the small model lacks, and the arguments of `FromModel`.
GROWTHS: dict[str, tuple[str, dict[str, Any]]] = {
    "clones": ("width", {"width": "clone"}),
    "clones with noise": ("width", {"width": "clone", "noise": 0.3}),
    "stacked": ("depth", {"depth": "stack"}),
    "new blocks at zero": ("depth", {"depth": "identity"}),
}
BATCH, LENGTH, EVERY, HELD_OUT = 32, 32, 20, 256

Rows = tuple[np.ndarray, np.ndarray]


class Size(NamedTuple):
    """The large model, which small ones have half of, the learning rates, and the steps of 32 rows."""

    seeds: int = 3
    width: int = 64
    depth: int = 4
    rates: tuple[float, ...] = (2.0**-9, 2.0**-8, 2.0**-7)
    steps: int = 400
    small_steps: int = 200

    @property
    def small(self) -> dict[str, tuple[int, int]]:
        """Width and depth of the small models, by what they lack."""
        return {"width": (self.width // 2, self.depth), "depth": (self.width, self.depth // 2)}


class Run(NamedTuple):
    """The losses at every 20 steps, from step 0 on, and the seconds of the start."""

    losses: list[float]
    start_seconds: float

    def steps_to(self, target: float) -> int | None:
        """Returns the steps after which the loss is at most the target. None if it never is."""
        return next((number * EVERY for number, loss in enumerate(self.losses) if loss <= target), None)


class Measured(NamedTuple):
    """Runs by start and seed, those of the small models by what they lack, and the seconds of each step."""

    runs: dict[str, list[Run]]
    small: dict[str, list[Run]]
    rates: dict[str, float]
    seconds: dict[str, float]


class Trainer:
    """The models, each compiled once for all runs, the text, and the seconds that the steps of each model took."""

    def __init__(self, size: Size) -> None:
        self.size = size
        text = initx.datasets.read_pysource()
        self.rows = initx.datasets.windows(text.train, LENGTH)
        held_out = initx.datasets.windows(text.test, LENGTH)
        chosen = np.random.default_rng(0).permutation(len(held_out[0]))[:HELD_OUT]
        self.held_out: Rows = (held_out[0][chosen], held_out[1][chosen])
        sizes = {SCRATCH: (size.width, size.depth), **size.small}
        self.models = {
            name: prepared(decoder.build(width, depth, length=LENGTH), "by_role")
            for name, (width, depth) in sizes.items()
        }
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    def run(self, start: str, rate: float, seed: int) -> Run:
        """Trains a small model, named by what it lacks, or the large one, from a start."""
        name, steps, strategy = SCRATCH, self.size.steps, "by_role"
        if start in self.size.small:
            name, steps = start, self.size.small_steps
        elif start in GROWTHS:
            lacking, arguments = GROWTHS[start]
            strategy = initx.strategies.FromModel(self.models[lacking], **arguments)
        model = self.models[name]
        began = time.perf_counter()
        initx.initialize(model, strategy, seed=seed)
        took = time.perf_counter() - began
        run = Run([self._loss(model)], took)
        model.optimizer.learning_rate = rate
        order = np.random.default_rng(seed).permutation(len(self.rows[0]))
        order = order[-steps * BATCH :] if start in self.size.small else order[: steps * BATCH]
        for part in np.split(order, steps // EVERY):
            began = time.perf_counter()
            x, y = (array[part] for array in self.rows)
            model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
            self.seconds[name].append((time.perf_counter() - began) / EVERY)
            run.losses.append(self._loss(model))
        return run

    def _loss(self, model: keras.Model) -> float:
        return model.evaluate(*self.held_out, batch_size=HELD_OUT, verbose=0)
