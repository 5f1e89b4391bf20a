"""Data-dependent initialization of a whole model, in one forward pass."""

import contextlib
import functools
import math
import numbers
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_initx.calibration._choice import check_law, laws, reason
from keras_initx.calibration._gates import find_cells
from keras_initx.calibration._over_model import calibrate_over_model, find_model_law
from keras_initx.calibration._processes import check_processes, together, union
from keras_initx.calibration._report import CalibrationReport, CalibrationRow, warn_of
from keras_initx.calibration._rewritten import find_rewritten, tell_constraint
from keras_initx.calibration._rounds import TiedError, calibrate_sites
from keras_initx.calibration._rows import row_of
from keras_initx.data import check_looked_up, take_pair
from keras_initx.gradients import check_loss, choose_loss
from keras_initx.initializers import is_none
from keras_initx.state import check_built, seeded, transaction
from keras_initx.walk import KernelSite, input_specs

__all__ = ["calibrate"]


def calibrate(
    model: Any,
    data: Any,
    initializer: Any = None,
    *,
    targets: Any = None,
    loss: Any = None,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    frozen: bool = False,
    samples: int = 256,
    training: bool = False,
    redraw: bool = False,
    tolerance: float = 0.1,
    max_iterations: int = 10,
    seed: int | None = None,
) -> CalibrationReport:
    """Rescales every kernel and bias of a model so that its pre-activations have the law's moments on data.

    The model runs once. As each layer's pre-activation appears it is rescaled and flows on rescaled, so that
    every later layer is measured on calibrated inputs; when the pass is over, kernels and biases are changed
    by the same factors. Dense, convolution (1-D to 3-D, grouped, depthwise, separable, transposed), einsum
    and embedding layers are covered, attention's query, key, value and output each by itself, and those that
    `walk.register` was told the pre-activations of, if they are linear on the data. A layer that
    runs several times in one pass (shared, or in TimeDistributed) has one scale for all of its calls, from
    their pooled moments; further passes bring it within the tolerance. So has a kernel that several layers
    hold. Where other code reads a kernel or makes a pre-activation, the finished model is measured. A head
    whose bias holds a prior keeps its first predictions: its kernel alone is scaled. Each gate of
    an RNN, LSTM, GRU or ConvLSTM has a scale of its own, for its kernel, recurrent kernel and bias, found by
    loops over the cell.
    In a job of several JAX processes all measure on the rows of all, and end with equal weights.

    >>> model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4, activation="relu")])
    >>> report = calibrate(model, None, "initx>LSUV", seed=1)
    >>> print(f"{report.rows[0].std_after:.3f}")
    1.000

    Args:
        model: A built Keras model, of any form.
        data: An array; a dict, tuple or list of arrays; a `tf.data.Dataset` or other iterable of batches; or
            None for drawn input: unit-Gaussian floats, integers within the vocabulary of the embeddings that
            they feed, ones for all other integers and masks. A tuple (x, y) gives its x, and the targets.
        initializer: The law for all layers, for example `"initx>LSUV"`. When None, each layer whose own
            `kernel_initializer` is a data-dependent law gets that law; if no layer has one, all get LSUV.
        targets: Labels for the laws that use them (`LabelPrior`, `BetweenLayer`, `MetaInit`, `GradInit`), as
            `fit` takes them; None for those that come with the data.
        loss: Loss that laws over the whole model take gradients of, as `compile` takes it: a Keras loss, its
            name, a function of targets and outputs, or a list or dict of these for several outputs; None for
            the one that the model was compiled with.
        include: Patterns of paths (`"block3"` with all below it, `"*/query"`) or roles of what is to be
            calibrated; None for all.
        exclude: Patterns or roles of what is to be left as it is.
        frozen: Whether to calibrate layers that are not trainable, too.
        samples: Rows of data to measure on, from the start of the data: shuffle sorted data first. Of several
            processes, each takes as many.
        training: Whether the model runs as in training: normalizations then use the batch's statistics, and
            their moving ones stay what they are.
        redraw: Whether to draw the law's base (orthonormal for LSUV) before measuring. By default the weights
            that are there are rescaled. Biases are kept and rescaled in both cases.
        tolerance: How far, relatively, a gate's std or the scale of a layer that runs several times may be
            from the law's. All other layers meet it exactly.
        max_iterations: Passes at most, and loops over a recurrent layer in each.
        seed: Seed of the redraw, one independent stream per path of a layer, and of the Gaussian input; to
            redraw in several processes it is needed. Name your layers: Keras numbers unnamed ones anew for
            each model of a process.

    Returns:
        A report with one row per kernel, in the order in which the layers ran, those of recurrent cells last.
        Layers that could not be calibrated are rows with a note, and one warning.

    Raises:
        ValueError: If the model is not built, the data does not fit it, an argument is out of its range, or a
            pre-activation is not finite. The weights are then what they were, as they are after Ctrl-C or
            any error inside the model.

    Reference:
        Mishkin and Matas, 2016, "All you need is a good init", algorithm 1
        (https://arxiv.org/abs/1511.06422). Deviation: linear layers are scaled once, exactly, instead of
        iterated to a tolerance of 0.1.
    """
    check_built(model)
    _check(seed, tolerance, max_iterations, training=training, redraw=redraw, frozen=frozen)
    check_loss(loss)
    started = time.perf_counter()
    # An initializer without a seed takes a number from Python's generator as it is made.
    draws = seed is None and redraw
    kept = contextlib.nullcontext if draws else functools.partial(seeded, (seed or 0) % 2**31)
    with kept():
        law = None if is_none(initializer) else check_law(initializer)
    batch, labels = _take(model, data, samples, targets, seed)
    with kept():
        chosen = laws(model, law, include, exclude, labels, frozen)
        check_processes(model, seed, redraw, chosen.values())
        options: dict[str, Any] = {"training": training, "redraw": redraw, "seed": seed}
        if whole := find_model_law(chosen):
            objective = _objective(model, labels, loss, whole, seed)
            patterns = include, exclude
            rows, totals = calibrate_over_model(
                model, whole, chosen, batch, labels, objective, patterns, frozen, **options
            )
        else:
            options |= {"tolerance": tolerance, "max_iterations": max_iterations}
            rows, passes = _calibrate_layers(model, batch, chosen, frozen, **options)
            totals = {"forward_passes": passes}
    warn_of(rows)
    seconds = time.perf_counter() - started
    return CalibrationReport(rows, len(keras.tree.flatten(batch)[0]), seconds=seconds, **totals)


