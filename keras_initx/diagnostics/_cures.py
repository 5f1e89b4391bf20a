"""Cures: calls that change a model, tried on it and taken back before one is named."""

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initx.calibration import calibrate
from keras_initx.diagnostics._exam import Exam, Examined
from keras_initx.diagnostics._report import Verdict
from keras_initx.diagnostics._updates import current_rate
from keras_initx.diagnostics._verdicts import Finding
from keras_initx.gradients import to_numpy
from keras_initx.initializers import LSUV
from keras_initx.strategies import initialize
from keras_initx.walk import KernelSite

__all__ = ["name_cures"]

_TRIES = 8
_NAMED = 6  # kernels that a cure names at most; beyond, it is for the whole model
_KEPT = 0.5  # of what the gradient promises, by a step of the rate that is named
_CENTERED = "initx.initializers.LSUV(remove_mean=True)"
_LAWS: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    '"by_role"': lambda: "by_role",
    '"initx>LSUV"': lambda: "initx>LSUV",
    '"initx>WithinLayer"': lambda: "initx>WithinLayer",
    _CENTERED: lambda: LSUV(remove_mean=True),
}
_UNKNOWN_RATE = "  # a deep net then wants a smaller learning rate"
Options = tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class _Cure:
    """A call of `initialize` or `calibrate`, by its law as code; then a learning rate, where it needs one."""

    law: str
    options: Options = ()
    rate: float | None = None
    note: str = ""

    @property
    def draws(self) -> bool:
        return self.law in ("None", '"by_role"')

    def apply(self, model: Any, batch: Any) -> None:
        law, options = _LAWS[self.law](), dict(self.options)
        initialize(model, law, **options) if self.draws else calibrate(model, batch, law, **options)

    def __str__(self) -> str:
        verb, data = ("initialize", "") if self.draws else ("calibrate", "data, ")
        options = "".join(f", {name}={_code(value)}" for name, value in self.options)
        call = f"initx.{verb}(model, {data}{self.law}{options})"
        return call + self.note if self.rate is None else f"{call}; {_set_rate(self.rate)}"


@dataclasses.dataclass(frozen=True)
class _Trial:
    cure: _Cure
    left: frozenset[tuple[str, str]]
    excess: float


def name_cures(exam: Exam, found: Examined, seed: int, tried: bool) -> tuple[Verdict, ...]:
    """Returns a verdict for each finding, with the cure that leaves least to complain of.

    Args:
        exam: What the model is examined on.
        found: What that found.
        seed: Seed of what cures draw.
        tried: Whether to try cures, or to name the first that would be; several processes try none.
    """
    trials: dict[_Cure, _Trial | None] = {}
    tried = tried and not _several()
    others = [finding for finding in found.findings if finding.kind != "update"]
    known = {finding.key for finding in found.findings}
    priors = _priors(exam.sites, others)
    with _put_back(exam.model) if tried and others else contextlib.nullcontext() as put_back:
        for finding in others if tried else ():
            if _best(finding, known, trials, clean=True):
                continue
            for cure in _candidates(finding, others, exam.sites, seed):
                if cure not in trials and len(trials) < _TRIES:
                    trials[cure] = _try(cure, exam, known, priors, put_back)
                if _best(finding, known, trials, clean=True):
                    break
    return tuple(
        Verdict(finding.path, finding.kind, finding.message, cure)
        for finding in found.findings
        for cure in [_cure_of(finding, others, exam, found, seed, known, trials if tried else None)]
    )


