"""The verb `diagnose`: checks its arguments, examines the model, names cures, and reports."""

import contextlib
import math
import time
from collections.abc import Collection, Iterator, Sequence

from keras import tree

import keras_initx.probe as probe
from keras_initx._types import Arrays, Batch, Data, Loss, Model, Patterns
from keras_initx.checks import check_seed, check_switch
from keras_initx.data import check_looked_up, knows_inputs, refusal, take_pair
from keras_initx.diagnostics._cures import name_cures
from keras_initx.diagnostics._duplicates import Duplicate
from keras_initx.diagnostics._exam import Exam, Examined
from keras_initx.diagnostics._jacobian import spectrum_of
from keras_initx.diagnostics._report import SignalReport
from keras_initx.losses import check_loss, choose_loss
from keras_initx.state import check_built, seeded
from keras_initx.walk import KernelSite, input_specs, iter_kernels, select

__all__ = ["diagnose"]


def diagnose(
    model: Model,
    data: Data | None = None,
    targets: Arrays | None = None,
    loss: Loss | None = None,
    *,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    samples: int = 64,
    training: bool = True,
    jacobian: bool = False,
    try_cures: bool = True,
    seed: int | None = None,
) -> SignalReport:
    """Reports the signal and the gradients of a model before the first training step.

    The model runs forward and backward once, as in training. Nothing changes: the weights, the moving
    statistics, the seeds and the optimizer stay as they are. `print(report)` shows one row per kernel and the
    verdicts. A verdict is a fault, with its cure.

    A cure is code over `initx`, `model` and `data`. Before a verdict names a cure, `diagnose` tries the cure:
    it applies the cure to the model, examines the model again, and puts all values back. Only a cure that
    removes its verdict and raises no other is named. If there are several, the verdict names the cure that
    leaves the fewest verdicts, and among these the cure that brings the signal nearest to unit size.

    Law: a kernel of variance gain^2 / fan_in, with its true fan and the gain of the activation that feeds it,
    gives pre-activations of the size that the row expects. `forward_gain` is the measured root mean square
    over the expected root mean square: 1 where the law holds. Under the same law, the length of a gradient
    changes by the factor `backward_gain` on its way back through the kernel and the activation before it. The
    square of this factor is the chi_1 of mean field theory. Gradients keep their length where it is 1.

    >>> import keras, keras_initx
    >>> layers = [keras.layers.Input((64,)), *(keras.layers.Dense(64, "relu") for _ in range(3))]
    >>> model = keras.Sequential(layers)
    >>> _ = keras_initx.initialize(model, "by_role", seed=1)
    >>> report = diagnose(model, seed=1)
    >>> all(0.8 < row.forward_gain < 1.25 for row in report.rows), report.verdicts
    (True, ())

    Args:
        model: A built Keras model of any form, compiled or not.
        data: An array; a dict, tuple or list of arrays; a `tf.data.Dataset` or another iterable of batches.
            From a tuple (x, y), x is the data and y the targets. None draws the input: Gaussian floats of
            unit variance, integers within the vocabulary of the embedding that they enter, and ones for other
            integers and masks.
        targets: Labels, as `fit` takes them. None takes the targets that come with `data`. Without any
            targets, the gradients are the gradients of a random linear function of the outputs.
        loss: The loss whose gradients are reported: a Keras loss, its name, a function of targets and
            outputs, or a list or dict of these for several outputs. None takes the loss that the model was
            compiled with. Without targets it is not used.
        include: Patterns of paths (`"block3"` with everything below it, `"*/query"`) or roles to report on.
            None means all. The whole model still runs, and the gains and the loss are still the gains and the
            loss of the whole model. A cure changes other kernels only if no smaller cure helps.
        exclude: Patterns or roles to leave out of the report.
        samples: Rows of data to measure on, from the start of the data. Shuffle sorted data first.
        training: Whether the model runs as in training: with dropout, and with the statistics of the batch in
            normalizations. Their moving statistics do not change.
        jacobian: Whether to compute the singular values of the Jacobian of the outputs with respect to the
            inputs, too, at the first row and in inference mode.
        try_cures: Whether to try cures where there are verdicts. This takes a run forward and backward for
            each of at most eight cures, and a copy of all weights. If False, a verdict names the cure that
            would be tried first.
        seed: Seed of all draws: the input, the linear function, the directions for the Jacobian, and the
            weights that a cure draws (0 for cures if None).

    Returns:
        A report with one row per kernel, in the order in which the layers run. With `include` or `exclude`,
        its rows, verdicts and duplicates are limited to the chosen kernels. A fault of several kernels
        together is told if one of them is chosen, and a fault of the whole model is told always.

    Raises:
        ValueError: If the model is not built, the data or the targets do not fit the model, there are targets
            but no loss, or an argument is out of its range.

    Reference:
        Glorot and Bengio, 2010, "Understanding the difficulty of training deep feedforward neural networks",
        for the variances of signals and gradients by layer. He et al., 2015,
        https://arxiv.org/abs/1502.01852, equations 10 and 14. Schoenholz et al., 2017,
        https://arxiv.org/abs/1611.01232, for chi_1. Pennington et al., 2017,
        https://arxiv.org/abs/1711.04735, for the spectrum of the Jacobian.
    """
    started = time.perf_counter()
    check_built(model)
    check_seed(seed)
    check_loss(loss)
    for name, value in (("training", training), ("jacobian", jacobian), ("try_cures", try_cures)):
        check_switch(name, value)
    # All checks come before the first run: bad input costs no time.
    batch, labels, count = _take(model, data, targets, samples, seed)
    objective = choose_loss(model, labels, loss, "diagnose", needed=False, seed=seed)
    sites = [site for site in iter_kernels(model) if site.is_matrix]
    everything = include is None and exclude is None
    chosen = {site.path for site in (sites if everything else select(sites, include, exclude))}
    # The examination is of all kernels, whatever the choice: gains and cures need the whole model.
    exam = Exam(model, batch, labels, objective, sites, training)
    with _refusing(model, batch):
        found = exam.run()
    # Without its softmax, a head has a Jacobian that large logits do not flatten.
    heads = [site for site in sites if site.is_output and not site.obstacle]
    spectrum = spectrum_of(model, batch, heads, seed) if jacobian else None
    seed = 0 if seed is None else int(seed)
    # Cures make initializers, and some of these take a number from Python's generator.
    with seeded(seed % 2**31):
        verdicts = name_cures(exam, found, chosen, seed, try_cures)
    return SignalReport(
        rows=tuple(row for row in found.rows if row.path in chosen),
        verdicts=verdicts,
        loss=found.loss,
        loss_name="random projection" if labels is None else "compiled" if loss is None else "given",
        samples=count,
        forward_gain=found.forward_gain,
        backward_gain=found.backward_gain,
        chi_1=found.chi_1,
        duplicates=_duplicates(found, chosen),
        jacobian=spectrum,
        seconds=time.perf_counter() - started,
        step_kept=None if found.step is None else found.step.kept,
        unseen=tuple(site.path for site in found.unseen if site.path in chosen),
        seen=_share(sites, found.unseen, chosen),
    )


