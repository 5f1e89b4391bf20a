"""What the kernels of each class of layer are: the table that `register` adds to."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from keras import layers

from keras_initx.fans import Layout
from keras_initx.layers import ResidualScale

__all__ = ["Kernel", "Rule", "einsum_axes", "known_class", "register", "rule_of"]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """What the axes of a layer's kernel mean.

    Attributes:
        role: Role of the kernel: a word of your own, or one of those that `iter_kernels` lists.
        layout: Its `keras_initx.fans.Layout`, a kind or dict of one, or a function from the layer to it; None
            for kernels that are read off their shape.
        initializer: Attribute of the layer that holds its initializer; None to look for `<name>_initializer`.
    """

    role: str
    layout: str | Mapping[str, Any] | Layout | Callable[[Any], Any] | None = None
    initializer: str | None = None


@dataclasses.dataclass(frozen=True)
class Rule:
    """A class' kernels by the names of their variables, and how they stand to each other.

    Attributes:
        kernels: The kernels.
        linear: Whether the pre-activation is linear in (kernel, bias).
        chained: Whether each kernel takes the output of the one before.
    """

    kernels: Mapping[str, Kernel]
    linear: bool = False
    chained: bool = False


def einsum_axes(equation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Splits an einsum kernel's axes into those that are summed and those that only the output has.

    An axis that inputs, kernel and output share (heads, experts) is in neither: it is a batch axis.
    """
    left, output = equation.replace("...", "").split("->")
    inputs, kernel = left.split(",")
    summed = tuple(axis for axis, letter in enumerate(kernel) if letter not in output)
    outputs = tuple(axis for axis, letter in enumerate(kernel) if letter in output and letter not in inputs)
    return summed, outputs


def _conv(layer: Any) -> Layout:
    return Layout("conv", groups=layer.groups, strides=tuple(layer.strides))


def _strided(kind: str) -> Callable[[Any], Layout]:
    return lambda layer: Layout(kind, strides=tuple(layer.strides))


def _gates(count: int) -> dict[str, Kernel]:
    layout = Layout("gates", gates=count)
    return {
        "kernel": Kernel("gates", layout),
        "recurrent_kernel": Kernel("recurrent", layout, "recurrent_initializer"),
    }


def _linear(role: str, layout: Any = None) -> Rule:
    return Rule({"kernel": Kernel(role, layout)}, linear=True)


_SEPARABLE = Rule(
    {
        "depthwise_kernel": Kernel("depthwise", _strided("depthwise")),
        "pointwise_kernel": Kernel("pointwise", "conv"),
    },
    linear=True,
    chained=True,
)
_EMBEDDINGS = Kernel("embedding", "embedding")
_HUB = Rule({"embeddings": _EMBEDDINGS})
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
    type(layers.ConvLSTM1D(1, 1).cell): Rule(_gates(4)),
    layers.BatchNormalization: Rule(_SCALE),
    layers.GroupNormalization: Rule(_SCALE),
    layers.LayerNormalization: Rule(_SCALE),
    layers.RMSNormalization: Rule(_SCALE),
    ResidualScale: Rule({"scale": Kernel("residual_scale")}),
}


def rule_of(layer: Any) -> tuple[type | None, Rule]:
    """Returns the class whose kernels are known, from the layer's own to its bases, and its rule."""
    base = known_class(layer)
    if base is None and type(layer).__module__.startswith("keras_hub."):
        return base, _HUB  # position embeddings, and the biases of T5's attention
    return base, _RULES[base] if base else Rule({})


def known_class(layer: Any) -> type | None:
    """Returns the nearest class of a layer that the table holds."""
    return next((cls for cls in type(layer).__mro__ if cls in _RULES), None)


def register(layer_class: type, kernels: Mapping[str, Kernel | str]) -> None:
    """Teaches `iter_kernels` the kernels of a class of layers, and of its subclasses.

    The layer counts as one step of the model: the trace does not look inside. Without this, the kernels of a
    class that Keras does not know are reported and left alone.

    >>> class Mixer(layers.Layer):
    ...     def build(self, shape):
    ...         self.mixing = self.add_weight(shape=(shape[1], 4), name="mixing")
    >>> register(Mixer, {"mixing": Kernel("mixing", layout="dense")})

    Args:
        layer_class: The class.
        kernels: For the name of each variable that is a kernel, a `Kernel` or only its role.

    Raises:
        ValueError: If the class is no Keras layer, no kernel is named, or a value is neither.
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, layers.Layer)):
        raise ValueError(f"`layer_class` must be a class of Keras layers. Received: {layer_class!r}.")
    if not kernels or not all(isinstance(kernel, Kernel | str) for kernel in kernels.values()):
        raise ValueError(
            "`kernels` must map names of variables to `Kernel`s or roles. "
            f'Received: kernels={kernels!r}. For example {{"kernel": Kernel("dense", layout="dense")}}.'
        )
    rules = {name: Kernel(kernel) if isinstance(kernel, str) else kernel for name, kernel in kernels.items()}
    _RULES[layer_class] = Rule(rules)