def _several() -> bool:
    """Whether several processes train the model: `calibrate` waits for all of them, and one may diagnose."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    return jax.process_count() > 1


def _cure_of(
    finding: Finding,
    others: Sequence[Finding],
    exam: Exam,
    found: Examined,
    seed: int,
    known: set[tuple[str, str]],
    trials: dict[_Cure, _Trial | None] | None,
) -> str:
    if finding.kind == "update":
        rate = _rate(exam, found, search=trials is not None)
        if rate is None:
            return "# no learning rate that was tried removes it"
        settable = current_rate(exam.model)[1]
        return _set_rate(rate) if settable else f"# give the optimizer a schedule that starts at {rate:g}"
    if trials is None:
        return str(next(_candidates(finding, others, exam.sites, seed)))
    best = _best(finding, known, trials)
    return str(best.cure) if best else f"# {len(trials)} cures were tried, and none removes it alone"


def _best(
    finding: Finding,
    known: set[tuple[str, str]],
    trials: dict[_Cure, _Trial | None],
    clean: bool = False,
) -> _Trial | None:
    """The trial that removes a finding, raises no other and leaves least; of equals the first.

    Args:
        finding: What is to be removed.
        known: What was found before.
        trials: The trials so far; None for a cure that cannot be applied.
        clean: Whether to return it only if nothing at all is left.
    """
    fit = [t for t in trials.values() if t and finding.key not in t.left and t.left <= known]
    best = min(fit, key=lambda trial: (len(trial.left), trial.excess), default=None)
    wanted = frozenset(key for key in known if key[0] == "update")
    return None if best and clean and (best.left - wanted or best.excess) else best


def _candidates(
    finding: Finding, others: Sequence[Finding], sites: Sequence[KernelSite], seed: int
) -> Iterator[_Cure]:
    """Cures of a finding, those that change least first."""
    alike = tuple(path for other in others if other.kind == finding.kind for path in other.paths)
    scopes = dict.fromkeys((finding.paths, alike))
    for paths in [*(paths for paths in scopes if 0 < len(paths) <= _NAMED), ()]:
        scope = _scope(paths, sites)
        draws = (*scope, *_kept(paths, _priors(sites, others)), ("seed", seed))
        if finding.kind == "duplicate" and paths:
            yield _Cure("None", (*scope, ("seed", seed + 1)))  # the seed that made them equal may be this one
        yield _Cure('"by_role"', draws)
        if finding.kind == "dead":
            yield _Cure(_CENTERED, scope)
            yield _Cure(_CENTERED, (*scope, ("redraw", True), ("seed", seed)))
        elif finding.kind in ("saturated", "collapse", "forward", "backward", "variance"):
            yield _Cure('"initx>LSUV"', scope)
            if not paths:
                yield _Cure('"initx>LSUV"', (("redraw", True), ("seed", seed)))
        if finding.kind in ("saturated", "collapse"):
            yield _Cure(_CENTERED, scope)
            yield _Cure('"initx>WithinLayer"', scope)


def _scope(paths: Sequence[str], sites: Sequence[KernelSite]) -> Options:
    if not paths:
        return ()
    found = [site for site in sites if site.path in paths]
    frozen = any(not (site.layer.trainable and site.kernel.trainable) for site in found)
    include = ("include", paths[0] if len(paths) == 1 else tuple(paths))
    return (include, ("frozen", True)) if frozen else (include,)


def _priors(sites: Sequence[KernelSite], findings: Sequence[Finding]) -> dict[str, Any]:
    """Biases of heads that hold something, as a prior does, unless they are at fault themselves."""
    faulty = {finding.path for finding in findings if finding.kind in ("dead", "nonfinite")}
    values = {
        f"{site.path}/{site.bias.name}": to_numpy(ops.convert_to_tensor(site.bias.value))
        for site in sites
        if site.is_output and site.bias is not None and site.path not in faulty
    }
    return {path: value for path, value in values.items() if np.any(value != 0)}


def _kept(paths: Sequence[str], priors: Iterable[str]) -> Options:
    """Keeps a draw of these kernels, or of all, from setting priors back."""
    held = tuple(prior for prior in priors if not paths or prior.rpartition("/")[0] in paths)
    return (("exclude", held[0] if len(held) == 1 else held),) if held else ()


def _try(
    cure: _Cure, exam: Exam, known: set[tuple[str, str]], priors: dict[str, Any], put_back: Any
) -> _Trial | None:
    """Applies a cure, examines the model and takes the cure back; None if it cannot be applied."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cure.apply(exam.model, exam.batch)
        now = _priors(exam.sites, ())
        if any(path not in now or not np.allclose(now[path], old, 0.1) for path, old in priors.items()):
            return None  # it would undo a prior
        after = exam.run()
        left = frozenset(finding.key for finding in after.findings)
        if rises := {key for key in left - known if key[0] == "update"}:
            rate = _rate(exam, after) if current_rate(exam.model)[1] else None
            if rate is not None:
                cure, left = dataclasses.replace(cure, rate=rate), left - rises
        elif after.step is None or after.step.kept is None:
            whole = not cure.draws and "include" not in dict(cure.options)
            cure = dataclasses.replace(cure, note=_UNKNOWN_RATE if whole else "")
        return _Trial(cure, left, after.excess)
    except Exception:  # whatever it is, the model was not cured
        return None
    finally:
        put_back()


def _rate(exam: Exam, found: Examined, search: bool = True) -> float | None:
    """The largest learning rate of 1, 2 and 5 times a power of ten whose step is not too long."""
    rate, _ = current_rate(exam.model)
    kernels = {id(site.kernel) for site in exam.sites}
    step = found.step
    if step is None or not 0 < rate < math.inf:
        return None
    largest = max((ratio for key, ratio in step.ratios.items() if key in kernels), default=0.0)
    rate = _below(rate / (10 * largest) if 1 < largest < math.inf else rate)
    for _ in range(12):
        if not search:
            return rate
        step = exam.step(found.loss, found.gradients, rate)
        ratios = [ratio for key, ratio in step.ratios.items() if key in kernels] if step else []
        if step and max(ratios, default=0.0) <= 1 and (step.kept is None or step.kept >= _KEPT):
            return rate
        rate = _below(rate)
    return None


def _below(rate: float) -> float:
    """The next smaller number of 1, 2 and 5 times a power of ten.

    >>> [_below(rate) for rate in (1.0, 0.5, 0.03)]
    [0.5, 0.2, 0.02]
    """
    power = math.floor(math.log10(rate)) - 1
    steps = [float(f"{digit}e{power + more}") for more in (0, 1) for digit in (1, 2, 5)]
    return max(step for step in steps if step < rate * (1 - 1e-6))


def _set_rate(rate: float) -> str:
    return f"model.optimizer.learning_rate = {rate:g}"


def _code(value: Any) -> str:
    """The value as code, with double quotes."""
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"[{', '.join(map(_code, value))}]" if isinstance(value, tuple) else repr(value)


@contextlib.contextmanager
def _put_back(model: Any) -> Iterator[Callable[[], None]]:
    """Yields what gives all variables of a model and its optimizer the values that they have now."""
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer is not None else ())]
    saved = [(variable, ops.copy(variable.value)) for variable in variables]

    def put_back() -> None:
        for variable, value in saved:
            variable.assign(value)

    try:
        yield put_back
    finally:
        put_back()
