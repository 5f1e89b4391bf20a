"""The kernels of a model: the only code that knows Keras' layer classes."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

from keras import layers

__all__ = ["KernelSite", "iter_kernels"]

# Layers whose pre-activation is linear in (kernel, bias), by the role of their kernel.
_LINEAR = {
    layers.Dense: "dense",
    layers.EinsumDense: "einsum",
    layers.Conv1D: "conv",
    layers.Conv2D: "conv",
    layers.Conv3D: "conv",
    layers.DepthwiseConv1D: "depthwise",
    layers.DepthwiseConv2D: "depthwise",
    layers.Conv1DTranspose: "transposed",
    layers.Conv2DTranspose: "transposed",
    layers.Conv3DTranspose: "transposed",
}
_ATTENTION = (layers.MultiHeadAttention, layers.GroupQueryAttention)
_ATTENTION_ROLES = ("query", "key", "value", "attention_output")
_LOOPS = (layers.RNN, layers.Bidirectional)
# Weights that may have several axes and are no kernels: GRU's bias, PReLU's slopes, normalization's scales.
_NO_KERNELS = ("bias", "alpha", "gamma", "beta")


@dataclasses.dataclass(frozen=True, eq=False)
class KernelSite:
    """One kernel of a model.

    Attributes:
        path: Names of the layers that lead to the kernel from the model, followed by the variable's name
            unless that is `kernel`; a number is added where two kernels would have the same.
        role: `dense`, `conv`, `depthwise`, `transposed`, `einsum`, `query`, `key`, `value`,
            `attention_output` or `other`.
        layer: The layer that owns the kernel.
        kernel: The kernel's variable.
        bias: The bias' variable, or None.
        initializer: The initializer that the layer's config names for the kernel, or None.
        axes: `input_axes` and `output_axes` of an einsum kernel, None for all others.
        obstacle: Why scaling kernel and bias does not scale the layer's pre-activation; empty when it does.
    """

    path: str
    role: str
    layer: Any
    kernel: Any
    bias: Any
    initializer: Any
    axes: tuple[tuple[int, ...], tuple[int, ...]] | None
    obstacle: str


def iter_kernels(model: Any) -> Iterator[KernelSite]:
    """Yields the kernels of all built layers of a model, nested and subclassed ones included, each once.

    A kernel is a trainable or frozen weight of two or more axes.

    >>> import keras
    >>> model = keras.Sequential([layers.Input((4,)), layers.Dense(3, name="head")])
    >>> [(site.path, site.role) for site in iter_kernels(model)]
    [('head', 'dense')]

    Args:
        model: A Keras model or layer.

    Yields:
        The sites, in the order in which Keras lists the layers.
    """
    paths = _layer_paths(model)
    found = list({id(layer): layer for layer in model._flatten_layers()}.values())
    roles = {
        id(layer): layer.name
        for parent in found
        if isinstance(parent, _ATTENTION)
        for layer in parent._flatten_layers(include_self=False)
        if layer.name in _ATTENTION_ROLES
    }
    looped = {
        id(layer) for parent in found if isinstance(parent, _LOOPS) for layer in parent._flatten_layers()
    }
    for layer in found:
        base = next((cls for cls in type(layer).__mro__ if cls in _LINEAR), None)
        quantized = base is not None and getattr(layer, "quantization_mode", None)
        for kernel in [*layer._trainable_variables, *([layer._kernel] if quantized else [])]:
            if len(kernel.shape) < 2 or kernel.name in _NO_KERNELS:
                continue
            own = base is not None and kernel.name == "kernel"
            yield KernelSite(
                path="/".join(filter(None, (paths[id(layer)], kernel.name))).removesuffix("/kernel"),
                role=roles.get(id(layer), _LINEAR[base]) if own else "other",
                layer=layer,
                kernel=kernel,
                bias=getattr(layer, "bias", None) if own else None,
                initializer=_initializer(layer, kernel),
                axes=_einsum_axes(layer.equation) if own and base is layers.EinsumDense else None,
                obstacle=_obstacle(layer, base if own else None, id(layer) in looped),
            )


def _layer_paths(model: Any) -> dict[int, str]:
    """Paths of all layers by identity: Keras' own leave out the names of nested functional models."""
    paths: dict[int, str] = {id(model): ""}
    taken: set[str] = set()

    def visit(parent: Any) -> None:
        for layer in parent._flatten_layers(include_self=False, recursive=False):
            if id(layer) in paths:
                continue
            path = f"{paths[id(parent)]}/{layer.name}".removeprefix("/")
            number = next(n for n in itertools.count() if (f"{path}_{n}" if n else path) not in taken)
            paths[id(layer)] = f"{path}_{number}" if number else path
            taken.add(paths[id(layer)])
            visit(layer)

    visit(model)
    return paths


def _initializer(layer: Any, kernel: Any) -> Any:
    """The layer's initializer of a kernel: `recurrent_kernel` is drawn by `recurrent_initializer`."""
    candidates = (kernel.name, kernel.name.removesuffix("_kernel"), "depthwise")
    return next(
        (found for name in candidates if (found := getattr(layer, f"{name}_initializer", None))), None
    )


def _einsum_axes(equation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Splits the kernel's axes into those that are summed and those that only the output has.

    An axis that inputs, kernel and output share (heads, experts) is in neither: it is a batch axis.
    """
    left, output = equation.replace("...", "").split("->")
    inputs, kernel = left.split(",")
    summed = tuple(axis for axis, letter in enumerate(kernel) if letter not in output)
    outputs = tuple(axis for axis, letter in enumerate(kernel) if letter in output and letter not in inputs)
    return summed, outputs


def _obstacle(layer: Any, base: type | None, looped: bool) -> str:
    name = type(layer).__name__
    if looped:
        return f"{name} runs inside a recurrent loop, which is not supported yet"
    if base is None:
        return f"{name} is not supported yet"
    if type(layer).call is not base.call:  # type: ignore[attr-defined]
        return f"{name} overrides {base.__name__}.call, so its output need not be linear in its kernel"
    if getattr(layer, "lora_enabled", False):
        return "LoRA is enabled, so the kernel is not the layer's whole weight"
    if getattr(layer, "quantization_mode", None):
        return "the kernel is quantized"
    return ""
