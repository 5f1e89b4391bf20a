"""Calibration by laws of heads: one pass collects the features of each head, and its law makes it from them.

trial     the first batch tells which outputs the heads make (`_head_outputs`)
pass      all batches, one after another: the inputs of each head and its targets (`_features`)
solve     the law makes kernel and bias
write     both get their values; nothing else of the model changes
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from keras import ops, tree

import keras_initx.probe as probe
from keras_initx._types import Arrays, Tensor, Variable
from keras_initx.calibration._features import Features
from keras_initx.calibration._head_outputs import Output, form_of_loss, logits_note, rows_of, try_heads
from keras_initx.calibration._plan import Job, Plan, Update
from keras_initx.calibration._report import CalibrationRow
from keras_initx.data import check_looked_up, knows_inputs, refusal, split_weights
from keras_initx.initializers import Head, HeadLaw, HeadRows
from keras_initx.walk import KernelSite, input_specs

__all__ = ["act_over_heads"]

_FED = "another head feeds it: calibrate it by a second call, with `include`"


def act_over_heads(job: Job, plan: Plan, update: Update) -> tuple[list[CalibrationRow], dict[str, Any]]:
    """Makes the heads of a plan and writes them; returns the rows and the totals of the report."""
    heads, notes = _try(job, [site for site, note in plan.notes.items() if not note])
    notes = plan.notes | notes
    collected: dict[KernelSite, Features] = {}
    samples = _collect(job, plan, heads, notes, collected) if heads else 0
    rows = []
    for site, note in notes.items():
        if note:
            rows.append(CalibrationRow(site.path, site.role, note=note))
            continue
        law, features = cast("HeadLaw", plan.aims[site].law), collected[site].collected()
        head = law.solve(features, site.bias is not None)
        off = logits_note(_loss_of(job, site, heads[site]), features.form, heads[site].activation)
        rows.append(_written(site, features, head, off, update))
    return rows, {"forward_passes": 1, "samples": samples} if heads else {"forward_passes": 0}


def _try(job: Job, sites: list[KernelSite]) -> tuple[dict[KernelSite, Output], dict[KernelSite, str]]:
    """Returns the output of each head, and why other kernels are left as they are."""
    found: dict[KernelSite, Output] = {}
    notes: dict[KernelSite, str] = {}
    try:
        while sites:
            found, faults = try_heads(job.model, job.batch, sites, job.settings.training)
            notes |= faults
            if len(found) == len(sites):
                break
            sites = list(found)  # numbers in place of other kernels' outputs reached them: once more without
        return found, notes
    except (TypeError, ValueError) as error:
        if knows_inputs(job.model) or probe.is_refusal(error):
            raise
        raise refusal(job.model, job.batch, error) from error


def _collect(
    job: Job,
    plan: Plan,
    heads: dict[KernelSite, Output],
    notes: dict[KernelSite, str],
    collected: dict[KernelSite, Features],
) -> int:
    """Runs the model over all batches and collects the features of the heads; returns the number of rows."""
    total, first, training = 0, True, job.settings.training
    for batch, labels in job.pairs:
        check_looked_up(job.model, batch, lambda: input_specs(job.model))
        inputs: dict[KernelSite, np.ndarray] = {}
        sites = [site for site in heads if not notes[site]]
        probe.run(job.model, batch, sites, lambda _, output: output, _keeper(inputs), training)
        targets, weights = split_weights(labels)
        total += _rows_in(targets)
        for site in sites:
            rows, output = inputs[site], heads[site]
            if first and not training and not np.allclose(rows, output.rows, 1e-3, 1e-3, equal_nan=True):
                notes[site] = _FED
                continue
            own = np.asarray(output.pick("targets", targets, site.path))
            if first:
                collected[site] = _features_of(job, plan, site, output, own)
            shares = None if weights is None else output.pick("sample_weight", weights, site.path)
            collected[site].add(_finite(rows[: len(own)], site), own, shares)
        first = False
    return total


def _keeper(inputs: dict[KernelSite, np.ndarray]) -> Callable[[KernelSite, Tensor], None]:
    def enter(site: KernelSite, tensor: Tensor) -> None:
        inputs[site] = rows_of(site, tensor)

    return enter


def _rows_in(targets: Arrays) -> int:
    return len(next(leaf for leaf in tree.flatten(targets) if leaf is not None))


def _finite(rows: np.ndarray, site: KernelSite) -> np.ndarray:
    if not np.isfinite(rows).all():
        raise ValueError(
            f"`data` must keep the features of a head finite. Received: NaN or Inf at `{site.path}`. Scale "
            "`data` or the weights down, or use float32 in place of half precision; the weights are "
            "unchanged."
        )
    return rows


def _features_of(job: Job, plan: Plan, site: KernelSite, output: Output, targets: np.ndarray) -> Features:
    law, units = cast("HeadLaw", plan.aims[site].law), int(site.kernel.shape[-1])
    known = form_of_loss(_loss_of(job, site, output))
    activation = output.activation.removeprefix("log_")
    if law.form is None and activation == "linear" and known:
        return Features(law, known, units, site.bias is not None)
    return Features(law, law.form_of(targets, units, activation), units, site.bias is not None)


def _loss_of(job: Job, site: KernelSite, output: Output) -> Any:
    """Returns the loss of one output, or None: the given loss, or the model's own."""
    loss = job.loss if job.loss is not None else getattr(job.model, "loss", None)
    named = not isinstance(loss, dict) or output.name in loss  # a loss may be for other outputs alone
    return output.pick("loss", loss, site.path) if named else None


def _written(site: KernelSite, rows: HeadRows, head: Head, off: str, update: Update) -> CalibrationRow:
    """Writes a head and returns its row."""
    kernel, bias = np.asarray(head.kernel), np.asarray(head.bias)
    before = _std(rows, *(_numpy(variable) for variable in (site.kernel, site.bias)))
    for variable, value in ((site.kernel, kernel), (site.bias, bias)):
        if variable is not None:
            update(variable, _constant(variable, value, site.path))
    told = head.told if site.bias is not None else f"{head.told}, no bias"
    return CalibrationRow(
        path=site.path,
        role=site.role,
        std_before=before,
        std_after=_std(rows, kernel, bias if site.bias is not None else 0.0),
        iterations=1,
        note="; ".join(filter(None, (head.note, off))),
        head=told,
        held_out=head.held_out,
    )


def _constant(variable: Variable, value: np.ndarray, path: str) -> Callable[[Tensor], Tensor]:
    def constant(_: Tensor) -> Tensor:
        tensor = ops.convert_to_tensor(value.reshape(tuple(variable.shape)), variable.dtype)
        if not bool(ops.all(ops.isfinite(tensor))):
            raise ValueError(
                f"`model` must hold the head that the law made. Received: `{path}` in {variable.dtype}, and "
                f"entries up to {np.abs(value).max():.3g}. Use float32 for it, or a larger `regularization`."
            )
        return tensor

    return constant


def _numpy(variable: Variable | None) -> Any:
    if variable is None:
        return 0.0
    return ops.convert_to_numpy(ops.cast(variable.value, "float32")).astype("float64")


def _std(rows: HeadRows, kernel: np.ndarray, bias: Any) -> float:
    """Returns the standard deviation of a head's pre-activation over its rows."""
    flat = rows.flat[rows.weights.ravel() > 0]
    return float(np.std(flat @ kernel.reshape(-1, rows.units) + np.ravel(bias)))
