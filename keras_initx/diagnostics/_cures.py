"""The search for cures: each cure is tried on the model and taken back before a verdict names it.

    a finding ──> candidates, the smallest change first          _candidates
                      │
                      v
                  apply to the model, examine, put back          _try
                      │
                      v
                  trials: the findings that each leaves, and how far the signal is from unit size
                      │
                      v
                  keep the trials that remove the finding and raise no other,
                  and take the trial that leaves least           _best

A trial counts for all findings, since one cure often removes several. The search for a finding ends at the
first trial after which nothing is left, and the whole search ends after eight trials.
"""

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import keras
import numpy as np
from keras import ops

from keras_initx._keras_internals import flatten_layers
from keras_initx._types import Model
from keras_initx.diagnostics._cure import CENTERED, Cure, Options
from keras_initx.diagnostics._exam import Exam, Examined
from keras_initx.diagnostics._rates import find_rate, set_rate
from keras_initx.diagnostics._report import Verdict
from keras_initx.diagnostics._updates import current_rate
from keras_initx.diagnostics._verdicts import Finding
from keras_initx.gradients import to_numpy
from keras_initx.walk import KernelSite

__all__ = ["name_cures"]

_TRIES = 8  # an examination takes about as long as a training step
_NAMED = 6  # kernels in one cure; a longer list is hard to read, and the whole model is changed instead
_ATTRIBUTES = ("lora_alpha", "train_function", "test_function", "predict_function")
_UNKNOWN_RATE = "  # a deep net may then need a smaller learning rate"


@dataclasses.dataclass(frozen=True)
class _Trial:
    """A cure that was tried, the keys of the findings after it, and the excess of the signal."""

    cure: Cure
    left: frozenset[tuple[str, str]]
    excess: float


_Trials = dict[Cure, _Trial | None]  # None for a cure that cannot be applied


@dataclasses.dataclass(frozen=True)
class _Case:
    """The facts that stay the same during a search.

    Attributes:
        exam: The model with everything that an examination needs.
        found: Its examination before any cure.
        chosen: Paths of the kernels to report on.
        findings: The findings to cure by new weights: all of the chosen kernels but `update`, whose cure is a
            learning rate.
        priors: Biases of heads that no cure may change, by path.
        seed: Seed of the weights that cures draw.
    """

    exam: Exam
    found: Examined
    chosen: Collection[str]
    findings: Sequence[Finding]
    priors: Mapping[str, np.ndarray]
    seed: int

    @property
    def known(self) -> set[tuple[str, str]]:
        """Keys of all findings of the model: a cure must raise none beside them."""
        return {finding.key for finding in self.found.findings}

    @property
    def wanted(self) -> set[tuple[str, str]]:
        """Keys of the findings to report. Cures are ranked by these alone.

        Otherwise a cure of the whole model would win by the faults that it removes elsewhere, and change
        kernels that nobody asked about.
        """
        return {finding.key for finding in self.found.findings if finding.concerns(self.chosen)}


def name_cures(
    exam: Exam, found: Examined, chosen: Collection[str], seed: int, tried: bool
) -> tuple[Verdict, ...]:
    """Returns a verdict for each finding of the chosen kernels, with the cure that leaves the fewest faults.

    Args:
        exam: The model with everything that an examination needs.
        found: Its examination.
        chosen: Paths of the kernels to report on.
        seed: Seed of the weights that cures draw.
        tried: Whether to try cures. If False, the first candidate is named. A job of several processes tries
            none.
    """
    findings = [finding for finding in found.findings if finding.concerns(chosen)]
    curable = [finding for finding in findings if finding.kind != "update"]
    case = _Case(exam, found, chosen, curable, _priors(exam.sites, found.findings), seed)
    trials = _try_all(case) if tried and not _several() else None
    return tuple(
        Verdict(finding.path, finding.kind, finding.message, _cure_of(case, finding, trials))
        for finding in findings
    )


