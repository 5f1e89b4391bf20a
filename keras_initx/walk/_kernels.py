"""The table of kernels by layer class, and `register`, which adds a user's layers to it."""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from keras import layers, ops

from keras_initx._types import Layer, Tensor
from keras_initx.fans import Layout
from keras_initx.layers import ResidualScale

# The layout in `Kernel`: a kind, a dict of options, a layout, or a function that makes a layout for a layer.
KernelLayout: TypeAlias = str | Mapping[str, Any] | Layout | Callable[[Layer], Layout]

__all__ = ["Kernel", "Rule", "bias_of", "einsum_axes", "known_class", "register", "rule_of"]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """Describes one kernel of a layer, for `register`.

    >>> Kernel("dense", layout="dense", bias="shift").role
    'dense'

    Attributes:
        role: Role of the kernel: a word of your own, or one of the roles of `KernelSite`.
        layout: Meaning of the kernel's axes: a `keras_initx.fans.Layout`, its kind (`"dense"`, `"conv"`), a
            dict of its options, or a function from the layer to one of these. None to take the axes from the
            shape: inputs second to last, outputs last.
        initializer: Attribute of the layer that holds the kernel's initializer. None for
            `<name>_initializer`.
        bias: Name of the variable that is added to the kernel's product; None for none. If several kernels
            name the same bias, it belongs to the last of them.
    """

    role: str
    layout: KernelLayout | None = None
    initializer: str | None = None
    bias: str | None = "bias"


@dataclasses.dataclass(frozen=True)
class Rule:
    """The entry of a layer class in the table.

    Attributes:
        kernels: The kernels by the names of their variables.
        linear: Whether every pre-activation is linear in its kernel and bias.
        chained: Whether each kernel takes the output of the kernel before it.
        call: Function that shows the pre-activations, as in `register`.
        taught: Whether a user registered the class.
    """

    kernels: Mapping[str, Kernel]
    linear: bool = False
    chained: bool = False
    call: Callable[..., Any] | None = None
    taught: bool = False


