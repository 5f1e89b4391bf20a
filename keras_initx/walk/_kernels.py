"""Which class a layer's kernels are known by, and teaching classes that Keras does not have."""

from collections.abc import Callable, Mapping
from typing import Any

from keras import layers

from keras_initx._keras_internals import own_variables
from keras_initx._types import Layer
from keras_initx.walk._layers import HUB_LAYERS, HUB_REST, Kernel, Rule, kernel_layers

__all__ = ["bias_of", "einsum_axes", "known_class", "register", "rule_of"]


def einsum_axes(equation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Splits an einsum kernel's axes into those that are summed and those that only the output has.

    An axis that inputs, kernel and output share (heads, experts) is in neither: it is a batch axis.
    """
    left, output = equation.replace("...", "").split("->")
    inputs, kernel = left.split(",")
    summed = tuple(axis for axis, letter in enumerate(kernel) if letter not in output)
    outputs = tuple(axis for axis, letter in enumerate(kernel) if letter in output and letter not in inputs)
    return summed, outputs


def rule_of(layer: Layer) -> tuple[type | None, Rule]:
    """Returns the class whose kernels are known, from the layer's own to its bases, and its rule."""
    base = known_class(layer)
    if base is not None:
        return base, kernel_layers()[base]
    hub = [cls for cls in type(layer).__mro__ if cls.__module__.startswith("keras_hub.")]
    base = next((cls for cls in hub if cls.__name__ in HUB_LAYERS), None)
    return base, HUB_LAYERS[base.__name__] if base else HUB_REST if hub else Rule({})


def bias_of(layer: Layer, rule: Rule, kernel: str) -> Any:
    """Returns the variable that is the bias of a kernel, or None."""
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
    kernel_layers()[layer_class] = Rule(rules, linear=linear or call is not None, call=call, taught=True)