def _several() -> bool:
    """Whether several processes train the model.

    `calibrate` then waits for all processes, while one process alone may diagnose: a trial would never end.
    """
    if keras.backend.backend() != "jax":
        return False
    import jax

    return jax.process_count() > 1


def _try_all(case: _Case) -> _Trials:
    """Tries candidates for each finding until one leaves nothing to cure, or all tries are used."""
    trials: _Trials = {}
    if not case.findings:
        return trials  # without a copy of all weights
    with _put_back(case.exam.model) as put_back:
        for finding in case.findings:
            if _best(case, finding, trials, clean=True):
                continue
            for cure in _candidates(case, finding):
                if cure not in trials and len(trials) < _TRIES:
                    trials[cure] = _try(case, cure, put_back)
                if _best(case, finding, trials, clean=True):
                    break
    return trials


def _cure_of(case: _Case, finding: Finding, trials: _Trials | None) -> str:
    """Returns the cure of a finding as code; a comment if there is none. Without tries, `trials` is None."""
    if finding.kind == "update":
        rate = find_rate(case.exam, case.found, search=trials is not None)
        if rate is None:
            return "# none of the learning rates that were tried removes it"
        # A schedule is an object of the user's: code that replaces it by a number would do harm.
        settable = current_rate(case.exam.model)[1]
        return set_rate(rate) if settable else f"# give the optimizer a schedule that starts at {rate:g}"
    if trials is None:
        return str(next(_candidates(case, finding)))
    best = _best(case, finding, trials)
    return str(best.cure) if best else f"# {len(trials)} cures were tried, and none removes it alone"


def _best(case: _Case, finding: Finding, trials: _Trials, clean: bool = False) -> _Trial | None:
    """Returns the trial that removes a finding, raises no other, and leaves least; the first among equals.

    Args:
        case: The facts of the search.
        finding: The finding to remove.
        trials: The trials so far.
        clean: Whether to return the trial only if it leaves nothing that new weights can cure.
    """
    known, wanted = case.known, case.wanted
    # What is wrong with an adapter is no reason to draw its base.
    laws = [t for t in trials.values() if t and finding.cure in ("", t.cure.law)]
    fit = [t for t in laws if finding.key not in t.left and t.left <= known]
    best = min(fit, key=lambda trial: (len(trial.left & wanted), trial.excess), default=None)
    updates = {key for key in known if key[0] == "update"}
    return None if best and clean and ((best.left & wanted) - updates or best.excess) else best


def _candidates(case: _Case, finding: Finding) -> Iterator[Cure]:
    """Yields cures of a finding, from the smallest change to the largest.

    The scope grows from the kernels of the finding, over the kernels of all findings of its kind, to the
    whole model. Within a scope, a draw comes first: `by_role` needs no data, and its law holds on any data.
    The other candidates depend on the kind:

        dead                            LSUV with means removed, since a bias may hold the units at 0
        saturated, collapse             LSUV, then the two laws that move biases, too
        forward, backward, variance     LSUV, which meets the law where the fans do not tell the size
    """
    same = [o for o in case.findings if (o.kind, o.cure) == (finding.kind, finding.cure)]
    alike = tuple(path for other in same for path in other.paths)
    scopes = dict.fromkeys((finding.paths, alike))
    for paths in [*(paths for paths in scopes if 0 < len(paths) <= _NAMED), ()]:
        scope = _scope(paths, case.exam.sites)
        seeded = ("seed", case.seed)
        if finding.cure and (paths or finding.cure == '"LoRA"'):  # an alpha is for layers that lost it
            yield Cure(finding.cure, (*scope, seeded))
        if finding.cure:
            continue
        if finding.kind == "duplicate" and paths:
            # The seed that made the kernels equal may be this one, so the copies get the next.
            yield Cure("None", (*scope, ("seed", case.seed + 1)))
        yield Cure('"by_role"', (*scope, *_kept(paths, case.priors), seeded))
        if finding.kind == "dead":
            yield Cure(CENTERED, scope)
            # Kernels of zeros cannot be rescaled: they are drawn first.
            yield Cure(CENTERED, (*scope, ("redraw", True), seeded))
        elif finding.kind in ("saturated", "collapse", "forward", "backward", "variance"):
            yield Cure('"initx>LSUV"', scope)
            if not paths:
                yield Cure('"initx>LSUV"', (("redraw", True), seeded))
        if finding.kind in ("saturated", "collapse"):
            yield Cure(CENTERED, scope)
            yield Cure('"initx>WithinLayer"', scope)


