"""What Keras' layers and operations are: the one place where a new one is taught.

A layer with kernels has a row in `_KERNEL_LAYERS`: roles and axes of the kernels, gates, and whether the
output is linear in them. A layer or operation without kernels has an entry in `EFFECTS`: its effect on a
signal. Activations, normalizations and layers that hold others have tables of their own below. All other
tables are read from these, or compared with them by `tests/walk/test_layers.py`. That test fails for each
layer of Keras that no table has.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

from keras import layers, ops

from keras_initx._keras_internals import conv_lstm_cell
from keras_initx._types import Layer, Tensor
from keras_initx.fans import Layout
from keras_initx.layers import ResidualScale

__all__ = [
    "ACTIVATIONS", "ACTIVATION_LAYERS", "ATTENTION", "EFFECTS", "EMBEDDINGS", "HUB_LAYERS", "HUB_REST",
    "LINEAR", "LOOPS", "NORMALIZATIONS", "NOT_KERNELS", "ONE_STEP", "PARAMETRIC", "PLAIN_WRAPPERS", "SCALES",
    "Effect", "Kernel", "KernelLayout", "Rule", "cell_gates", "kernel_layers", "with_effect",
]  # fmt: skip

# What `Kernel.layout` takes: a kind, a config, a layout, or a function that makes a layout for a layer.
KernelLayout: TypeAlias = str | Mapping[str, Any] | Layout | Callable[[Layer], Layout]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """Describes one kernel of a layer, for `register`.

    >>> Kernel("dense", layout="dense", bias="shift").role
    'dense'

    Attributes:
        role: Role of the kernel: a word of your own, or one of the roles of `KernelSite`.
        layout: Meaning of the kernel's axes: a `keras_initx.fans.Layout`, its kind (`"dense"`, `"conv"`), a
            dict of its options, or a function from the layer to one of these. None to take the axes from the
            operation that takes the kernel, and if that is not known from the shape: inputs second to last,
            outputs last.
        initializer: Attribute of the layer that holds the kernel's initializer. None for
            `<name>_initializer`.
        bias: Name of the variable that is added to the kernel's product; None for none. If several kernels
            name the same bias, it belongs to the last of them.
        input_axes: Axes that an output sums over, in place of a layout.
        output_axes: Axes that number the outputs; given with `input_axes`.
        batch_axes: All other axes, such as heads or experts; None if they need no check.

    Raises:
        ValueError: If one of `input_axes` and `output_axes` is given without the other, or with a layout, or
            an axis is named twice.
    """

    role: str
    layout: KernelLayout | None = None
    initializer: str | None = None
    bias: str | None = "bias"
    input_axes: tuple[int, ...] | None = None
    output_axes: tuple[int, ...] | None = None
    batch_axes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        given = {
            "input_axes": self.input_axes,
            "output_axes": self.output_axes,
            "batch_axes": self.batch_axes,
        }
        named = [axis for axes in given.values() for axis in axes or ()]
        alone = (self.input_axes is None) != (self.output_axes is None)
        unasked = self.input_axes is None and self.batch_axes is not None
        if alone or unasked or (named and self.layout is not None) or len(named) != len(set(named)):
            raise ValueError(
                "`input_axes` and `output_axes` must be given together, without `layout`, and name each axis "
                f"once with `batch_axes`. Received: {given}, layout={self.layout!r}. For a kernel of shape "
                "(inputs, heads, size) pass input_axes=(0,), output_axes=(1, 2)."
            )


@dataclasses.dataclass(frozen=True)
class Rule:
    """The entry of a layer class in the table.

    Attributes:
        kernels: The kernels by the names of their variables.
        linear: Whether every pre-activation is linear in its kernel and bias.
        chained: Whether each kernel takes the output of the kernel before it.
        call: Function that shows the pre-activations, as `register` takes it.
        taught: Whether a user registered the class.
        gates: Letters of a recurrent cell's gates, in the order of the kernel's columns. `call` activates the
            gates in the same order. An LSTM applies an activation for a fifth time, to the new cell state; it
            comes last and is not a gate.
    """

    kernels: Mapping[str, Kernel]
    linear: bool = False
    chained: bool = False
    call: Callable[..., Any] | None = None
    taught: bool = False
    gates: tuple[str, ...] = ()


def _conv(layer: Layer) -> Layout:
    return Layout("conv", groups=layer.groups, strides=tuple(layer.strides))


def _strided(kind: str) -> Callable[[Any], Layout]:
    return lambda layer: Layout(kind, strides=tuple(layer.strides))


def _gated(*gates: str) -> Rule:
    layout = Layout("gates", gates=len(gates))
    kernels = {
        "kernel": Kernel("gates", layout),
        "recurrent_kernel": Kernel("recurrent", layout, "recurrent_initializer"),
    }
    return Rule(kernels, gates=gates)


def _linear(role: str, layout: KernelLayout | None = None) -> Rule:
    return Rule({"kernel": Kernel(role, layout)}, linear=True)


def _separable(layer: Layer, show: Callable[[str, Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Computes a separable convolution in two operations, and shows the depthwise half in between.

    Keras computes both halves in one operation, in which the first pre-activation never appears.
    """
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
# Layers of keras_hub by the names of their classes: to import the package for this table alone is too slow.
# Other classes there with `embeddings` hold the relative biases of T5's attention, which no output shows.
HUB_LAYERS = {"PositionEmbedding": Rule({"embeddings": _EMBEDDINGS}, linear=True)}
HUB_REST = Rule({"embeddings": _EMBEDDINGS})
SCALES = ("scale", "residual_scale")  # roles of weights that scale each element by itself
_SCALE = {"gamma": Kernel("scale"), "scale": Kernel("scale")}
# `register` adds the classes of users to this table.
_KERNEL_LAYERS: dict[type, Rule] = {
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
        {"kernel": Kernel("dense", "dense"), "recurrent_kernel": Kernel("recurrent", "dense")}, gates=("h",)
    ),
    layers.LSTMCell: _gated("i", "f", "c", "o"),
    layers.GRUCell: _gated("z", "r", "h"),
    layers.BatchNormalization: Rule(_SCALE),
    layers.GroupNormalization: Rule(_SCALE),
    layers.LayerNormalization: Rule(_SCALE),
    layers.RMSNormalization: Rule(_SCALE),
    ResidualScale: Rule({"scale": Kernel("residual_scale")}),
}
# Names of Keras' own classes whose output is linear in their one or two kernels, and of its embeddings.
LINEAR = frozenset(
    cls.__name__ for cls, rule in _KERNEL_LAYERS.items() if rule.linear and "embeddings" not in rule.kernels
)
EMBEDDINGS = frozenset(cls.__name__ for cls, rule in _KERNEL_LAYERS.items() if "embeddings" in rule.kernels)


