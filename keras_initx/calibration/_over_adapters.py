"""Calibration by laws of adapters: EVA from one pass over the data, LoRA-GA from the gradient of a batch.

pass      all batches, one after another: second moments of what each adapted layer gets
gradient  or one batch: the gradient of the loss with respect to each base kernel
start     the law makes A, and B or zeros
write     A and B get their values; a base loses scale A B if B is not zero
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import keras
import numpy as np
from keras import ops, tree

import keras_initx.probe as probe
from keras_initx._types import Batch, Tensor, Variable
from keras_initx.adapters import began, given_back, is_less
from keras_initx.calibration._filters import rows_for
from keras_initx.calibration._plan import Job, Plan, Update
from keras_initx.calibration._report import CONSTANT, CalibrationRow
from keras_initx.data import check_looked_up, knows_inputs, refusal
from keras_initx.gradients import to_numpy, value_and_gradients
from keras_initx.initializers import AdapterLaw, explained
from keras_initx.walk import Adapter, KernelSite, input_specs

__all__ = ["act_over_adapters"]

# The tensors whose moments a pass has taken, each with its moments and its number of rows.
Seen = dict[tuple[int, tuple[int, ...]], tuple[Tensor, np.ndarray, int]]

_WORDS = "its layer gets numbers of words, which have no directions: left as it is"
_GROUPS = "its convolution has groups, whose inputs differ: left as it is"
_QUANTIZED = "its base is quantized: start the adapter before `quantize`"
_OTHER = "its factor A does not take the inputs of the layer: left as it is"
_UNREACHED = "nothing reaches its layer on this data: left as it is"


def act_over_adapters(job: Job, plan: Plan, update: Update) -> tuple[list[CalibrationRow], dict[str, Any]]:
    """Starts the adapters of a plan; returns the rows and the totals of the report."""
    chosen = [site for site, note in plan.notes.items() if not note]
    law = cast("AdapterLaw", plan.aims[chosen[0]].law) if chosen else None
    notes = dict(plan.notes) | {site: _refused(site, law) for site in chosen}
    sites = [site for site in chosen if not notes[site]]
    if law is None or not sites:
        return [CalibrationRow(s.path, s.role, note=note) for s, note in notes.items()], {"forward_passes": 0}
    matrices, samples = _moments(job, sites) if law.takes == "moments" else _gradients(job, sites)
    rows, written, shares = [], {}, []
    for site in notes:
        if site not in matrices:
            note = notes[site] or _UNREACHED
        elif not matrices[site].any():
            note = CONSTANT if law.takes == "moments" else "its gradient is zero: left as it is"
        else:
            note = ""
            path = site.path.rpartition("/")[0]
            written[path] = (
                _adapter(site),
                _write(site, cast("AdapterLaw", plan.aims[site].law), matrices[site], update),
            )
            if law.takes == "moments":
                most = min(2 * _adapter(site).rank, *_adapter(site).shape)
                shares += [(float(share), path) for share in explained(matrices[site])[:most]]
        rows.append(CalibrationRow(site.path, site.role, iterations=int(not note), note=note))
    # Remembered when nothing can fail any more.
    starts = tuple(began(path, base, adapter, adapter.alpha) for path, (adapter, base) in written.items())
    totals: dict[str, Any] = {"forward_passes": 1, "samples": samples, "starts": starts}
    if law.takes == "moments":
        budget = sum(_adapter(site).rank for site in matrices if matrices[site].any())
        totals["ranks"] = _ranks(shares, budget)
    return rows, totals


def _moments(job: Job, sites: Sequence[KernelSite]) -> tuple[dict[KernelSite, np.ndarray], int]:
    """Runs the model over all batches; returns second moments of the inputs, and the number of rows."""
    sums: dict[KernelSite, np.ndarray] = {}
    counts = dict.fromkeys(sites, 0)
    total = 0
    for batch, labels in job.pairs:
        check_looked_up(job.model, batch, lambda: input_specs(job.model))
        # Queries, keys and values often get one tensor: its moments are taken once.
        seen: Seen = {}
        hooks = [(site.layer, _keeper(site, sums, counts, seen)) for site in sites]
        _run(job, batch, hooks)
        rows = len(tree.flatten(batch)[0])
        kept = next((len(leaf) for leaf in tree.flatten(labels) if leaf is not None), rows)
        total += min(rows, kept)
    return {site: found / counts[site] for site, found in sums.items()}, total


def _run(job: Job, batch: Batch, hooks: Sequence[tuple[Any, Callable[..., None]]]) -> None:
    try:
        probe.run(
            job.model, batch, [], lambda _, output: output, before=hooks, training=job.settings.training
        )
    except (TypeError, ValueError) as error:
        if knows_inputs(job.model) or probe.is_refusal(error):
            raise
        raise refusal(job.model, batch, error) from error


def _refused(site: KernelSite, law: AdapterLaw | None) -> str:
    """Returns why a law cannot start an adapter; empty if it can."""
    adapter = _adapter(site)
    if getattr(site.layer, "quantization_mode", None):
        return _QUANTIZED
    if law is None or law.takes == "gradient":
        return ""
    if adapter.kind == "embedding":
        return _WORDS
    if getattr(site.layer, "groups", 1) > 1:
        return _GROUPS
    last = len(site.kernel.shape) - 1
    batched = site.axes is not None and len(site.axes[0]) + len(site.axes[1]) <= last
    if last in adapter.summed or batched:
        return _OTHER
    inputs = math.prod(site.kernel.shape[axis] for axis in adapter.summed)
    return f"its rank is larger than its {inputs} inputs" if adapter.rank > inputs else ""


def _keeper(
    site: KernelSite,
    sums: dict[KernelSite, np.ndarray],
    counts: dict[KernelSite, int],
    seen: Seen,
) -> Callable[..., None]:
    """Returns a function that adds the second moments of a layer's input to its sums."""

    def keep(inputs: Tensor, *_: object, **__: object) -> None:
        order = _order(site, len(inputs.shape))
        key = (id(inputs), (id(site),) if _adapter(site).kind == "conv" else order)
        if key not in seen:
            rows = _rows(site, inputs, order)
            product = ops.matmul(ops.transpose(rows), rows)
            seen[key] = inputs, np.asarray(to_numpy(product), "float64"), int(rows.shape[0])
        _, moments, count = seen[key]
        counts[site] += count
        sums[site] = sums[site] + moments if site in sums else moments

    return keep