def _scope(paths: Sequence[str], sites: Sequence[KernelSite]) -> Options:
    """The arguments that limit a call to these kernels, or to none if there are no paths."""
    if not paths:
        return ()
    found = [site for site in sites if site.path in paths and site.adapter is None]
    # The verbs leave frozen kernels alone unless they are told.
    frozen = any(not (site.layer.trainable and site.kernel.trainable) for site in found)
    include = ("include", paths[0] if len(paths) == 1 else tuple(paths))
    return (include, ("frozen", True)) if frozen else (include,)


def _priors(sites: Sequence[KernelSite], findings: Sequence[Finding]) -> dict[str, np.ndarray]:
    """The biases of heads that are not zero, by path, unless their head is dead or not finite.

    Such a bias may be a prior, which someone computed from labels. No cure may lose it.
    """
    faulty = {finding.path for finding in findings if finding.kind in ("dead", "nonfinite")}
    values = {
        f"{site.path}/{site.bias.name}": to_numpy(ops.convert_to_tensor(site.bias.value))
        for site in sites
        if site.is_output and site.bias is not None and site.path not in faulty
    }
    return {path: value for path, value in values.items() if np.any(value != 0)}


def _kept(paths: Sequence[str], priors: Iterable[str]) -> Options:
    """The argument that keeps a draw of these kernels, or of the whole model, from resetting priors."""
    held = tuple(prior for prior in priors if not paths or prior.rpartition("/")[0] in paths)
    return (("exclude", held[0] if len(held) == 1 else held),) if held else ()


def _try(case: _Case, cure: Cure, put_back: Callable[[], None]) -> _Trial | None:
    """Applies a cure, examines the model and takes the cure back; None if the cure cannot be applied."""
    exam = case.exam
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cure.apply(exam.model, exam.batch)
        now = _priors(exam.sites, ())
        if any(path not in now or not np.allclose(now[path], old, 0.1) for path, old in case.priors.items()):
            return None  # the cure would undo a prior
        after = exam.run()
        left = frozenset(finding.key for finding in after.findings)
        # Gradients that arrive again make longer steps. The learning rate then belongs to the cure.
        if rises := {key for key in left - case.known if key[0] == "update"}:
            rate = find_rate(exam, after) if current_rate(exam.model)[1] else None
            if rate is not None:
                cure, left = dataclasses.replace(cure, rate=rate), left - rises
        elif after.step is None or after.step.kept is None:
            # No step was measured. A calibration of the whole model changes most, so it comes with a note.
            whole = not cure.draws and "include" not in dict(cure.options)
            cure = dataclasses.replace(cure, note=_UNKNOWN_RATE if whole else "")
        return _Trial(cure, left, after.excess(case.chosen))
    except Exception:  # whatever the reason is, this call does not cure the model
        return None
    finally:
        put_back()


@contextlib.contextmanager
def _put_back(model: Model) -> Iterator[Callable[[], None]]:
    """Yields a function that gives all variables of a model and its optimizer their present values again.

    The function runs once more when the block ends, also after Ctrl-C in the middle of a trial.
    """
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer is not None else ())]
    saved = [(variable, ops.copy(variable.value)) for variable in variables]
    # A start of adapters may set their alphas, and then drops the functions that Keras has compiled.
    owners = flatten_layers(model)
    attributes = [(o, name, getattr(o, name)) for o in owners for name in _ATTRIBUTES if hasattr(o, name)]

    def put_back() -> None:
        for variable, value in saved:
            variable.assign(value)
        for owner, name, kept in attributes:
            setattr(owner, name, kept)

    try:
        yield put_back
    finally:
        put_back()
