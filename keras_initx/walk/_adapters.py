"""`Adapter`: the low-rank adapter (LoRA) of one kernel, with the facts that the layer's own code loses."""

import dataclasses
import math
from typing import Any

from keras import layers

from keras_initx._keras_internals import given_arguments, quantized_weight
from keras_initx._types import Layer, Variable
from keras_initx.fans import Layout
from keras_initx.walk._kernels import einsum_axes

__all__ = ["FACTORS", "Adapter", "adapter_of", "factor_axes"]

Axes = tuple[tuple[int, ...], tuple[int, ...]]

_KINDS = {layers.Dense: "dense", layers.EinsumDense: "einsum", layers.Embedding: "embedding"}
# The roles of the factors, by the names that Keras gives their variables.
FACTORS = {
    "lora_embeddings_a": "lora_a",
    "lora_embeddings_b": "lora_b",
    "lora_kernel_a": "lora_a",
    "lora_kernel_b": "lora_b",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Adapter:
    """A low-rank adapter: the kernel of its layer is W + alpha / rank A B.

    A has the axes of the kernel but for the last, which is the rank. B leads from the rank to the last axis.

    Attributes:
        layer: The layer.
        kernel: The base W, which training leaves alone. Of a quantized layer, its integers.
        a: The factor A, of shape (*kernel.shape[:-1], rank).
        b: The factor B, of shape (rank, kernel.shape[-1]).
        rank: Number of columns of A.
        kind: `"conv"`, `"dense"`, `"einsum"` or `"embedding"`.
        summed: The axes of the kernel that an output sums over. Of an embedding, the axis of the words.
        asked: The `lora_alpha` that the layer was made with; None if it was made without.
    """

    layer: Layer
    kernel: Variable
    a: Variable
    b: Variable
    rank: int
    kind: str
    summed: tuple[int, ...]
    asked: float | None = None

    @property
    def alpha(self) -> float:
        """The numerator of the factor of A B, as the layer has it now."""
        alpha = getattr(self.layer, "lora_alpha", None)
        return float(self.rank if alpha is None else alpha)

    @property
    def scale(self) -> float:
        """The factor of A B: alpha / rank."""
        return self.alpha / self.rank

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the kernel as A B makes it: all axes of A but the rank are its rows."""
        return math.prod(self.a.shape[:-1]), int(self.b.shape[-1])

    @property
    def lost_alpha(self) -> bool:
        """Whether the layer was made with an alpha that it does not use."""
        return self.asked is not None and self.asked != self.alpha


def adapter_of(layer: Layer) -> Adapter | None:
    """Returns the adapter of a layer, or None if LoRA is not enabled on it.

    >>> import keras
    >>> layer = keras.layers.Dense(3)
    >>> layer.build((None, 4))
    >>> adapter_of(layer) is None
    True
    >>> layer.enable_lora(2, lora_alpha=8)
    >>> adapter = adapter_of(layer)
    >>> adapter.rank, adapter.scale, adapter.shape
    (2, 4.0, (4, 3))

    Args:
        layer: A Keras layer.
    """
    if not getattr(layer, "lora_enabled", False):
        return None
    own: Any = layer
    word = "embeddings" if hasattr(own, "lora_embeddings_a") else "kernel"
    a, b = getattr(own, f"lora_{word}_a", None), getattr(own, f"lora_{word}_b", None)
    base = quantized_weight(layer, word)
    if a is None or b is None or base is None:
        return None
    # A layer whose `build` enables LoRA may forget the alpha that it was given.
    given = given_arguments(layer)
    asked = given.get("lora_alpha") if given.get("lora_rank") else None
    kind = next((kind for cls, kind in _KINDS.items() if isinstance(layer, cls)), "conv")
    summed = einsum_axes(own.equation)[0] if kind == "einsum" else tuple(range(len(a.shape) - 1))
    return Adapter(layer, base, a, b, int(a.shape[-1]), kind, summed, asked)


def factor_axes(
    name: str, axes: Axes | None, layout: Layout | None, rank: int
) -> tuple[Axes | None, Layout | None]:
    """Returns `input_axes` and `output_axes` of a factor, or its layout, from those of the adapted kernel.

    >>> factor_axes("lora_kernel_a", ((0,), (1, 2)), None, 3)  # a query kernel: (inputs, heads, size)
    (((0,), (1, 2)), None)

    Args:
        name: Name of the factor's variable.
        axes: The axes of an einsum kernel; None for other kernels.
        layout: The layout of the kernel; None for an einsum kernel.
        rank: Number of the kernel's axes.
    """
    first, last = FACTORS[name] == "lora_a", rank - 1
    if axes is None:
        kept = layout is not None and first
        return None, dataclasses.replace(layout, groups=1) if kept and layout else Layout("dense")
    inputs, outputs = axes
    if last not in inputs:
        return (axes if first else ((0,), (1,))), None
    # The signal enters at the last axis: B comes before A.
    return (((last,), outputs) if first else ((1,), (0,))), None
