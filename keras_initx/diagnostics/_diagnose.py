"""A report on the signal of a model, forward and backward, before the first step."""

import contextlib
import math
import numbers
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from keras import tree

import keras_initx.probe as probe
from keras_initx.data import check_looked_up, knows_inputs, refusal, take_pair
from keras_initx.diagnostics._duplicates import find_duplicates
from keras_initx.diagnostics._jacobian import spectrum_of
from keras_initx.diagnostics._measure import Reading, gate_readings, measure
from keras_initx.diagnostics._report import SignalReport
from keras_initx.diagnostics._rows import row_of
from keras_initx.diagnostics._updates import update_ratios
from keras_initx.diagnostics._verdicts import verdicts_of
from keras_initx.gradients import choose_loss
from keras_initx.state import check_built
from keras_initx.walk import KernelSite, input_specs, iter_kernels

__all__ = ["diagnose"]


def diagnose(
    model: Any,
    data: Any = None,
    targets: Any = None,
    loss: Any = None,
    *,
    samples: int = 64,
    training: bool = True,
    jacobian: bool = False,
    seed: int | None = None,
) -> SignalReport:
    """Reports what a model makes of the signal and of the gradients before the first step.

    The model runs forward and backward once, as in training, and is left as it was: weights, moving
    statistics, seeds and the optimizer. `print(report)` shows a row per kernel and the verdicts.

    Law: a kernel with variance gain^2 / fan_in, of its true fan and with the gain of the activation that
    feeds it, gives pre-activations of the size that the row expects; `forward_gain` is the measured over the
    expected root mean square, 1 where the law holds. Under the same law the length of a gradient changes by
    `backward_gain` on its way through the kernel and the activation before it, whose square is the chi_1 of
    mean field theory: gradients keep their length where it is 1.

    >>> import keras, keras_initx
    >>> layers = [keras.layers.Input((64,)), *(keras.layers.Dense(64, "relu") for _ in range(3))]
    >>> model = keras.Sequential(layers)
    >>> _ = keras_initx.initialize(model, "by_role", seed=1)
    >>> report = diagnose(model, seed=1)
    >>> all(0.8 < row.forward_gain < 1.25 for row in report.rows), report.verdicts
    (True, ())

    Args:
        model: A built Keras model, of any form, compiled or not.
        data: As in `keras_initx.calibrate`; None for drawn input. A pair (x, y) brings its targets.
        targets: Labels, as `fit` takes them.
        loss: Loss of targets and outputs; None for the one that the model was compiled with. Without targets
            gradients are those of a random linear function of the outputs.
        samples: Rows of data to use.
        training: Whether the model runs as in training: with the batch's statistics in normalizations, and
            with dropout.
        jacobian: Whether to compute the singular values of the outputs' Jacobian by the inputs, too, at the
            first row and in inference mode.
        seed: Seed of what is drawn: input, the linear function, directions for the Jacobian.

    Returns:
        A report with one row per kernel, in the order in which the layers run.

    Raises:
        ValueError: If the model is not built, the data or the targets do not fit it, or there are targets
            without a loss.

    Reference:
        Glorot and Bengio, 2010, for variances of signals and gradients by layer; He et al., 2015,
        https://arxiv.org/abs/1502.01852, equations 10 and 14; Schoenholz et al., 2017,
        https://arxiv.org/abs/1611.01232, for chi_1; Pennington et al., 2017,
        https://arxiv.org/abs/1711.04735, for the spectrum of the Jacobian.
    """
    started = time.perf_counter()
    check_built(model)
    if seed is not None and (not isinstance(seed, numbers.Integral) or seed < 0):
        raise ValueError(f"`seed` must be None or an int of at least 0. Received: seed={seed!r}.")
    specs = input_specs(model) if data is None else ()
    batch, labels = take_pair(model, data, samples, targets, seed, specs)
    check_looked_up(model, batch, lambda: input_specs(model))
    count = len(tree.flatten(batch)[0])
    labels = tree.map_structure(lambda leaf: None if leaf is None else leaf[:count], labels)
    objective = choose_loss(model, labels, loss, "diagnose", needed=False, seed=seed)
    sites = [site for site in iter_kernels(model) if site.is_matrix]
    shown = [site for site in sites if not site.obstacle]
    with _refusing(model, batch):
        value, readings, variables, gradients = measure(model, batch, labels, objective, shown, training)
        readings |= gate_readings(model, batch, sites)
    moves = update_ratios(model, variables, gradients)
    slopes = {id(v): gradient for v, gradient in zip(variables, gradients, strict=True)}
    rows = [row_of(site, readings.get(site, Reading()), slopes, moves) for site in sites]
    pairs = list(zip(sites, rows, strict=True))
    forward, backward = _end_to_end(sites, readings)
    duplicates = find_duplicates(sites)
    heads = [site for site in shown if site.is_output]
    spectrum = spectrum_of(model, batch, heads, seed) if jacobian else None
    return SignalReport(
        rows=tuple(rows),
        verdicts=verdicts_of(pairs, forward, backward, _agreement(sites, readings), duplicates),
        loss=value,
        loss_name="random projection" if labels is None else "compiled" if loss is None else "given",
        samples=count,
        forward_gain=forward,
        backward_gain=backward,
        chi_1=_geometric_mean([row.chi for row in rows if row.chi and not row.normalized]),
        duplicates=duplicates,
        jacobian=spectrum,
        seconds=time.perf_counter() - started,
    )


@contextlib.contextmanager
def _refusing(model: Any, batch: Any) -> Iterator[None]:
    """Says what data does not fit a model whose inputs were not known beforehand."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if knows_inputs(model) or probe.is_refusal(error):
            raise
        raise refusal(model, batch, error) from error


def _end_to_end(
    sites: Sequence[KernelSite], readings: dict[KernelSite, Reading]
) -> tuple[float | None, float | None]:
    """Gains from what reaches the first kernels, or leaves embeddings, to the heads."""
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
    """Mean cosine between two rows as they enter; None where they are integers."""
    found = [readings[site].input_agreement for site in sites if site in readings]
    return min((value for value in found if value is not None), default=None)


def _leaving(reading: Reading) -> tuple[float | None, float | None]:
    return (reading.signal[1] if reading.signal else None), reading.gradient


def _together(ways: list[tuple[float | None, float | None]]) -> tuple[float | None, float | None]:
    """The mean of the second moments and the length of all gradients; None if any is not known."""
    squares = [square for square, _ in ways if square is not None]
    lengths = [length for _, length in ways if length is not None]
    if not ways or len(squares) < len(ways) or len(lengths) < len(ways):
        return None, None
    return sum(squares) / len(squares), math.hypot(*lengths)


def _geometric_mean(values: Sequence[float]) -> float | None:
    return math.exp(float(np.mean(np.log(values)))) if values else None