def _order(site: KernelSite, rank: int) -> tuple[int, ...]:
    """The axes of an input, with those that A sums over last, in the order in which A has them."""
    equation = getattr(site.layer, "equation", None)
    if site.axes is None or equation is None:
        return tuple(range(rank))
    taken, kernel = equation.split("->")[0].split(",")
    before, _, after = taken.rpartition("...") if "..." in taken else ("", "", taken)
    places = {
        x: before.index(x) if x in before else rank - len(after) + after.index(x) for x in before + after
    }
    last = [places[kernel[axis]] for axis in site.axes[0]]
    return (*(axis for axis in range(rank) if axis not in last), *last)


def _rows(site: KernelSite, inputs: Tensor, order: tuple[int, ...]) -> Tensor:
    """The rows that A multiplies, float32 of shape (rows, fan_in)."""
    if _adapter(site).kind == "conv":
        patches = rows_for(dataclasses.replace(site, role="conv"), inputs)
        return ops.convert_to_tensor(patches.reshape(-1, patches.shape[-1]))
    width = math.prod(site.kernel.shape[axis] for axis in _adapter(site).summed)
    return ops.reshape(ops.transpose(ops.cast(inputs, "float32"), order), (-1, width))


def _gradients(job: Job, sites: Sequence[KernelSite]) -> tuple[dict[KernelSite, np.ndarray], int]:
    """Returns the gradient of the loss of the batch with respect to each base kernel, as a matrix."""
    adapters = [_adapter(site) for site in sites]
    variables = [adapter.kernel for adapter in adapters]
    objective, batch, targets = job.objective, job.batch, job.targets
    assert objective is not None
    rows = len(tree.flatten(batch)[0])  # targets that were given as arrays may have more
    batch, targets = (
        tree.map_structure(lambda leaf: None if leaf is None else ops.convert_to_tensor(leaf[:rows]), part)
        for part in (batch, targets)
    )

    def loss(values: Sequence[Tensor]) -> Tensor:
        with keras.StatelessScope(list(zip(variables, values, strict=True)), collect_losses=True):
            return objective(batch, targets, job.model(batch, training=job.settings.training))

    values = [ops.convert_to_tensor(variable.value) for variable in variables]
    _, gradients = value_and_gradients(loss, values, nested=False)
    found = {
        site: np.asarray(to_numpy(ops.cast(gradient, "float32")), "float64").reshape(adapter.shape)
        for site, adapter, gradient in zip(sites, adapters, gradients, strict=True)
    }
    for site, matrix in found.items():
        if not np.isfinite(matrix).all():
            raise ValueError(
                f"`data` must give finite gradients. Received: NaN or Inf at `{site.path}`. Scale `data` or "
                "the weights down, or use float32; the weights are unchanged."
            )
    return found, rows


