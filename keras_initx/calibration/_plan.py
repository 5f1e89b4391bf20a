"""The plan of one calibration: which kernels it changes, by which aim, and why it leaves others alone."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import cast

from keras_initx._types import Arrays, Batch, Loss, Model
from keras_initx.calibration._aim import Aim
from keras_initx.calibration._draw import Update
from keras_initx.calibration._gates import Cell, find_cells
from keras_initx.calibration._report import FROZEN
from keras_initx.calibration._rewritten import Rewritten, find_rewritten
from keras_initx.calibration._settings import Settings
from keras_initx.initializers import Law, ModelLaw, makes_heads
from keras_initx.losses import Objective
from keras_initx.walk import KernelSite

__all__ = ["Job", "Plan", "Update", "make_plan", "model_law"]

# Laws that calibrate nothing but heads, or nothing but adapters.
_APART = {"adapter": "a law that starts adapters", "head": "a law that makes heads"}


@dataclasses.dataclass(frozen=True)
class Job:
    """A model and the data that it is calibrated on.

    Attributes:
        model: The model.
        batch: The rows that the model is called on.
        targets: Their targets, or None.
        settings: The settings of the call.
        objective: The loss whose gradients a law over the model takes; None for other laws.
        pairs: All batches with their targets, for laws that make heads or take the moments of inputs; `batch`
            is the first of them.
        loss: The loss that tells the form of the targets of a head; None for the model's own.
    """

    model: Model
    batch: Batch
    targets: Arrays | None
    settings: Settings
    objective: Objective | None = None
    pairs: Iterable[tuple[Batch, Arrays]] = ()
    loss: Loss | None = None


@dataclasses.dataclass(eq=False)
class Plan:
    """The kernels of a calibration.

    Attributes:
        aims: The aim of each kernel that was chosen.
        notes: Why a kernel is left as it is; empty if it is calibrated. Passes add notes. Kernels of known
            recurrent cells are not here: their cells have them.
        cells: The recurrent cells, each with its kernels.
        rewritten: The kernels that a training call or step sets anew.
    """

    aims: dict[KernelSite, Aim]
    notes: dict[KernelSite, str]
    cells: list[Cell]
    rewritten: Rewritten

    @property
    def for_heads(self) -> bool:
        """Whether the laws make heads from their features."""
        return any(makes_heads(aim.law) for aim in self.aims.values())

    @property
    def for_adapters(self) -> bool:
        """Whether the laws start adapters."""
        return any(aim.law is not None and aim.law.scope == "adapter" for aim in self.aims.values())

    @property
    def model_law(self) -> ModelLaw | None:
        """The law over the whole model; None where each kernel has a law of its own."""
        return model_law(self.aims)


def model_law(aims: Mapping[KernelSite, Aim]) -> ModelLaw | None:
    """Returns the law over the whole model among the aims, or None if there is none.

    Raises:
        ValueError: If there is another law beside it.
    """
    laws = {aim.name: aim.law for aim in aims.values()}
    whole = next((law for law in laws.values() if law is not None and law.scope == "model"), None)
    apart = next((law for law in laws.values() if law is not None and law.scope in _APART), None)
    one = whole or apart
    others = sorted(
        name
        for name, law in laws.items()
        if law is not one and not (apart and one is apart and law is not None and law.scope == apart.scope)
    )
    if one is None or not others:
        return cast("ModelLaw | None", whole)
    kind = "a law over the whole model" if one is whole else _APART[one.scope]
    raise ValueError(
        "`initializer` must be given where the layers' own laws are of several kinds. Received: "
        f"{type(one).__name__}, {kind}, beside {others}. Call `calibrate` once for each kind, with "
        "`initializer`."
    )


def make_plan(
    job: Job,
    aims: dict[KernelSite, Aim],
    rewritten: Rewritten | None = None,
    tied: Mapping[KernelSite, str] | None = None,
) -> Plan:
    """Returns the plan of a calibration.

    Args:
        job: The model and its data.
        aims: The aim of each kernel that was chosen.
        rewritten: The kernels that training sets anew, where they are known already.
        tied: Why a first attempt found that kernels have to be left as they are.
    """
    rewritten = rewritten or find_rewritten(job.model, job.batch, aims, job.settings.redraw)
    known = {**rewritten.notes, **(tied or {})}
    whole = model_law(aims) is not None
    cells = [] if whole else find_cells(job.model, aims, job.settings.frozen, known)
    in_cells = {site for cell in cells for site in cell.sites}
    notes = {
        site: known.get(site) or _reason(site, aim, job.settings.frozen)
        for site, aim in aims.items()
        if site not in in_cells
    }
    return Plan(aims, notes, cells, rewritten)


def _reason(site: KernelSite, aim: Aim, frozen: bool) -> str:
    """Returns why a kernel is left as it is; empty if it is calibrated."""
    law = aim.law
    # A law over the model needs no pre-activation, only a kernel that may be changed.
    whole = law is not None and law.scope == ("adapter" if site.is_factor else "model")
    obstacle = site.skip if whole else site.obstacle
    if obstacle or not (site.kernel.trainable or frozen):
        return obstacle or FROZEN
    refusal = "" if law is None else law.refuses(site)
    # A head that gets the means of a prior needs its units, whatever the law of its kernel.
    return refusal or (Law.refuses_units(site) if aim.per_unit else "")