@functools.cache
def kernel_layers() -> dict[type, Rule]:
    """Returns the table of layers with kernels. Keras' private cell joins it here and not at import."""
    _KERNEL_LAYERS.setdefault(conv_lstm_cell(), _gated("i", "f", "c", "o"))
    return _KERNEL_LAYERS


def cell_gates() -> dict[type, tuple[str, ...]]:
    """Returns the letters of the gates by the class of the recurrent cell.

    >>> cell_gates()[layers.GRUCell]
    ('z', 'r', 'h')
    """
    return {cls: rule.gates for cls, rule in kernel_layers().items() if rule.gates}


# Layers that hold others, and how they run them.
ATTENTION = (layers.MultiHeadAttention, layers.GroupQueryAttention)
LOOPS = (layers.RNN, layers.Bidirectional)
ONE_STEP = (*LOOPS, layers.Wrapper)  # the trace takes each as one step and does not look inside
# Wrappers that do not assign to the weights of the layer inside.
PLAIN_WRAPPERS = (layers.Bidirectional, layers.TimeDistributed)
# Weights of several axes that are not kernels: GRU's bias, PReLU's slopes, a shift, a singular vector.
NOT_KERNELS = ("bias", "alpha", "gamma", "beta", "vector_u")

# Activations by the class of the operation that computes them without arguments.
ACTIVATIONS = {
    "ReLU": "relu", "Relu": "relu", "Relu6": "relu6", "Sigmoid": "sigmoid", "Softplus": "softplus",
    "Softsign": "softsign", "SoftShrink": "soft_shrink", "SparsePlus": "sparse_plus", "Silu": "silu",
    "Squareplus": "squareplus", "LogSigmoid": "log_sigmoid", "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu", "Selu": "selu", "HardTanh": "hard_tanh", "TanhShrink": "tanh_shrink",
    "HardShrink": "hard_shrink", "SparseSigmoid": "sparse_sigmoid", "Tanh": "tanh", "Exp": "exponential",
}  # fmt: skip
# Activations with arguments have no single name: the operation itself is the activation.
PARAMETRIC = ("Celu", "Elu", "Gelu", "LeakyRelu", "Threshold", "Erf", "Sin", "Cos", "Softmax")
ACTIVATION_LAYERS = (
    layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.PReLU, layers.Softmax,
)  # fmt: skip
NORMALIZATIONS = (
    layers.BatchNormalization, layers.GroupNormalization, layers.LayerNormalization,
    layers.RMSNormalization, layers.UnitNormalization, layers.Normalization,
)  # fmt: skip

