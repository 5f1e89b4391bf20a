"""The verb `calibrate`, and the line of steps behind it: choose, plan, act, report."""

import itertools
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from keras_initx._types import Arrays, Batch, Data, Initializer, Loss, Model, Patterns
from keras_initx.calibration._aim import Aim
from keras_initx.calibration._by_layer import TiedError, act_by_layer
from keras_initx.calibration._choice import Choice, choose, choose_by, selected, streamed_law
from keras_initx.calibration._over_adapters import act_over_adapters
from keras_initx.calibration._over_heads import act_over_heads
from keras_initx.calibration._over_model import act_over_model
from keras_initx.calibration._plan import Job, make_plan, model_law
from keras_initx.calibration._processes import check_processes, together, union
from keras_initx.calibration._report import CalibrationReport, CalibrationRow, is_unseen, warn_of
from keras_initx.calibration._rewritten import tell_constraint
from keras_initx.calibration._settings import Settings
from keras_initx.data import check_looked_up, iter_pairs, take_pair
from keras_initx.initializers import Law, makes_heads
from keras_initx.losses import Objective, check_loss, choose_loss
from keras_initx.state import check_built, transaction
from keras_initx.walk import KernelSite, input_specs

__all__ = ["calibrate", "run"]


def calibrate(
    model: Model,
    data: Data | None = None,
    initializer: Initializer | None = None,
    *,
    targets: Arrays | None = None,
    loss: Loss | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    samples: int | None = None,
    training: bool = False,
    frozen: bool = False,
    redraw: bool = False,
    tolerance: float = 0.1,
    max_iterations: int = 10,
    seed: int | None = None,
) -> CalibrationReport:
    """Scales the kernels and biases of a model until its pre-activations have a law's moments on data.

    The model runs once. Each layer's pre-activation is measured and rescaled as it appears, and the rescaled
    values flow on, so that every later layer is measured on calibrated inputs. After the pass the kernels and
    biases are multiplied by the same factors.

    It covers dense, convolution (1-D to 3-D, grouped, depthwise, separable, transposed), einsum and
    embedding layers, attention's query, key, value and output, recurrent layers, and layers that
    `walk.register` knows. Special cases:

    - A layer that runs several times in one pass (a shared layer, or a layer in TimeDistributed) has one
      scale for all its calls, from their pooled moments. Further passes bring this scale within `tolerance`.
      The same holds for a kernel that several layers share.
    - Where code outside of Keras reads a kernel or computes a pre-activation, further passes measure the
      finished model.
    - Each gate of an RNN, LSTM, GRU or ConvLSTM has its own scale for kernel, recurrent kernel and bias.
      Loops over the cell find these scales.
    - `LinearProbe` and `ClassMeans` make heads from the features that reach them and from targets. All else
      stays, and the report has the accuracy on held-out rows.
    - If the bias of a head holds a prior, only the kernel is scaled, and the first predictions stay.
    - In a job of several JAX processes, all processes measure on the rows of all processes and end with equal
      weights.

    >>> model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4, activation="relu")])
    >>> report = calibrate(model, initializer="initx>LSUV", seed=1)
    >>> print(f"{report.rows[0].std_after:.3f}")
    1.000

    Args:
        model: A built Keras model of any form.
        data: An array; a dict, tuple or list of arrays; a `tf.data.Dataset` or another iterable of batches.
            From a tuple (x, y), x is the data and y the targets. None draws the input: Gaussian floats of
            unit variance, integers within the vocabulary of the embedding that they enter, and ones for other
            integers and masks.
        initializer: The law for all layers, for example `"initx>LSUV"`. None applies the layers' own laws,
            which they name as `kernel_initializer`; if no layer has a law, all layers get LSUV.
        targets: Labels, as `fit` takes them, for the laws that use labels (`LabelPrior`, `LinearProbe`,
            `ClassMeans`, `BetweenLayer`, `MetaInit`, `GradInit`). None takes the targets that come with
            `data`.
        loss: The loss whose gradients a law over the whole model takes, and which tells a law of heads if its
            targets are classes or numbers: a Keras loss, its name, a function of targets and outputs, or a
            list or dict of these for several outputs. None takes the loss that the model was compiled with.
        include: Patterns of paths (`"block3"` with everything below it, `"*/query"`) or roles to calibrate.
            None means all.
        exclude: Patterns or roles to leave as they are.
        samples: Rows of data to measure on, from the start of the data. Shuffle sorted data first. In a job
            of several processes, each process takes this many rows. None takes 256 rows, and all rows for
            laws that make heads (`LinearProbe`, `ClassMeans`).
        training: Whether the model runs as in training. Normalizations then use the statistics of the batch;
            their moving statistics do not change.
        frozen: Whether to calibrate layers that are not trainable, too.
        redraw: Whether to draw new kernels by the law (orthonormal kernels for LSUV) before measuring. By
            default the present kernels are rescaled. Biases are kept and rescaled in both cases.
        tolerance: Largest relative error of a gate's std, and of the scale of a layer that runs several
            times. All other layers meet the law exactly.
        max_iterations: Largest number of passes, and of loops over a recurrent layer in each pass.
        seed: Seed of `redraw` and of drawn input, with one independent stream for the path of each layer. A
            redraw in several processes requires it. Name your layers: Keras numbers unnamed layers anew for
            each model in a process.

    Returns:
        A report with one row per kernel, in the order in which the layers ran; rows of recurrent cells come
        last. A layer that could not be calibrated has a row with a note, and one warning names all of them.

    Raises:
        ValueError: If the model is not built, the data does not fit the model, an argument is out of its
            range, or a pre-activation is not finite. After any error, and after Ctrl-C, the weights are as
            they were before the call.

    Reference:
        Mishkin and Matas, 2016, "All you need is a good init", algorithm 1
        (https://arxiv.org/abs/1511.06422). Deviation: linear layers are scaled once and exactly, where the
        paper iterates to a tolerance of 0.1.
    """
    check_built(model)
    settings = Settings(
        include=include,
        exclude=exclude,
        samples=samples,
        training=training,
        frozen=frozen,
        redraw=redraw,
        tolerance=tolerance,
        max_iterations=max_iterations,
        seed=seed,
    )
    check_loss(loss)
    with settings.keep_generators():
        choice = choose_by(initializer)
    report = run(model, data, choice, settings, targets, loss)
    warn_of(report.rows)
    return report


