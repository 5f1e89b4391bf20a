"""Adapters as plain LoRA against the original base, whatever start they had."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from keras import ops

from keras_initx._keras_internals import flatten_layers, quantized_weight
from keras_initx._types import Layer, Model, Tensor, Variable
from keras_initx.adapters._bases import Start, is_less, sample
from keras_initx.state import transaction
from keras_initx.tables import listed
from keras_initx.walk import Adapter, adapter_of, layer_paths

__all__ = ["PlainFactors", "PlainLoRA", "adapters_in", "as_plain"]


@dataclasses.dataclass(frozen=True, eq=False)
class PlainFactors:
    """The adapter of one kernel, of scale 1.

    Attributes:
        path: Path of the kernel.
        layer: Name of the layer.
        index: Number of the layer among all layers of the model.
        a: float32 of the shape that Keras gives A.
        b: float32 of shape (rank, columns).
    """

    path: str
    layer: str
    index: int
    a: np.ndarray
    b: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class PlainLoRA:
    """Adapters of scale 1 that belong on the original base: `base + A B`.

    Attributes:
        rank: The rank of all adapters: narrower ones are filled up with zeros.
        rows: One entry for each adapted kernel.
        base: `"original"`, or `"quantized"` where the adapters belong on the base after `model.quantize`.
    """

    rank: int
    rows: tuple[PlainFactors, ...]
    base: Literal["original", "quantized"] = "original"

    def apply(self, model: Model) -> None:
        """Enables LoRA on a model without adapters, and gives it these factors.

        A backbone of keras_hub, or the backbone in a task of keras_hub, enables its adapters itself: its
        `save_lora_weights` then writes them, and any `load_lora_weights` reads them.

        Args:
            model: The model with the original base: of the same layers in the same order, and without LoRA.

        Raises:
            ValueError: If LoRA is enabled already, or a layer does not fit. The model is then unchanged,
                except that its adapters may be enabled, with B at zero.
        """
        found = flatten_layers(model)
        targets = [self._target(found, row) for row in self.rows]
        backbone = getattr(model, "backbone", model)
        if hasattr(backbone, "enable_lora") and hasattr(backbone, "save_lora_weights"):
            backbone.enable_lora(self.rank, sorted({row.layer for row in self.rows}))
        else:
            for layer in targets:
                layer.enable_lora(self.rank)
        adapters = [adapter_of(layer) for layer in targets]
        enabled = {id(adapter.layer) for _, adapter in adapters_in(model)}
        if extra := enabled - {id(layer) for layer in targets}:
            raise ValueError(
                "`model` must adapt the layers of these factors and no others. Received: a backbone that "
                f"enabled {len(extra)} more layers of the same names. Their B is zero: they change nothing."
            )
        with transaction() as update:
            for row, adapter in zip(self.rows, adapters, strict=True):
                assert adapter is not None
                for variable, value in ((adapter.a, row.a), (adapter.b, row.b)):
                    update(variable, _constant(variable, value))

    def _target(self, found: Sequence[Layer], row: PlainFactors) -> Any:
        layer: Any = found[row.index] if row.index < len(found) else None
        words = ("kernel", "embeddings")
        weights = [] if layer is None else [quantized_weight(layer, word) for word in words]
        kernel = next((weight for weight in weights if weight is not None), None)
        if getattr(layer, "lora_enabled", None) is not False or kernel is None:
            what = "a layer with LoRA" if getattr(layer, "lora_enabled", False) else "another layer"
            raise ValueError(
                "`model` must have the layers of the adapted model, without LoRA. Received: "
                f"{what} in the place of `{row.path}`. Build the model anew and load the original weights."
            )
        quantized = getattr(layer, "quantization_mode", None)  # int4 packs two entries in one
        if not quantized and tuple(kernel.shape) != (*row.a.shape[:-1], row.b.shape[-1]):
            raise ValueError(
                f"`model` must have the shapes of the adapted model. Received: `{row.path}` of shape "
                f"{tuple(kernel.shape)} for factors of {row.a.shape} and {row.b.shape}."
            )
        return layer


def as_plain(starts: Sequence[Start], model: Model) -> PlainLoRA:
    """Returns the adapters of a model as plain LoRA.

    Law: a base that is W less its first scale A0 B0, with A B now, computes W + scale (A B - A0 B0): the
    factors [A, A0] and scale [B; -B0] of twice the rank.

    Args:
        starts: How the adapters began, from the report of `initialize`.
        model: The model, trained or not.

    Raises:
        ValueError: If the starts are not those of the model's adapters, or have bases of their own.
    """
    places = {id(layer): number for number, layer in reversed([*enumerate(flatten_layers(model))])}
    found = adapters_in(model)
    known = {start.path: start for start in starts}
    _check_starts(known, dict(found))
    pairs = [(path, adapter, *_joined(adapter, known.get(path))) for path, adapter in found]
    rank = max(a.shape[-1] for _, _, a, _ in pairs)
    rows = []
    for path, adapter, a, b in pairs:
        more = rank - a.shape[-1]
        a, b = np.pad(a, ((0, 0), (0, more))), np.pad(b, ((0, more), (0, 0)))
        a = a.reshape(*adapter.a.shape[:-1], rank)
        rows.append(PlainFactors(path, adapter.layer.name, places[id(adapter.layer)], a, b))
    rounded = any(start.base == "rounded" for start in starts)
    return PlainLoRA(rank, tuple(rows), "quantized" if rounded else "original")


def adapters_in(model: Model) -> list[tuple[str, Adapter]]:
    """Returns the adapters of a model, each with the path of its layer.

    Args:
        model: A Keras model or layer.
    """
    paths = layer_paths(model)
    layers = {id(layer): layer for layer in flatten_layers(model)}.values()
    return [(paths[id(layer)], found) for layer in layers if (found := adapter_of(layer)) is not None]


def _check_starts(known: dict[str, Start], found: dict[str, Adapter]) -> None:
    """Raises ValueError for starts that are not those of the adapters; warns of biases that are left out."""
    if not known or not set(known) <= set(found):
        raise ValueError(
            "`model` must have the adapters that this report is of, and the report must be of a start of "
            f"adapters. Received: a model with adapters at {sorted(found)}, and a report of {sorted(known)}."
        )
    if mixed := sorted(start.path for start in known.values() if start.base == "mixed"):
        raise ValueError(
            "`model` must have a base that other models have, too. Received: bases of several rounds of "
            f"LoftQ at {mixed}. Save the whole model, or start with LoftQ(iterations=1)."
        )
    quantized = {p for p, adapter in found.items() if getattr(adapter.layer, "quantization_mode", None)}
    moved = [p for p, s in known.items() if p not in quantized and s.sampled != sample(found[p].kernel)]
    less = [path for path, adapter in found.items() if path not in known and is_less(adapter)]
    if moved or less:
        raise ValueError(
            "`model` must have the bases that this start left. Received: other bases at "
            f"{listed(sorted(moved + less), 6)}, from a later start, loaded weights, or another model. Take "
            "the report of the last start of each adapter, before the model is saved and loaded."
        )
    biases = [p for p, s in known.items() if s.beside != sample(getattr(found[p].layer, "bias", None))]
    if biases:
        warnings.warn(
            f"`as_lora` holds adapters alone, and the biases of {listed(sorted(biases), 6)} have changed, "
            "too: copy them to the other model, or set their `trainable` to False before the training.",
            stacklevel=4,
        )


def _joined(adapter: Adapter, start: Start | None) -> tuple[np.ndarray, np.ndarray]:
    a, b = (ops.convert_to_numpy(ops.cast(variable.value, "float32")) for variable in (adapter.a, adapter.b))
    a, b = a.reshape(-1, adapter.rank), adapter.scale * b
    if start is None or start.base != "less":
        return a, b
    return np.concatenate([a, start.a], axis=1), np.concatenate([b, -start.b], axis=0)


def _constant(variable: Variable, value: np.ndarray) -> Callable[[Tensor], Tensor]:
    return lambda _: ops.convert_to_tensor(value, variable.dtype)
