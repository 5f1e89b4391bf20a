"""What the kernels of each class of layer are: the table that `register` adds to."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from keras import layers, ops

from keras_initx._keras_internals import conv_lstm_cell, own_variables
from keras_initx._types import Layer, Tensor
from keras_initx.fans import Layout
from keras_initx.layers import ResidualScale

# What `Kernel.layout` takes: a kind, a config, a layout, or a function that makes a layout for a layer.
KernelLayout: TypeAlias = str | Mapping[str, Any] | Layout | Callable[[Layer], Layout]

__all__ = ["SCALES", "Kernel", "Rule", "bias_of", "einsum_axes", "known_class", "register", "rule_of"]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """What the axes of a layer's kernel mean.

    Attributes:
        role: Role of the kernel: a word of your own, or one of those that `iter_kernels` lists.
        layout: Its `keras_initx.fans.Layout`, a kind or dict of one, or a function from the layer to it; None
            for kernels that are read off their shape.
        initializer: Attribute of the layer that holds its initializer; None to look for `<name>_initializer`.
        bias: Name of the variable that is its bias, None for none. Where several kernels name the same, the
            last has it.
    """

    role: str
    layout: KernelLayout | None = None
    initializer: str | None = None
    bias: str | None = "bias"


@dataclasses.dataclass(frozen=True)
class Rule:
    """A class' kernels by the names of their variables, and how they stand to each other.

    Attributes:
        kernels: The kernels.
        linear: Whether every pre-activation is linear in (kernel, bias).
        chained: Whether each kernel takes the output of the one before.
        call: As in `register`.
        taught: Whether it is a user's.
    """

    kernels: Mapping[str, Kernel]
    linear: bool = False
    chained: bool = False
    call: Callable[..., Any] | None = None
    taught: bool = False


def einsum_axes(equation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Splits an einsum kernel's axes into those that are summed and those that only the output has.

    An axis that inputs, kernel and output share (heads, experts) is in neither: it is a batch axis.
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
    """What a separable convolution computes in one operation, its depthwise half shown on the way."""
    options = {"data_format": layer.data_format, "dilation_rate": layer.dilation_rate}
    half = ops.depthwise_conv(inputs, layer.depthwise_kernel, layer.strides, layer.padding, **options)
    half = show("depthwise_kernel", half)
    first = layer.data_format == "channels_first"
    # Channels last, as Keras has it: TensorFlow's own CPU kernels take no others in a plain convolution.
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
# Of keras_hub, which is not imported, by the name of the class; the rest are the biases of T5's attention.
_HUB = {"PositionEmbedding": Rule({"embeddings": _EMBEDDINGS}, linear=True)}
_HUB_REST = Rule({"embeddings": _EMBEDDINGS})
SCALES = ("scale", "residual_scale")  # roles of factors that mix nothing
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
    layers.BatchNormalization: Rule(_SCALE),
    layers.GroupNormalization: Rule(_SCALE),
    layers.LayerNormalization: Rule(_SCALE),
    layers.RMSNormalization: Rule(_SCALE),
    ResidualScale: Rule({"scale": Kernel("residual_scale")}),
}


@functools.cache
def _rules() -> dict[type, Rule]:
    """The table, with Keras' private class, which is looked up at the first use and not at import."""
    _RULES.setdefault(conv_lstm_cell(), Rule(_gates(4)))
    return _RULES


def rule_of(layer: Layer) -> tuple[type | None, Rule]:
    """Returns the class whose kernels are known, from the layer's own to its bases, and its rule."""
    base = known_class(layer)
    if base is not None:
        return base, _rules()[base]
    hub = [cls for cls in type(layer).__mro__ if cls.__module__.startswith("keras_hub.")]
    base = next((cls for cls in hub if cls.__name__ in _HUB), None)
    return base, _HUB[base.__name__] if base else _HUB_REST if hub else Rule({})


def bias_of(layer: Layer, rule: Rule, kernel: str) -> Any:
    """Returns the variable that is the bias of a kernel, or None."""
    name = rule.kernels[kernel].bias
    if kernel != [own for own, known in rule.kernels.items() if known.bias == name][-1]:
        return None
    variables = own_variables(layer)
    return next((variable for variable in variables if variable.name == name), None)


def known_class(layer: Layer) -> type | None:
    """Returns the nearest class of a layer that the table holds."""
    return next((cls for cls in type(layer).__mro__ if cls in _rules()), None)


def register(
    layer_class: type,
    kernels: Mapping[str, Kernel | str],
    *,
    linear: bool = False,
    call: Callable[..., Any] | None = None,
) -> None:
    """Teaches `iter_kernels` the kernels of a class of layers, and of its subclasses.

    The layer counts as one step of the model: the trace does not look inside. Without this, the kernels of a
    class that Keras does not know are reported, and drawn as the layer draws them.

    `initialize` needs the kernels. `calibrate` and `preactivation_std` also need the pre-activations, each
    linear in its kernel and bias: `linear=True` where that is the layer's output, `call` to show others.

    >>> class Mixer(layers.Layer):
    ...     def build(self, shape):
    ...         self.mixing = self.add_weight(shape=(shape[-1], 4), name="mixing")
    ...     def call(self, x):
    ...         return x @ self.mixing
    >>> register(Mixer, {"mixing": Kernel("mixing", layout="dense")}, linear=True)

    Args:
        layer_class: The class.
        kernels: For the name of each variable that is a kernel, a `Kernel` or only its role.
        linear: Whether the output, before the layer's `activation` if it has one, is linear in the one kernel
            and its bias.
        call: Computes what the layer's `call` does from `(layer, show, *args, **kwargs)`, with the args of
            that. Where it makes the pre-activation of a kernel, linear in that and its bias, it calls
            `show(name, tensor)` and goes on with what that returns.

    Raises:
        ValueError: If the class is no Keras layer, no kernel is named, a value is neither, `call` is no
            function, or `linear` is no bool or is True for several kernels.
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
            f"linear={linear!r}, call={call!r}, kernels={sorted(kernels)}. Of several kernels, show each "
            "pre-activation in `call`."
        )
    if call is not None and not callable(call):
        raise ValueError(
            f"`call` must be None or a function. Received: call={call!r}. For example "
            'lambda layer, show, x: layer.activation(show("kernel", x @ layer.kernel)).'
        )
    rules = {name: Kernel(kernel) if isinstance(kernel, str) else kernel for name, kernel in kernels.items()}
    _rules()[layer_class] = Rule(rules, linear=linear or call is not None, call=call, taught=True)
