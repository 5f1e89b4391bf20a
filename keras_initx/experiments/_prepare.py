"""The model of a trial before its first step: built, drawn, calibrated and diagnosed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_initx._types import Arrays, Initializer, Model
from keras_initx.calibration import CalibrationReport, calibrate_drawn
from keras_initx.checks import first_line
from keras_initx.data import take_pair
from keras_initx.diagnostics import diagnose
from keras_initx.experiments._batches import is_arrays
from keras_initx.experiments._problem import AnyInitializer, Problem, build_model, rows_to_try
from keras_initx.experiments._trial import Trial
from keras_initx.initializers import is_bias_initializer
from keras_initx.strategies import InitReport, Plan, Strategy, WholePlan, initialize
from keras_initx.tables import listed

if TYPE_CHECKING:
    from keras_initx.walk import KernelSite

__all__ = ["Draws", "Findings", "Prepared", "draw", "prepare"]

_SAMPLES = 256  # rows of training data for the laws and for `diagnose`


class Findings(NamedTuple):
    """Everything that a trial's result says about the model before its first step."""

    signal: dict[str, Any] | None
    notes: tuple[str, ...]


class Prepared(NamedTuple):
    """A model that is ready for its first step."""

    model: Model
    train: tuple[Arrays, ...] | None  # the training data if they are arrays; other data are opened again
    findings: Findings


def prepare(problem: Problem, trial: Trial) -> Prepared:
    """Builds, initializes, calibrates and diagnoses the model of a trial."""
    model = build_model(problem, trial.seed)
    if trial.learning_rate is not None:
        model.optimizer.learning_rate = trial.learning_rate
    _, drew = draw(model, problem.initializers[trial.initializer], trial.seed)
    train = problem.data("train", trial.seed)
    sample, targets = take_pair(model, train, rows_to_try(model, _SAMPLES))
    reports = calibrate_drawn(model, sample, drew, targets=targets, seed=trial.seed)
    signal, notes = _diagnose(model, sample, targets)
    arrays = train if is_arrays(train) else None
    return Prepared(model, arrays, Findings(signal, (*_unapplied(reports), *notes)))


class Draws(NamedTuple):
    """What drew a model.

    Attributes:
        report: The report of `initialize`.
        drew: The initializers that drew the kernels, as `calibrate_drawn` takes them: one initializer, a dict
            of path and initializer, or None for each layer's own initializer.
    """

    report: InitReport
    drew: Initializer | Mapping[str, Initializer] | None


def draw(model: Model, initializer: AnyInitializer, seed: int) -> Draws:
    """Draws the weights of a model.

    Args:
        model: A built model.
        initializer: An initializer or a strategy, as an object; None for each layer's own initializer.
        seed: Seed of the weights.
    """
    # Made for heads or adapters alone: the layers draw their own kernels.
    if is_bias_initializer(initializer) or getattr(initializer, "scope", "") in ("adapter", "head"):
        return Draws(initialize(model, None, seed=seed), initializer)
    if not hasattr(initializer, "plan"):
        return Draws(initialize(model, initializer, seed=seed), initializer)
    recorded = _Recorded(initializer)  # type: ignore[arg-type]  # it has a plan
    return Draws(initialize(model, recorded, seed=seed), recorded.drew)


class _Recorded:
    """A strategy that remembers its plan, because a plan may name laws that have to be applied later."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.drew: dict[str, Initializer] = {}
        self.takes_all_weights = getattr(strategy, "takes_all_weights", False)

    def __getattr__(self, name: str) -> Any:
        if name not in ("adapter_draws", "alpha_of", "base", "of_adapters"):
            raise AttributeError(name)
        return getattr(self.strategy, name)

    def plan(self, sites: "Sequence[KernelSite]", model: Model) -> Plan | WholePlan:
        """Returns the plan of the strategy."""
        plan = self.strategy.plan(sites, model)
        drew = {site.path: planned.initializer for site, planned in plan.items() if not planned.source}
        self.drew = {path: initializer for path, initializer in drew.items() if initializer is not None}
        return plan


def _unapplied(reports: Sequence[CalibrationReport]) -> list[str]:
    """Returns a note for each reason for which a law was not applied to kernels that it drew."""
    by_reason: dict[str, list[str]] = {}
    for report in reports:
        for row in report.rows:
            if not row.iterations:
                by_reason.setdefault(row.note, []).append(row.path)
    return [f"not calibrated: {listed(paths)} ({reason})" for reason, paths in by_reason.items()]


def _diagnose(
    model: Model, sample: Arrays, targets: Arrays | None
) -> tuple[dict[str, Any] | None, list[str]]:
    """Returns the findings of `diagnose`; or None and a note, if `diagnose` does not understand the model.

    Such a model is trained anyway: `fit` may understand it.
    """
    try:
        report = diagnose(model, sample, targets, seed=0, try_cures=False)
    except Exception as error:
        return None, [f"not diagnosed: {first_line(error, kind=True)}"]
    signal = {
        "forward_gain": report.forward_gain,
        "backward_gain": report.backward_gain,
        "loss": report.loss,
        "verdicts": sorted({verdict.kind for verdict in report.verdicts}),
    }
    return signal, []