# The effect of a layer or operation without kernels on a signal:
#   moves             moves or copies the elements, or does not change them at initialization
#   passes            leaves the distribution about as it is
#   sums, multiplies  takes several signals element by element
#   mixes             sums products of two signals
Effect: TypeAlias = Literal["mixes", "moves", "multiplies", "passes", "sums"]
EFFECTS: dict[str, Effect] = {
    **dict.fromkeys(("Add", "Subtract", "Average"), "sums"),
    "Multiply": "multiplies",
    **dict.fromkeys(("Dot", "DotProductAttention", "Einsum", "Matmul"), "mixes"),
    **dict.fromkeys(
        (
            "ActivityRegularization", "BroadcastTo", "Cast", "ConvertToTensor", "Copy", "ExpandDims",
            "Flatten", "GetItem", "Identity", "Masking", "Moveaxis", "Permute", "Ravel", "Repeat",
            "RepeatVector", "Reshape", "Roll", "Slice", "Split", "Squeeze", "StopGradient", "Swapaxes",
            "Take", "TakeAlongAxis", "Tile", "TimeDistributed", "Transpose", "Unstack", "UpSampling1D",
            "UpSampling3D",
            *(f"Cropping{n}D" for n in (1, 2, 3)),
        ),
        "moves",
    ),
    **dict.fromkeys(
        (
            "AlphaDropout", "AveragePool", "Concatenate", "Divide", "DropPath", "Dropout", "Flip",
            "GaussianDropout", "GaussianNoise", "MaxPool", "Mean", "Negative", "Pad", "Rescaling", "Resize",
            "Resizing", "Stack", "StochasticDepth", "TrueDivide", "UpSampling2D", "Where",
            *(f"{name}{n}D" for n in (1, 2, 3) for name in ("SpatialDropout", "ZeroPadding")),
            *(f"{kind}Pooling{n}D" for n in (1, 2, 3) for kind in ("Max", "Average")),
            *(f"Global{kind}Pooling{n}D" for n in (1, 2, 3) for kind in ("Max", "Average")),
        ),
        "passes",
    ),
}  # fmt: skip


def with_effect(*effects: Effect) -> frozenset[str]:
    """Returns the names of the classes that do one of these to a signal."""
    return frozenset(name for name, effect in EFFECTS.items() if effect in effects)