def _take(model: Any, data: Any, samples: int, targets: Any, seed: int | None) -> tuple[Any, Any]:
    specs = input_specs(model) if data is None else ()
    batch, labels = union(lambda: take_pair(model, data, samples, targets, seed, specs))
    check_looked_up(model, batch, lambda: input_specs(model))
    return batch, labels


def _calibrate_layers(
    model: Any, batch: Any, chosen: dict[KernelSite, Any], frozen: bool, **options: Any
) -> tuple[tuple[CalibrationRow, ...], int]:
    """Calibrates by a law for each layer, and returns the rows of the report and the number of passes."""
    rewritten = find_rewritten(model, batch, chosen, options["redraw"])
    tied: dict[KernelSite, str] = {}
    spent = 0
    while True:
        cells = find_cells(model, chosen, frozen, rewritten.notes)
        in_cells = {site for cell in cells for site in cell.sites}
        known = rewritten.notes | tied
        notes = {s: known.get(s) or reason(s, law, frozen) for s, law in chosen.items() if s not in in_cells}
        try:
            with transaction() as update, together(model):
                found, passes = calibrate_sites(
                    model, batch, chosen, notes, cells, update, rewritten=rewritten, **options
                )
            break
        except TiedError as what:
            tied |= what.notes
            spent += what.passes
    in_call_order = dict.fromkeys([*found, *notes])
    rows = [
        row_of(s, chosen[s], notes[s], rewritten.later, found.get(s), options["tolerance"])
        for s in in_call_order
    ]
    found_rows = (*rows, *(row for cell in cells for row in cell.rows()))
    sites = {site.path: site for site in chosen}
    return tuple(tell_constraint(row, sites[row.path]) for row in found_rows), spent + passes


def _objective(model: Any, targets: Any, loss: Any, law: Any, seed: int | None) -> Any:
    own = law.seed if seed is None else seed
    return choose_loss(model, targets, loss, type(law).__name__, needed=law.needs_loss, seed=own)


def _check(seed: Any, tolerance: Any, max_iterations: Any, **switches: Any) -> None:
    for name, value in switches.items():
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"`{name}` must be True or False. Received: {name}={value!r}.")
    if seed is not None and (not isinstance(seed, numbers.Integral) or seed < 0):
        raise ValueError(f"`seed` must be None or an int of at least 0. Received: seed={seed!r}.")
    if not isinstance(tolerance, int | float) or not 0 < tolerance < math.inf:
        raise ValueError(f"`tolerance` must be a positive number. Received: tolerance={tolerance!r}.")
    whole = isinstance(max_iterations, numbers.Integral) and not isinstance(max_iterations, bool)
    if not whole or max_iterations < 1:
        raise ValueError(
            f"`max_iterations` must be an int of at least 1. Received: max_iterations={max_iterations!r}."
        )
