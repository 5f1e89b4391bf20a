"""Faults of low-rank adapters, and the size of their first update."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from keras import ops

from keras_initx._types import Tensor, Variable
from keras_initx.diagnostics._report import SignalRow
from keras_initx.fans import compute_fans
from keras_initx.walk import Adapter, KernelSite

__all__ = ["are_directions", "faults_of", "update_ratio"]

Fault = tuple[str, str, str, str]  # path of the layer, kind, message, cure


def update_ratio(adapter: Adapter, moved: Mapping[int, Variable]) -> float | None:
    """Returns the change of an adapted kernel by one step, over the root mean square of the kernel.

    Args:
        adapter: The adapter.
        moved: Copies of the variables after the step, by the ids of the variables.

    Returns:
        None if the step moves neither factor, or the base is quantized.
    """
    if getattr(adapter.layer, "quantization_mode", None) or not any(
        id(factor) in moved for factor in (adapter.a, adapter.b)
    ):
        return None
    before = _product(adapter, adapter.a.value, adapter.b.value)
    a, b = (moved.get(id(factor), factor).value for factor in (adapter.a, adapter.b))
    change = _product(adapter, a, b) - before
    size = _rms(ops.reshape(ops.cast(adapter.kernel, "float32"), adapter.shape) + before)
    return _rms(change) / size if size else None


def faults_of(pairs: Sequence[tuple[KernelSite, SignalRow]]) -> Iterator[Fault]:
    """Yields the faults of adapters, with the strategy that cures each.

    Args:
        pairs: The kernels and factors with their rows.
    """
    rows = {id(site.kernel): row for site, row in pairs}
    for site, _ in pairs:
        adapter = site.adapter
        if adapter is None or site.role != "lora_a":
            continue
        path = site.path.rpartition("/")[0]
        a, b = rows.get(id(adapter.a)), rows.get(id(adapter.b))
        if adapter.lost_alpha:
            yield (
                path,
                "adapter",
                f"its adapter counts by {adapter.alpha:g} / {adapter.rank}: Keras forgets the "
                f"lora_alpha={adapter.asked:g} that the layer was made with",
                f"initx.strategies.LoRA(alpha={adapter.asked:g})",
            )
        if a is not None and b is not None and a.weight_std == 0 and b.weight_std == 0:
            message = "its factors A and B are both zero, as in a loaded model: no step moves them"
            yield path, "adapter", message, '"LoRA"'
        elif a is not None and b is not None and b.weight_std == 0 and (told := _fans_note(site, a)):
            yield path, "variance", told, '"LoRA"'


def are_directions(site: KernelSite) -> bool:
    """Whether the columns of a factor A are orthogonal, as directions of data are and a draw is not.

    Args:
        site: A factor A.
    """
    if not site.adapter or site.role != "lora_a" or site.adapter.rank < 2:
        return False
    columns = ops.convert_to_numpy(ops.cast(site.kernel.value, "float32")).reshape(-1, site.adapter.rank)
    sizes = np.linalg.norm(columns, axis=0)
    products = columns.T @ columns / np.maximum(np.outer(sizes, sizes), np.finfo("float32").tiny)
    return bool(sizes.all() and np.abs(products - np.eye(len(sizes))).max() < 1e-4)


def _fans_note(site: KernelSite, row: SignalRow) -> str:
    """Says that A was drawn with the fans that Keras reads from its shape; empty if it was not."""
    if site.fans is None or not row.weight_std or are_directions(site):
        return ""
    shape = tuple(site.kernel.shape)
    plain = compute_fans(shape[:1] if site.layout and site.layout.kind == "embedding" else shape).fan_in
    # Four standard errors of the variance of uniform entries.
    error = 4 * math.sqrt(0.8 / math.prod(shape))
    if plain < 2 * site.fans.fan_in or abs(row.weight_std**2 * plain / 2 - 1) > error:
        return ""
    return (
        f"its factor A has a variance {plain / site.fans.fan_in:.3g} times too small: Keras reads the fan "
        f"{plain:g} from the shape {shape}, the true fan is {site.fans.fan_in:g}"
    )


def _product(adapter: Adapter, a: Tensor, b: Tensor) -> Tensor:
    rows = ops.reshape(ops.cast(ops.stop_gradient(ops.convert_to_tensor(a)), "float32"), (-1, adapter.rank))
    return adapter.scale * ops.matmul(rows, ops.cast(ops.stop_gradient(ops.convert_to_tensor(b)), "float32"))


def _rms(tensor: Tensor) -> float:
    return float(np.sqrt(ops.convert_to_numpy(ops.mean(ops.square(ops.stop_gradient(tensor))))))
