"""`iter_weights`: the weights of a model that are not kernels, such as biases, statistics and slopes."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras import layers

from keras_initx._keras_internals import flatten_layers, own_variables
from keras_initx._types import Initializer, Layer, Model, Variable
from keras_initx.fans import Layout
from keras_initx.walk._initial import initializer_of
from keras_initx.walk._kernels import einsum_axes, rule_of
from keras_initx.walk._paths import layer_paths
from keras_initx.walk._site import KernelSite

__all__ = ["Weight", "iter_weights", "own_initializer"]

_STATISTICS = ("moving_mean", "moving_variance")


@dataclasses.dataclass(frozen=True, eq=False)
class Weight:
    """A weight that is not a kernel.

    Attributes:
        path: Path of the layer within the model, and the name of the weight.
        role: `bias`, `statistic`, `shift` (of a normalization) or `other`.
        layer: The layer that owns the weight.
        kernel: The variable.
        initializer: The layer's initializer of the weight: a Keras initializer, or a function of shape and
            dtype. None if the layer does not tell.
        skip: The reason not to draw the weight; empty if it may be drawn.
        layout: For the bias of fused gates, the layout of the layer's kernel; None for other weights.
    """

    path: str
    role: str
    layer: Layer
    kernel: Variable
    initializer: Initializer | None
    skip: str = ""
    layout: Layout | None = None


def iter_weights(model: Model, sites: list[KernelSite]) -> Iterator[Weight]:
    """Yields each weight of a model that is not a kernel, in the order in which Keras lists the layers.

    >>> layer = layers.BatchNormalization(name="norm")
    >>> layer.build((None, 4))
    >>> from keras_initx.walk import iter_kernels
    >>> [(weight.path, weight.role) for weight in iter_weights(layer, list(iter_kernels(layer)))]
    [('beta', 'shift'), ('moving_mean', 'statistic'), ('moving_variance', 'statistic')]

    Args:
        model: A Keras model or layer.
        sites: All sites of the model.

    Yields:
        The weights, without the states of random generators and metrics.
    """
    seen = {id(site.kernel) for site in sites}
    # A bias is left alone with its kernel: of a LoRA-enabled or quantized layer, both are one state.
    skips = {id(site.layer): site.skip for site in sites}
    gates = {id(site.layer): site.layout for site in sites if site.layout and site.layout.gates}
    paths = layer_paths(model)
    for layer in flatten_layers(model):
        for variable in own_variables(layer):
            if id(variable) in seen or id(layer) not in paths:
                continue
            seen.add(id(variable))
            role = _role(variable.name)
            yield Weight(
                path=f"{paths[id(layer)]}/{variable.name}".removeprefix("/"),
                role=role,
                layer=layer,
                kernel=variable,
                initializer=_draw_of(layer, variable),
                skip=skips.get(id(layer), ""),
                layout=gates.get(id(layer)) if role == "bias" else None,
            )


def own_initializer(site: KernelSite) -> Any:
    """Returns the initializer that a layer draws its kernel with, as Keras completes it in `build`.

    For an EinsumDense, Keras adds the axes of the equation to an initializer that computes fans.

    Args:
        site: The kernel.

    Returns:
        An initializer, or None if the layer does not tell.
    """
    own = site.initializer
    equation = getattr(site.layer, "equation", None)
    if site.axes is None or equation is None or not isinstance(own, keras.initializers.VarianceScaling):
        return own
    if own.input_axes is not None and own.output_axes is not None:
        return own
    summed, _ = einsum_axes(equation)
    rest = [axis for axis in range(len(site.kernel.shape)) if axis not in summed]
    return own.from_config(own.get_config() | {"input_axes": list(summed), "output_axes": rest})


def _role(name: str) -> str:
    if name in _STATISTICS:
        return "statistic"
    if name == "beta":
        return "shift"
    return "bias" if name == "bias" or name.endswith("_bias") else "other"


def _draw_of(layer: Layer, variable: Variable) -> Any:
    found = initializer_of(layer, variable)
    if variable.name == "bias" and isinstance(layer, layers.LSTMCell) and layer.unit_forget_bias:
        return UnitForgetBias(found)
    if variable.name == "bias" and _convolutional(layer) and layer.unit_forget_bias:
        return UnitForgetBias(found)
    return found


def _convolutional(layer: Layer) -> bool:
    base, _ = rule_of(layer)
    return base is not None and base.__name__ == "ConvLSTMCell"


class UnitForgetBias(keras.initializers.Initializer):
    """Draws the bias of an LSTM as Keras does: ones for the forget gate, the second of four."""

    def __init__(self, initializer: Initializer) -> None:
        self.initializer = keras.initializers.get(initializer)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Any:
        units = shape[0] // 4
        parts = (
            self.initializer((units,), dtype),
            keras.ops.ones((units,), dtype),
            self.initializer((2 * units,), dtype),
        )
        return keras.ops.concatenate(parts)

    def get_config(self) -> dict[str, Any]:
        return {"initializer": keras.saving.serialize_keras_object(self.initializer)}