def run(
    model: Model,
    data: Data | None,
    choice: Choice,
    settings: Settings,
    targets: Arrays | None = None,
    loss: Loss | None = None,
) -> CalibrationReport:
    """Calibrates a model by the laws of a choice: chooses, plans, acts, and reports."""
    started = time.perf_counter()
    with settings.keep_generators():
        sites = selected(model, settings)
        law = streamed_law(sites, choice)
    batch, labels, pairs = _take(model, data, targets, settings, law)
    with settings.keep_generators():
        aims = choose(model, sites, choice, labels, settings)
        check_processes(model, settings, [aim.law for aim in aims.values() if aim.law])
        objective = _objective(model, labels, loss, aims, settings.seed)
        job = Job(model, batch, labels, settings, objective, pairs, loss)
        rows, totals = _act(job, aims)
    seconds = time.perf_counter() - started
    sizes = {site.path: math.prod(site.kernel.shape) for site in aims}
    unseen = sum(sizes[row.path] for row in rows if is_unseen(row))
    seen = 1 - unseen / sum(sizes.values()) if unseen else 1.0
    samples = {"samples": len(keras.tree.flatten(batch)[0])}
    return CalibrationReport(rows, seconds=seconds, seen=seen, **(samples | totals))


def _take(
    model: Model, data: Data | None, targets: Arrays | None, settings: Settings, law: Law | None
) -> tuple[Batch, Arrays | None, Iterable[tuple[Batch, Arrays]]]:
    """Returns the rows to measure on, their targets or None, and for a law of heads all batches."""
    if law is not None:
        return _stream(model, data, targets, settings, law)
    # A trace of the model costs time, and only drawn data needs the shapes of the inputs.
    specs = input_specs(model) if data is None else ()
    samples = 256 if settings.samples is None else settings.samples
    batch, labels = union(lambda: take_pair(model, data, samples, targets, settings.seed, specs))
    check_looked_up(model, batch, lambda: input_specs(model))
    return batch, labels, ()


def _stream(
    model: Model, data: Data | None, targets: Arrays | None, settings: Settings, law: Law
) -> tuple[Batch, Arrays, Iterable[tuple[Batch, Arrays]]]:
    """Returns the first batch of the data, its targets, and all batches with their targets."""
    name, heads = type(law).__name__, makes_heads(law)
    if data is None:
        needs = "makes heads from features and targets" if heads else "takes what the layers get"
        raise ValueError(
            f"`data` must be given: {name} {needs}. Received: data=None. Pass data as "
            f"{'a pair (x, y), or an iterable of such pairs' if heads else 'an array or batches'}."
        )
    pairs = iter_pairs(model, data, settings.samples, targets)
    batch, labels = next(pairs)
    if labels is None and heads:
        raise ValueError(
            f"`targets` must be given: {name} makes heads from them. Received: targets=None. Pass "
            "`targets=y`, or data that is a pair (x, y) or an iterable of such pairs."
        )
    check_looked_up(model, batch, lambda: input_specs(model))
    return batch, labels, itertools.chain([(batch, labels)], pairs)


def _objective(
    model: Model,
    targets: Arrays | None,
    loss: Loss | None,
    aims: Mapping[KernelSite, Aim],
    seed: int | None,
) -> Objective | None:
    """Returns the loss for a law that takes gradients; None if the aims have no such law."""
    law: Law | None = model_law(aims)
    if law is None:
        law = next((aim.law for aim in aims.values() if aim.law and "gradients" in aim.law.needs), None)
    if law is None:
        return None
    own = getattr(law, "seed", None) if seed is None else seed
    return choose_loss(model, targets, loss, type(law).__name__, needed="loss" in law.needs, seed=own)


def _act(job: Job, aims: dict[KernelSite, Aim]) -> tuple[tuple[CalibrationRow, ...], dict[str, Any]]:
    """Changes the weights by a plan and returns the rows and totals of the report.

    After an error, the weights are as they were.
    """
    plan = make_plan(job, aims)
    wasted = 0
    tied: dict[KernelSite, str] = {}
    while True:
        act = act_by_layer if plan.model_law is None else act_over_model
        act = act_over_heads if plan.for_heads else act_over_adapters if plan.for_adapters else act
        try:
            with transaction() as update, together(job.model):
                found, totals = act(job, plan, update)
            break
        except TiedError as error:  # the weights are as they were: try again without these kernels
            wasted += error.passes
            tied |= error.notes
            plan = make_plan(job, aims, plan.rewritten, tied)
    totals["forward_passes"] += wasted
    sites = {site.path: site for site in aims}
    return tuple(tell_constraint(row, sites[row.path]) for row in found), totals
