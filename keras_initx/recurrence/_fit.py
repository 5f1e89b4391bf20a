"""Finds the factors that bring every gate of a recurrent layer to a law's target.

A dense layer needs one division: std / std = 1. In a recurrent layer a gate's factor also changes the states,
and the states feed the gate again at the next step, so that the std answers more than in proportion:

    log std
       |            /          slope 1 without feedback through time,
    target - - - -o- - -       about 2 for a tanh RNN, larger near explosion
       |         /
       |       _/              the plain step assumes slope 1: on a steeper curve it
       |    __/                overshoots and swings around the target
       +---------------- log factor

Each gate therefore has a search of its own (`_Search`), in logarithms, and all gates take one step after each
run of the whole sequence. The first step is the division. Later steps use the secant through the last two
runs. Once one point lies on each side of the target, the next point lies between them (regula falsi, with the
Illinois rule, so that no end stays forever). All gates move at the same time, so that one gate's curve shifts
with the others' steps: an end that the curve can no longer connect is dropped.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

from keras_initx._types import Layer, Tensor
from keras_initx.recurrence._cells import cells_of, gate_names, obstacle
from keras_initx.recurrence._loop import Run, States, in_time, run, start

__all__ = ["GateFit", "fit_cells", "fit_gates"]

# Relative to the mean; a smaller std is rounding and says nothing about the data.
_ZERO_SPREAD = 8 * 2.0**-23
# d log(std) / d log(factor): 1 without feedback through time, about 2 for a tanh RNN, larger near explosion.
# Estimates outside of these bounds mostly come from the moves of other gates.
_SLOPES = (0.5, 10.0)
# No std is steeper than this: 60 steps of an exploding ReLU RNN were measured at 900.
_STEEPEST = 1000.0
# A law: from the mean and std of a pre-activation to a scale and a shift.
_Law = Callable[[float, float], tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class GateFit:
    """The result of a fit of the gates of a recurrent layer.

    Attributes:
        factors: For each gate, the factor for its kernel, recurrent kernel and biases, in kernel order (LSTM
            i, f, c, o; GRU z, r, h; SimpleRNN h). Stacked cells follow one another.
        std_before: Standard deviation of each gate's pre-activation with all factors 1.
        std_after: Standard deviation of each gate's pre-activation with `factors`.
        iterations: Number of loops over the sequence after the first. For stacked cells, the largest number
            that a cell took.
        converged: Whether every gate is within the tolerance of its target.
    """

    factors: tuple[float, ...]
    std_before: tuple[float, ...]
    std_after: tuple[float, ...]
    iterations: int
    converged: bool


def fit_gates(
    layer: Layer,
    inputs: Tensor,
    rescale: _Law,
    *,
    tolerance: float = 0.1,
    max_iterations: int = 10,
    initial_state: States | None = None,
    mask: Tensor | None = None,
) -> GateFit:
    """Finds a factor for each gate of a recurrent layer that brings its pre-activation to a law's target.

    Every gate has its own factor. The state carries a gate's factor on to later steps, so that one division
    does not reach the target: the sequence is run again until every gate is within the tolerance. The first
    step divides, as for a dense layer. Later steps interpolate between the last runs, since plain division
    swings around the target if the feedback through the state is strong. No weight is changed: the cell runs
    on scaled copies, also if an error or Ctrl-C ends the search.

    >>> import keras
    >>> keras.utils.set_random_seed(0)
    >>> layer = keras.layers.GRU(16)
    >>> layer.build((None, 10, 4))
    >>> inputs = keras.random.normal((32, 10, 4))
    >>> fit = fit_gates(layer, inputs, lambda mean, std: (1 / std, 0.0), tolerance=0.01)
    >>> fit.converged, [round(std, 1) for std in fit.std_after]
    (True, [1.0, 1.0, 1.0])

    Args:
        layer: A built layer without an `obstacle`.
        inputs: The layer's input, (batch, time, ...).
        rescale: A law: maps a mean and a standard deviation to a scale and a shift. Only the scale is used.
        tolerance: Largest accepted distance of a standard deviation to its target, relative to the target.
        max_iterations: Largest number of loops over the sequence after the first.
        initial_state: The layer's initial state, as its call takes it. None for zeros, or for the states of a
            stateful layer.
        mask: Booleans (batch, time), as the layer's call takes them.

    Returns:
        The factors of the best run and the standard deviations that they reach. A gate with a constant
        pre-activation keeps factor 1 and counts as not converged. If no run stays finite, no gate counts as
        converged.

    Raises:
        ValueError: If the layer has an obstacle.
    """
    fits = [
        fit
        for _, fit in fit_cells(
            layer,
            inputs,
            rescale,
            tolerance=tolerance,
            max_iterations=max_iterations,
            initial_state=initial_state,
            mask=mask,
        )
    ]
    return GateFit(
        factors=sum((fit.factors for fit in fits), ()),
        std_before=sum((fit.std_before for fit in fits), ()),
        std_after=sum((fit.std_after for fit in fits), ()),
        iterations=max(fit.iterations for fit in fits),
        converged=all(fit.converged for fit in fits),
    )


def fit_cells(
    layer: Layer,
    inputs: Tensor,
    rescale: _Law,
    *,
    tolerance: float = 0.1,
    max_iterations: int = 10,
    initial_state: States | None = None,
    mask: Tensor | None = None,
) -> tuple[tuple[Layer, GateFit], ...]:
    """Finds the factors of `fit_gates` for each cell of a recurrent layer by itself.

    Args:
        layer: A built layer without an `obstacle`.
        inputs: The layer's input, (batch, time, ...).
        rescale: A law: maps a mean and a standard deviation to a scale and a shift. Only the scale is used.
        tolerance: Largest accepted distance of a standard deviation to its target, relative to the target.
        max_iterations: Largest number of loops over the sequence after the first, for each cell.
        initial_state: The layer's initial state, as its call takes it: for stacked cells, a list of states
            for each cell. None for zeros, or for the states of a stateful layer.
        mask: Booleans (batch, time), as the layer's call takes them.

    Returns:
        Pairs of a cell and its fit, from the first cell to the last. Each cell is fitted on the outputs of
        the cell before it, with that cell's factors.

    Raises:
        ValueError: If the layer has an obstacle.
    """
    reason = obstacle(layer)
    if reason:
        raise ValueError(f"`layer` must be a recurrent layer of known cells. Received: {layer!r}: {reason}.")
    if initial_state is None and layer.stateful:
        initial_state = layer.states
    steps, keeps = in_time(inputs, mask, layer.go_backwards)
    fits = []
    for number, cell in enumerate(cells_of(layer)):
        own_state = initial_state
        if cell is not layer.cell and initial_state is not None:
            own_state = initial_state[number]
        state = start(cell, len(inputs), own_state)
        loop = functools.partial(run, cell, steps, keeps, state)
        fit, steps = _fit(loop, len(gate_names(cell)), rescale, tolerance, max_iterations)
        fits.append((cell, fit))
    return tuple(fits)


def _fit(
    loop: Callable[[Sequence[float]], Run],
    gates: int,
    rescale: _Law,
    tolerance: float,
    max_iterations: int,
) -> tuple[GateFit, list[Tensor]]:
    """Returns the best fit of one cell, and the outputs of the cell in that run."""
    searches, logs, runs = [_Search() for _ in range(gates)], [0.0] * gates, 0
    before: tuple[float, ...] = ()
    best: tuple[float, tuple[float, ...], Run, list[float | None]] | None = None
    while True:
        # The best run counts, not the last one: a step may carry a gate away again.
        factors = tuple(map(math.exp, logs))
        result = loop(factors)
        before, runs = before or result.stds, runs + 1
        errors = _errors(result, rescale)
        off = max((abs(math.expm1(-error)) for error in errors if error is not None), default=0.0)
        if best is None or off < best[0]:
            best = off, factors, result, errors
        if off <= tolerance or runs > max_iterations:
            break
        logs = [s.step(at, error) for s, at, error in zip(searches, logs, errors, strict=True)]
    off, factors, result, errors = best
    converged = off <= tolerance and None not in errors
    return GateFit(factors, before, result.stds, runs - 1, converged), result.outputs


def _errors(run: Run, rescale: _Law) -> list[float | None]:
    """For each gate log(target / std): None if its pre-activation is constant, -inf after an overflow."""
    if not all(map(math.isfinite, run.stds)):
        return [-math.inf] * len(run.stds)
    constant = [
        std <= _ZERO_SPREAD * math.hypot(mean, std) for mean, std in zip(run.means, run.stds, strict=True)
    ]
    moments = zip(run.means, run.stds, constant, strict=True)
    return [None if flat else math.log(rescale(mean, std)[0]) for mean, std, flat in moments]


class _Search:
    """The search for the factor of one gate, in logarithms; the top of this file has the idea."""

    def __init__(self) -> None:
        self.last: tuple[float, float] | None = None
        # The last point at which the std was too small (True), and too large (False).
        self.ends: dict[bool, tuple[float, float]] = {}

    def step(self, at: float, error: float | None) -> float:
        """Takes the error at one logarithm of the factor, and returns the next logarithm to try."""
        if not error:
            return at
        if error == -math.inf:
            return self._retreat(at)
        short, last = error > 0, self.last
        slope = (last[1] - error) / (at - last[0]) if last and last[0] != at else 1.0
        plain = at + error / min(max(slope, _SLOPES[0]), _SLOPES[1])
        # Far from the target the std grows exponentially: only the sign of the error counts there.
        height = min(max(error, -1.0), 1.0)
        self.last, self.ends[short] = (at, error), (at, height)
        other = self.ends.get(not short)
        if other is None:
            return plain
        if abs(height) > _STEEPEST * abs(other[0] - at):
            # No curve is this steep: the other gates' moves have carried the target past this end.
            del self.ends[not short]
            return plain
        if last and (last[1] > 0) == short:
            # The Illinois rule: twice on the same side, so the other end, which stayed, counts half. The next
            # point then lies nearer to that end, and the interval shrinks from both sides.
            other = self.ends[not short] = other[0], other[1] / 2
        return at + (other[0] - at) * height / (height - other[1])

    def _retreat(self, at: float) -> float:
        """The next logarithm after an overflow: nearer to the last finite run, or a quarter of the factor."""
        if self.last is None:
            return at - math.log(4)
        if at > self.last[0]:
            self.ends[False] = at, -1.0
        return (at + self.last[0]) / 2
