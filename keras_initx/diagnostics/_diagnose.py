"""A report on the signal of a model, forward and backward, before the first step."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from keras import tree

import keras_initx.probe as probe
from keras_initx.checks import check_seed
from keras_initx.data import check_looked_up, knows_inputs, refusal, take_pair
from keras_initx.diagnostics._cures import name_cures
from keras_initx.diagnostics._exam import Exam
from keras_initx.diagnostics._jacobian import spectrum_of
from keras_initx.diagnostics._report import SignalReport
from keras_initx.gradients import choose_loss
from keras_initx.state import check_built, seeded
from keras_initx.walk import input_specs, iter_kernels

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
    try_cures: bool = True,
    seed: int | None = None,
) -> SignalReport:
    """Reports what a model makes of the signal and of the gradients before the first step.

    The model runs forward and backward once, as in training, and is left as it was: weights, moving
    statistics, seeds and the optimizer. `print(report)` shows a row per kernel and the verdicts.

    Each verdict names its cure as code over `initx`, `model` and `data`. It was tried: the model is changed
    by it, examined again, and put back. Of the cures that remove the verdict and raise no other, the verdict
    names the one after which least is left to complain of.

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
        try_cures: Whether to try cures where there are verdicts. That takes a run forward and backward for
            each of at most eight cures, and a copy of all weights. Without it a verdict names the cure that
            would be tried first.
        seed: Seed of what is drawn: input, the linear function, directions for the Jacobian, and what a cure
            draws (0 if None).

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
    check_seed(seed)
    specs = input_specs(model) if data is None else ()
    batch, labels = take_pair(model, data, samples, targets, seed, specs)
    check_looked_up(model, batch, lambda: input_specs(model))
    count = len(tree.flatten(batch)[0])
    labels = tree.map_structure(lambda leaf: None if leaf is None else leaf[:count], labels)
    objective = choose_loss(model, labels, loss, "diagnose", needed=False, seed=seed)
    sites = [site for site in iter_kernels(model) if site.is_matrix]
    exam = Exam(model, batch, labels, objective, sites, training)
    with _refusing(model, batch):
        found = exam.run()
    heads = [site for site in sites if site.is_output and not site.obstacle]
    spectrum = spectrum_of(model, batch, heads, seed) if jacobian else None
    seed = 0 if seed is None else int(seed)
    with seeded(seed % 2**31):  # cures make initializers, some of which take a number from Python's generator
        verdicts = name_cures(exam, found, seed, try_cures)
    return SignalReport(
        rows=found.rows,
        verdicts=verdicts,
        loss=found.loss,
        loss_name="random projection" if labels is None else "compiled" if loss is None else "given",
        samples=count,
        forward_gain=found.forward_gain,
        backward_gain=found.backward_gain,
        chi_1=found.chi_1,
        duplicates=found.duplicates,
        jacobian=spectrum,
        seconds=time.perf_counter() - started,
        step_kept=None if found.step is None else found.step.kept,
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
