"""The table of kernels by layer class, and `register`, which adds a user's layers to it."""

from collections.abc import Callable, Mapping
from typing import Any

from keras import layers

from keras_initx._keras_internals import own_variables
from keras_initx._types import Layer
from keras_initx.fans import Layout
from keras_initx.walk._layers import HUB_LAYERS, HUB_REST, Kernel, KernelLayout, Rule, kernel_layers

__all__ = [
    "Kernel",
    "KernelLayout",
    "Rule",
    "bias_of",
    "einsum_axes",
    "known_class",
    "layout_of",
    "register",
    "rule_of",
]


def einsum_axes(equation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the axes of an einsum kernel that are summed, and the axes that only kernel and output have.

    An axis that inputs, kernel and output share (heads, experts) is a batch axis, and in neither tuple.
    """
    left, output = equation.replace("...", "").split("->")
    inputs, kernel = left.split(",")
    summed = tuple(axis for axis, letter in enumerate(kernel) if letter not in output)
    outputs = tuple(axis for axis, letter in enumerate(kernel) if letter in output and letter not in inputs)
    return summed, outputs


def rule_of(layer: Layer) -> tuple[type | None, Rule]:
    """Returns the nearest class of a layer with an entry, and the entry; or (None, an empty rule)."""
    base = known_class(layer)
    if base is not None:
        return base, kernel_layers()[base]
    hub = [cls for cls in type(layer).__mro__ if cls.__module__.startswith("keras_hub.")]
    base = next((cls for cls in hub if cls.__name__ in HUB_LAYERS), None)
    return base, HUB_LAYERS[base.__name__] if base else HUB_REST if hub else Rule({})


def bias_of(layer: Layer, rule: Rule, kernel: str) -> Any:
    """Returns the variable that is the bias of a kernel, or None."""
    # A bias that is added to the sum of several products is scaled once, with the last of them.
    name = rule.kernels[kernel].bias
    if kernel != [own for own, known in rule.kernels.items() if known.bias == name][-1]:
        return None
    variables = own_variables(layer)
    return next((variable for variable in variables if variable.name == name), None)


def known_class(layer: Layer) -> type | None:
    """Returns the nearest class of a layer that the table holds."""
    return next((cls for cls in type(layer).__mro__ if cls in kernel_layers()), None)


def register(
    layer_class: type,
    kernels: Mapping[str, Kernel | str],
    *,
    linear: bool = False,
    call: Callable[..., Any] | None = None,
) -> None:
    """Teaches the package the kernels of a layer class of your own, and of its subclasses.

    `initialize` then draws the kernels with their true fans. Without this, they are drawn by their layer's
    own initializer, and the report says so. `calibrate` and `preactivation_std` need the pre-activations,
    too, and each must be linear in its kernel and bias. If the layer's output, before its activation, is the
    only pre-activation, pass `linear=True`. If the layer has several kernels, pass `call`.

    The layer counts as one step of the model: the trace does not look inside. A subclass with a `call` of its
    own must be registered by itself.

    >>> class Mixer(layers.Layer):
    ...     def build(self, shape):
    ...         self.mixing = self.add_weight(shape=(shape[-1], 4), name="mixing")
    ...     def call(self, x):
    ...         return x @ self.mixing
    >>> register(Mixer, {"mixing": Kernel("mixing", layout="dense")}, linear=True)

    Args:
        layer_class: The class.
        kernels: For the name of each variable that is a kernel, a `Kernel`, or only its role. Name the kernel
            that makes the layer's output last: strategies for residual nets end a branch with it.
        linear: Whether the layer's output is linear in its only kernel and its bias. If the layer has an
            attribute `activation`, the output before this activation counts.
        call: Function `call(layer, show, *args, **kwargs)`, which computes the output of the layer's `call`
            from the same arguments. For each pre-activation it calls `show(name, tensor)`, with the name of
            the kernel, and goes on with the tensor that `show` returns.

    Raises:
        ValueError: If `layer_class` is not a class of Keras layers, `kernels` is empty or holds anything
            other than a `Kernel` or a role, `call` is not a function, or `linear` is not a bool or is True
            for several kernels.
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, layers.Layer)):
        raise ValueError(f"`layer_class` must be a class of Keras layers. Received: {layer_class!r}.")
    if not kernels or not all(isinstance(kernel, Kernel | str) for kernel in kernels.values()):
        raise ValueError(
            "`kernels` must map names of variables to `Kernel`s or roles. "
            f'Received: kernels={kernels!r}. For example {{"kernel": Kernel("dense", layout="dense")}}.'
        )
    if not isinstance(linear, bool) or (linear and (call is not None or len(kernels) > 1)):
        raise ValueError(
            "`linear` must be a bool, and True for layers of one kernel without `call`. Received: "
            f"linear={linear!r}, call={call!r}, kernels={sorted(kernels)}. For several kernels, pass a "
            "`call` that shows each pre-activation."
        )
    if call is not None and not callable(call):
        raise ValueError(
            f"`call` must be None or a function. Received: call={call!r}. For example "
            'lambda layer, show, x: layer.activation(show("kernel", x @ layer.kernel)).'
        )
    rules = {name: Kernel(kernel) if isinstance(kernel, str) else kernel for name, kernel in kernels.items()}
    kernel_layers()[layer_class] = Rule(rules, linear=linear or call is not None, call=call, taught=True)


def layout_of(layer: Layer, known: Kernel | None) -> Layout | None:
    """Returns the layout of a kernel of a layer, or None."""
    layout: Any = known.layout if known else None
    layout = layout(layer) if callable(layout) else layout
    return None if layout is None else Layout.of(layout)
