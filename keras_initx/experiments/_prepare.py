"""A trial's model before its first step: built, drawn, calibrated and diagnosed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from keras_initx.calibration import CalibrationReport, calibrate_drawn
from keras_initx.checks import first_line
from keras_initx.data import take_pair
from keras_initx.diagnostics import diagnose
from keras_initx.experiments._batches import is_arrays
from keras_initx.experiments._problem import Problem, build_model, rows_to_try
from keras_initx.experiments._trial import Trial
from keras_initx.initializers import is_bias_initializer
from keras_initx.strategies import Plan, initialize

__all__ = ["Prepared", "draw", "prepare"]

_SAMPLES = 256  # rows of training data that a law and the diagnosis see
_SHOWN = 3  # paths in a note


class Prepared(NamedTuple):
    """A model ready for its first step."""

    model: Any
    train: Any  # the training data, where they are arrays; others are opened again for `fit`
    signal: dict[str, Any] | None
    notes: tuple[str, ...]


def prepare(problem: Problem, trial: Trial) -> Prepared:
    """Builds, initializes, calibrates and diagnoses the model of a trial."""
    model = build_model(problem, trial.seed)
    if trial.learning_rate is not None:
        model.optimizer.learning_rate = trial.learning_rate
    drew = draw(model, problem.schemes[trial.initializer], trial.seed)
    train = problem.data("train", trial.seed)
    sample, targets = take_pair(model, train, rows_to_try(model, _SAMPLES))
    reports = calibrate_drawn(model, sample, drew, targets=targets, seed=trial.seed)
    signal, notes = _diagnose(model, sample, targets)
    arrays = train if is_arrays(train) else None
    return Prepared(model, arrays, signal, (*_unapplied(reports), *notes))


def draw(model: Any, scheme: Any, seed: int) -> Any:
    """Draws the weights of a model by a scheme, and returns what drew its kernels.

    Returns:
        What `calibrate_drawn` takes: an initializer, a dict of paths and initializers, or None.
    """
    if is_bias_initializer(scheme):  # a law of biases: as a kernel's it would draw zeros
        initialize(model, None, seed=seed)
        return scheme
    if not hasattr(scheme, "plan"):
        initialize(model, scheme, seed=seed)
        return scheme
    recorded = _Recorded(scheme)
    initialize(model, recorded, seed=seed)
    return recorded.drew


class _Recorded:
    """A strategy that remembers what it planned."""

    def __init__(self, strategy: Any) -> None:
        self.strategy = strategy
        self.drew: dict[str, Any] = {}

    def plan(self, sites: Sequence[Any], model: Any = None) -> Plan:
        """Returns the plan of the strategy."""
        plan: Plan = self.strategy.plan(sites, model)
        self.drew = {site.path: planned.initializer for site, planned in plan.items()}
        return plan


def _unapplied(reports: Sequence[CalibrationReport]) -> list[str]:
    """What no law was applied to, though one drew it, by reason."""
    by_reason: dict[str, list[str]] = {}
    for report in reports:
        for row in report.rows:
            if not row.iterations:
                by_reason.setdefault(row.note, []).append(row.path)
    return [f"not calibrated: {_listed(paths)} ({reason})" for reason, paths in by_reason.items()]


def _listed(paths: list[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more


def _diagnose(model: Any, sample: Any, targets: Any) -> tuple[dict[str, Any] | None, list[str]]:
    """What `diagnose` finds, or None and why it fails: a model that `fit` understands is trained anyway."""
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