def _adapter(site: KernelSite) -> Adapter:
    assert site.adapter is not None
    return site.adapter


def _write(site: KernelSite, law: AdapterLaw, matrix: np.ndarray, update: Update) -> Literal["kept", "less"]:
    """Writes the factors that a law makes, and takes them off the base; returns what became of the base."""
    adapter, path = _adapter(site), site.path.rpartition("/")[0]
    try:
        a, b = law.start(matrix, adapter.rank)
    except ValueError as error:
        raise ValueError(f"`{path}`: {error} Leave it out with `exclude`.") from error
    a = _in_shape(site, a) if law.takes == "moments" else a
    base = np.zeros((adapter.rank, adapter.shape[1])) if b is None else b
    if b is not None:
        taken = adapter.scale * a @ b - adapter.scale * _matrix(adapter.a, adapter) @ _matrix(adapter.b)
        update(adapter.kernel, _less(taken, adapter.kernel))
    elif is_less(adapter):
        whole = ops.convert_to_numpy(given_back(adapter))
        update(adapter.kernel, _constant(whole, adapter.kernel))
    for variable, value in ((adapter.a, a), (adapter.b, base)):
        update(variable, _constant(value, variable))
    return "kept" if b is None else "less"


def _in_shape(site: KernelSite, columns: np.ndarray) -> np.ndarray:
    """Brings columns over the summed axes to the matrix of A: each other axis repeats them."""
    shape, summed = tuple(site.kernel.shape), _adapter(site).summed
    rank = len(shape)
    sizes = [shape[axis] for axis in summed]
    spread = columns.reshape(*sizes, columns.shape[-1])
    rest = [axis for axis in range(rank - 1) if axis not in summed]
    spread = np.expand_dims(np.moveaxis(spread, range(len(sizes)), np.argsort(np.argsort(summed))), rest)
    return np.broadcast_to(spread, shape).reshape(-1, shape[-1])


def _matrix(variable: Variable, adapter: Adapter | None = None) -> np.ndarray:
    value = np.asarray(ops.convert_to_numpy(ops.cast(variable.value, "float32")), "float64")
    return value if adapter is None else value.reshape(-1, adapter.rank)


def _less(taken: np.ndarray, variable: Variable) -> Callable[[Tensor], Tensor]:
    def less(old: Tensor) -> Tensor:
        part = ops.convert_to_tensor(taken.reshape(tuple(variable.shape)), "float32")
        return ops.cast(ops.cast(old, "float32") - part, variable.dtype)

    return less


def _constant(value: np.ndarray, variable: Variable) -> Callable[[Tensor], Tensor]:
    return lambda _: ops.convert_to_tensor(value.reshape(tuple(variable.shape)), variable.dtype)


def _ranks(shares: list[tuple[float, str]], budget: int) -> dict[str, int]:
    """The rank of each adapter if all columns went to the directions that explain most of their inputs."""
    chosen = [path for _, path in sorted(shares, key=lambda pair: -pair[0])[:budget]]
    return {path: chosen.count(path) for path in dict.fromkeys(path for _, path in shares)}
