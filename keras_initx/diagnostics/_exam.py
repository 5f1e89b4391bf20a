"""One examination of a model: its rows, its gains and its faults. Cures repeat it on the changed model."""

import dataclasses
import functools
import math
from collections.abc import Collection, Sequence

import numpy as np

from keras_initx._types import Arrays, Batch, Model, Tensor
from keras_initx.diagnostics._adapters import are_directions
from keras_initx.diagnostics._duplicates import Duplicate, find_duplicates
from keras_initx.diagnostics._gate_readings import gate_readings
from keras_initx.diagnostics._measure import loss_at, measure
from keras_initx.diagnostics._reading import Reading
from keras_initx.diagnostics._report import SignalRow
from keras_initx.diagnostics._rows import row_of
from keras_initx.diagnostics._updates import Step, take_step
from keras_initx.diagnostics._verdicts import SIZE, Finding, findings_of
from keras_initx.losses import Objective
from keras_initx.walk import KernelSite

__all__ = ["Exam", "Examined"]


@dataclasses.dataclass(frozen=True)
class Examined:
    """The result of one examination, for all kernels of the model.

    Attributes:
        rows: One row per kernel.
        findings: The faults.
        loss: The loss on the batch.
        forward_gain: Gain of the signal from the first kernels to the heads, as in `SignalReport`.
        backward_gain: Gain of the gradient from the heads to the first kernels, as in `SignalReport`.
        duplicates: Pairs of kernels that are copies.
        step: One step of the optimizer; None without an optimizer.
        gradients: Gradients of the loss with respect to the trainable variables.
        unseen: The kernels whose signal no pass could read.
    """

    rows: tuple[SignalRow, ...]
    findings: tuple[Finding, ...]
    loss: float
    forward_gain: float | None
    backward_gain: float | None
    duplicates: tuple[Duplicate, ...]
    step: Step | None
    gradients: list[Tensor]
    unseen: tuple[KernelSite, ...]

    @property
    def chi_1(self) -> float | None:
        """Geometric mean of the rows' chi, without the rows before a normalization."""
        values = [row.chi for row in self.rows if row.chi and not row.normalized]
        return math.exp(float(np.mean(np.log(values)))) if values else None

    def excess(self, chosen: Collection[str]) -> float:
        """Returns the largest distance of the signal from unit size, as a log; 0 within harmless limits.

        Infinite if a pre-activation is zero or not finite.

        Args:
            chosen: Paths of the kernels to look at.
        """
        # A normalization hides the size of a signal, and a residual branch is small on purpose.
        sizes = [
            row.forward_gain * row.expected_std
            for row in self.rows
            if row.path in chosen and row.forward_gain is not None and row.expected_std
            if not (row.normalized or row.in_branch)
        ]
        if not all(0 < size < math.inf for size in sizes):
            return math.inf
        return max((max(abs(math.log(size)) - math.log(SIZE), 0.0) for size in sizes), default=0.0)


@dataclasses.dataclass(frozen=True)
class Exam:
    """A model with everything that an examination needs, so that examinations can be compared.

    Attributes:
        model: A built Keras model.
        batch: Its inputs.
        targets: Labels, or None.
        objective: The loss, as `choose_loss` returns it.
        sites: All kernels of the model.
        training: Whether the model runs as in training.
    """

    model: Model
    batch: Batch
    targets: Arrays | None
    objective: Objective
    sites: Sequence[KernelSite]
    training: bool

    def run(self) -> Examined:
        """Examines the model with its present weights, and leaves them as they are."""
        # A kernel with an obstacle has no pre-activation to show. Its row has the numbers of its weights.
        shown = [site for site in self.sites if site.is_readable]
        value, readings, variables, gradients = measure(
            self.model, self.batch, self.targets, self.objective, shown, self.training
        )
        readings |= gate_readings(self.model, self.batch, self.sites)
        step = self.step(value, gradients)
        moves = step.ratios if step else {}
        # Keras variables cannot be keys of a dict: `==` compares their values.
        slopes = {id(v): gradient for v, gradient in zip(variables, gradients, strict=True)}
        rows = [row_of(site, readings.get(site, Reading()), slopes, moves) for site in self.sites]
        forward, backward = _end_to_end(self.sites, readings)
        # Queries and values that get one tensor have the same directions.
        duplicates = find_duplicates([site for site in self.sites if not are_directions(site)])
        pairs = list(zip(self.sites, rows, strict=True))
        findings = findings_of(pairs, forward, backward, _agreement(self.sites, readings), duplicates, step)
        kernels = [site for site in self.sites if not site.is_factor]
        unseen = tuple(site for site in kernels if readings.get(site, Reading()).signal is None)
        return Examined(tuple(rows), findings, value, forward, backward, duplicates, step, gradients, unseen)

    def step(self, loss: float, gradients: Sequence[Tensor], rate: float | None = None) -> Step | None:
        """Takes one step of the optimizer on copies.

        Args:
            loss: The loss before the step.
            gradients: Gradients of the loss with respect to the trainable variables.
            rate: Learning rate of the step; None for the optimizer's own.
        """
        given = (self.model, self.batch, self.targets, self.objective, self.training)
        # Without targets the loss is a random linear function: a fall of it tells nothing of the training.
        measured = None if self.targets is None else functools.partial(loss_at, *given)
        adapters = [site.adapter for site in self.sites if site.adapter and site.role == "lora_a"]
        variables = self.model.trainable_variables
        return take_step(self.model, variables, gradients, loss, measured, rate, adapters)


def _end_to_end(
    sites: Sequence[KernelSite], readings: dict[KernelSite, Reading]
) -> tuple[float | None, float | None]:
    """Returns the gains of the signal and of the gradient between the first kernels and the heads.

    Integers that enter an embedding have no size. There the way begins behind the embedding.
    """
    first = [readings[site] for site in sites if site.depth == 0 and site in readings]
    heads = [readings[site] for site in sites if site.is_output and site in readings]
    ways_in = [(r.input_square, r.input_gradient) if r.input_square else _leaving(r) for r in first]
    ways_out = [_leaving(reading) for reading in heads]
    (square, length), (last_square, last_length) = _together(ways_in), _together(ways_out)
    return (
        math.sqrt(last_square / square) if square and last_square is not None else None,
        length / last_length if last_length and length is not None else None,
    )


def _agreement(sites: Sequence[KernelSite], readings: dict[KernelSite, Reading]) -> float | None:
    """The mean cosine between two rows of the input; None if all inputs are integers."""
    found = [readings[site].input_agreement for site in sites if site in readings]
    # Among several inputs, the input that tells the rows apart best is the one that the heads can use.
    return min((value for value in found if value is not None), default=None)


def _leaving(reading: Reading) -> tuple[float | None, float | None]:
    """The second moment of a pre-activation, and the length of its gradient."""
    moments = reading.own or reading.signal
    return (moments[1] if moments else None), reading.gradient


def _together(ways: list[tuple[float | None, float | None]]) -> tuple[float | None, float | None]:
    """The mean of the second moments, and the length of all gradients together; None if any is unknown."""
    squares = [square for square, _ in ways if square is not None]
    lengths = [length for _, length in ways if length is not None]
    if not ways or len(squares) < len(ways) or len(lengths) < len(ways):
        return None, None
    return sum(squares) / len(squares), math.hypot(*lengths)