def _take(
    model: Model, data: Data | None, targets: Arrays | None, samples: int, seed: int | None
) -> tuple[Batch, Arrays | None, int]:
    """Returns the inputs, the targets of the same rows, and the number of rows."""
    specs = input_specs(model) if data is None else ()
    batch, labels = take_pair(model, data, samples, targets, seed, specs)
    check_looked_up(model, batch, lambda: input_specs(model))
    # Targets that were given as arrays may have more rows than were taken.
    count = len(tree.flatten(batch)[0])
    return batch, tree.map_structure(lambda leaf: None if leaf is None else leaf[:count], labels), count


def _share(sites: Sequence[KernelSite], unseen: Collection[KernelSite], chosen: Collection[str]) -> float:
    """The share of the parameters of the chosen kernels whose signal was read; 1 if there are none."""
    sizes = {site: math.prod(site.kernel.shape) for site in sites if site.path in chosen}
    seen = sum(size for site, size in sizes.items() if site not in unseen)
    return seen / sum(sizes.values()) if sizes else 1.0


def _duplicates(found: Examined, chosen: set[str]) -> tuple[Duplicate, ...]:
    return tuple(pair for pair in found.duplicates if not chosen.isdisjoint((pair.path, pair.other)))


@contextlib.contextmanager
def _refusing(model: Model, batch: Batch) -> Iterator[None]:
    """Turns the error of a model that cannot take the data into an error that names `data`.

    A subclassed model does not tell its inputs, so only the run shows whether the data fits. Models that tell
    their inputs were checked before, and an error of theirs has another cause.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        if knows_inputs(model) or probe.is_refusal(error):
            raise
        raise refusal(model, batch, error) from error
