"""The weights of a model that are no kernels: biases, statistics, slopes."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras import layers

from keras_initx._keras_internals import flatten_layers, own_variables
from keras_initx._types import Initializer, Layer, Model, Variable
from keras_initx.fans import Layout
from keras_initx.walk._kernels import einsum_axes, rule_of
from keras_initx.walk._paths import layer_paths
from keras_initx.walk._sites import KernelSite, initializer_of

__all__ = ["Weight", "iter_weights", "own_initializer"]

_STATISTICS = ("moving_mean", "moving_variance")


@dataclasses.dataclass(frozen=True, eq=False)
class Weight:
    """A weight that is no kernel.

    Attributes:
        path: Path of its layer within the model, and its name.
        role: `bias`, `statistic`, `shift` (of a normalization) or `other`.
        layer: The layer that owns it.
        kernel: The variable.
        initializer: What its layer draws it with: a Keras initializer, or a function of shape and dtype; None
            when the layer does not tell.
        skip: As in `KernelSite`.
        layout: For the bias of fused gates, the layout of the layer's kernel; None for all others.
    """

    path: str
    role: str
    layer: Any
    kernel: Any
    initializer: Any
    skip: str = ""
    layout: Layout | None = None


def iter_weights(model: Model, sites: list[KernelSite]) -> Iterator[Weight]:
    """Yields the weights that no site has, each once, in the order in which Keras lists the layers.

    Args:
        model: A Keras model or layer.
        sites: All its sites.

    Yields:
        The weights; the states of random generators and metrics are none.
    """
    seen = {id(site.kernel) for site in sites}
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
    """Returns a layer's own initializer of a kernel, with the axes that Keras hands over when it builds.

    Args:
        site: The kernel.

    Returns:
        An initializer, or None when the layer does not tell.
    """
    own = site.initializer
    if site.axes is None or not isinstance(own, keras.initializers.VarianceScaling):
        return own
    if own.input_axes is not None and own.output_axes is not None:
        return own
    summed, _ = einsum_axes(site.layer.equation)
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
    """What Keras draws the bias of an LSTM with: ones for the forget gate, the second of four."""

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