def einsum_axes(equation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the axes of an einsum kernel that are summed, and the axes that only kernel and output have.

    An axis that inputs, kernel and output share (heads, experts) is a batch axis, and in neither tuple.
    """
    left, output = equation.replace("...", "").split("->")
    inputs, kernel = left.split(",")
    summed = tuple(axis for axis, letter in enumerate(kernel) if letter not in output)
    outputs = tuple(axis for axis, letter in enumerate(kernel) if letter in output and letter not in inputs)
    return summed, outputs


def _conv(layer: Layer) -> Layout:
    return Layout("conv", groups=layer.groups, strides=tuple(layer.strides))


def _strided(kind: str) -> Callable[[Any], Layout]:
    return lambda layer: Layout(kind, strides=tuple(layer.strides))


def _gates(count: int) -> dict[str, Kernel]:
    layout = Layout("gates", gates=count)
    return {
        "kernel": Kernel("gates", layout),
        "recurrent_kernel": Kernel("recurrent", layout, "recurrent_initializer"),
    }


def _linear(role: str, layout: KernelLayout | None = None) -> Rule:
    return Rule({"kernel": Kernel(role, layout)}, linear=True)


def _separable(layer: Layer, show: Callable[[str, Any], Any], inputs: Tensor) -> Any:
    """Computes a separable convolution in two operations, and shows the depthwise half in between.

    Keras computes both halves in one operation, in which the first pre-activation never appears.
    """
    options = {"data_format": layer.data_format, "dilation_rate": layer.dilation_rate}
    half = ops.depthwise_conv(inputs, layer.depthwise_kernel, layer.strides, layer.padding, **options)
    half = show("depthwise_kernel", half)
    first = layer.data_format == "channels_first"
    # Channels last, as Keras does it, too: TensorFlow's CPU kernels take no other order in a convolution.
    half = ops.moveaxis(half, 1, -1) if first else half
    output = ops.conv(half, layer.pointwise_kernel, 1, "valid", "channels_last")
    if layer.bias is not None:
        output = output + ops.reshape(layer.bias, (-1,))
    output = show("pointwise_kernel", ops.moveaxis(output, -1, 1) if first else output)
    return output if layer.activation is None else layer.activation(output)


_SEPARABLE = Rule(
    {
        "depthwise_kernel": Kernel("depthwise", _strided("depthwise")),
        "pointwise_kernel": Kernel("pointwise", "conv"),
    },
    linear=True,
    chained=True,
    call=_separable,
)
_EMBEDDINGS = Kernel("embedding", "embedding")
# Layers of keras_hub by the names of their classes: to import the package only for this table is too slow.
# Other classes there with `embeddings` hold the relative biases of T5's attention, which no output shows.
_HUB = {"PositionEmbedding": Rule({"embeddings": _EMBEDDINGS}, linear=True)}
_HUB_REST = Rule({"embeddings": _EMBEDDINGS})
_SCALE = {"gamma": Kernel("scale"), "scale": Kernel("scale")}
_RULES: dict[type, Rule] = {
    layers.Dense: _linear("dense", "dense"),
    layers.EinsumDense: _linear("einsum"),
    layers.Conv1D: _linear("conv", _conv),
    layers.Conv2D: _linear("conv", _conv),
    layers.Conv3D: _linear("conv", _conv),
    layers.DepthwiseConv1D: _linear("depthwise", _strided("depthwise")),
    layers.DepthwiseConv2D: _linear("depthwise", _strided("depthwise")),
    layers.Conv1DTranspose: _linear("transposed", _strided("transposed")),
    layers.Conv2DTranspose: _linear("transposed", _strided("transposed")),
    layers.Conv3DTranspose: _linear("transposed", _strided("transposed")),
    layers.SeparableConv1D: _SEPARABLE,
    layers.SeparableConv2D: _SEPARABLE,
    layers.Embedding: Rule({"embeddings": _EMBEDDINGS}, linear=True),
    layers.ReversibleEmbedding: Rule(
        {
            "embeddings": _EMBEDDINGS,
            "reverse_embeddings": Kernel("dense", "dense", "embeddings_initializer"),
        },
        linear=True,
    ),
    layers.SimpleRNNCell: Rule(
        {"kernel": Kernel("dense", "dense"), "recurrent_kernel": Kernel("recurrent", "dense")}
    ),
    layers.LSTMCell: Rule(_gates(4)),
    layers.GRUCell: Rule(_gates(3)),
    # Keras exports no name for this class. `type(ConvLSTM1D(...).cell)` would make a layer and so start JAX,
    # which a job of several processes must set up first.
    sys.modules[layers.ConvLSTM1D.__mro__[1].__module__].ConvLSTMCell: Rule(_gates(4)),
    layers.BatchNormalization: Rule(_SCALE),
    layers.GroupNormalization: Rule(_SCALE),
    layers.LayerNormalization: Rule(_SCALE),
    layers.RMSNormalization: Rule(_SCALE),
    ResidualScale: Rule({"scale": Kernel("residual_scale")}),
}


def rule_of(layer: Layer) -> tuple[type | None, Rule]:
    """Returns the nearest class of a layer with an entry, and the entry; or (None, an empty rule)."""
    base = known_class(layer)
    if base is not None:
        return base, _RULES[base]
    hub = [cls for cls in type(layer).__mro__ if cls.__module__.startswith("keras_hub.")]
    base = next((cls for cls in hub if cls.__name__ in _HUB), None)
    return base, _HUB[base.__name__] if base else _HUB_REST if hub else Rule({})


def bias_of(layer: Layer, rule: Rule, kernel: str) -> Any:
    """Returns the variable that is the bias of a kernel, or None."""
    # A bias that is added to the sum of several products is scaled once, with the last of them.
    name = rule.kernels[kernel].bias
    if kernel != [own for own, known in rule.kernels.items() if known.bias == name][-1]:
        return None
    variables = [*layer._trainable_variables, *layer._non_trainable_variables]
    return next((variable for variable in variables if variable.name == name), None)


def known_class(layer: Layer) -> type | None:
    """Returns the nearest class of a layer that the table holds."""
    return next((cls for cls in type(layer).__mro__ if cls in _RULES), None)


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
    _RULES[layer_class] = Rule(rules, linear=linear or call is not None, call=call, taught=True)
