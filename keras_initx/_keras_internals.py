"""Everything that the package knows of Keras beyond its documented interface, but for optimizers.

Keras gives no promise for these names: a release may rename or remove each of them. No other module uses one,
but for `_keras_optimizers`, which `tests/test_architecture.py` checks. `tests/test_keras_internals.py` runs
each function on the installed Keras and says what breaks without it. Nothing here runs at import, so that a
missing name fails only the function that needs it.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import keras

from keras_initx._types import Layer, Model, Tensor, Variable

__all__ = [
    "GLOBAL_SEED",
    "NAME_COUNTS",
    "SEED_STATE",
    "STATELESS_SCOPE",
    "UNINITIALIZED",
    "attention_scale",
    "build_shapes",
    "causal_padding",
    "collected_losses",
    "compiled_loss",
    "conv_lstm_cell",
    "export_signature",
    "flatten_layers",
    "functional_part",
    "given_arguments",
    "global_attribute",
    "input_structure",
    "is_layer_of_keras",
    "is_of_keras",
    "is_rnn_code_of_keras",
    "loss_weights",
    "mask_of",
    "metric_direction",
    "own_trainable_variables",
    "own_variables",
    "pending_initializer",
    "producer_of",
    "quantized_weight",
    "set_global_attribute",
    "set_path",
    "unseeded_torch",
    "without_nodes",
    "wrapped_function",
]

# Keys of Keras' state for each thread, as `global_attribute` takes them.
GLOBAL_SEED = "global_seed_generator"  # the generator that `keras.random` uses without a seed
NAME_COUNTS = "object_name_uids"  # how often each automatic name has been given
STATELESS_SCOPE = "stateless_scope"  # the innermost `keras.StatelessScope`
UNINITIALIZED = "uninitialized_variables"  # variables whose values a scope has put off
# Name of the variable that holds the state of a layer's random numbers.
SEED_STATE = "seed_generator_state"


# Layers and their variables.


def flatten_layers(layer: Layer, include_self: bool = True, recursive: bool = True) -> list[Layer]:
    """Returns a layer and all layers within it, of whatever form they are held.

    `Model.layers` lists only the direct ones, and other layers have no such attribute.

    >>> dense = keras.layers.Dense(1, name="inner")
    >>> [found.name for found in flatten_layers(keras.Sequential([dense], name="outer"))]
    ['outer', 'inner']

    Args:
        layer: A Keras layer or model.
        include_self: Whether the layer itself comes first.
        recursive: Whether to go into the layers within.

    Returns:
        The layers in the order in which Keras tracks them. A layer that two others hold may come twice.
    """
    return list(layer._flatten_layers(include_self=include_self, recursive=recursive))


def own_trainable_variables(layer: Layer) -> list[Variable]:
    """Returns the trainable variables that a layer has made itself, whether or not it is frozen."""
    return list(layer._trainable_variables)


def own_variables(layer: Layer) -> list[Variable]:
    """Returns the variables that a layer has made itself, the trainable ones first.

    `Layer.variables` adds the variables of the layers within.
    """
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def quantized_weight(layer: Layer, name: str) -> Variable | None:
    """Returns the weight behind a property of a quantized or adapted layer that computes with others."""
    return getattr(layer, f"_{name}", None)


def given_arguments(layer: Layer) -> dict[str, Any]:
    """Returns the arguments that a layer was made with; empty where Keras has not kept them."""
    return dict(getattr(getattr(layer, "_auto_config", None), "config", {}))


def pending_initializer(variable: Variable) -> Callable[..., Tensor] | None:
    """Returns the initializer of a variable that has no value yet; None once it has one."""
    return variable._initializer


def set_path(variable: Variable, path: str) -> None:
    """Gives a variable that no layer has made the path by which optimizers choose variables."""
    variable._path = path


def attention_scale(layer: Layer) -> float | None:
    """Returns the factor of queries times keys, if a layer has Keras' own code turn these into scores."""
    if not is_of_keras(getattr(type(layer), "_compute_attention", abs)):
        return None
    return getattr(layer, "_inverse_sqrt_key_dim", getattr(layer, "_inverse_sqrt_head_dim", None))


def causal_padding(layer: Layer) -> list[list[int]]:
    """Returns how a Conv1D with `padding="causal"` pads its input: a pair for each axis."""
    return layer._compute_causal_padding()


def conv_lstm_cell() -> type[Layer]:
    """Returns the class of the cell of ConvLSTM1D to 3D, for which Keras exports no name.

    The class, not an instance: making one would start JAX, which several processes must set up first.
    """
    from keras.src.layers.rnn.conv_lstm import ConvLSTMCell

    return ConvLSTMCell


# Where code comes from.


def is_of_keras(found: type | Callable[..., Any]) -> bool:
    """Whether a class or function stands in Keras' own code."""
    return found.__module__.startswith("keras.src.")


def is_layer_of_keras(layer: Layer) -> bool:
    """Whether the class of a layer is one that Keras defines, not a subclass of one."""
    return type(layer).__module__.startswith("keras.src.layers")


def is_rnn_code_of_keras(found: type | Callable[..., Any]) -> bool:
    """Whether a class or function stands among Keras' recurrent layers."""
    return found.__module__.startswith("keras.src.layers.rnn.")


# How a model was built, and its symbolic calls.


def functional_part(model: Model) -> Model | None:
    """Returns the functional model inside a built Sequential model; None for all other models."""
    return getattr(model, "_functional", None)


def input_structure(model: Model) -> Any:
    """Returns the KerasTensors that a model was built on, in the structure of its inputs.

    Args:
        model: A Keras model.

    Returns:
        The structure; None for models that are neither functional nor Sequential, and for those not built.
    """
    specs = getattr(model, "_inputs_struct", None)
    return getattr(functional_part(model), "_inputs_struct", None) if specs is None else specs


def build_shapes(model: Layer) -> dict[str, Any]:
    """Returns the shapes that a layer was built for, by the arguments of its `build`; empty if not known."""
    return dict(getattr(model, "_build_shapes_dict", None) or {})


def producer_of(tensor: keras.KerasTensor) -> keras.Operation:
    """Returns the layer or operation that made a KerasTensor of a functional model."""
    return tensor._keras_history.operation


def mask_of(tensor: Tensor) -> Tensor | None:
    """Returns the mask that Keras has attached to a tensor, or None."""
    return getattr(tensor, "_keras_mask", None)


def collected_losses(layer: Layer) -> list[Tensor]:
    """Returns the list in which a layer keeps what `add_loss` was given; the list itself, to be cut."""
    return layer._losses


@contextlib.contextmanager
def without_nodes(applies: Callable[[], bool]) -> Iterator[None]:
    """Has symbolic calls of layers leave no node behind, which refuse outputs of None.

    Args:
        applies: Tells at each call whether it is to leave none. All other calls, such as those of other
            threads, leave their nodes as before.
    """
    import keras.src.layers.layer as module  # where `Layer.__call__` finds the class of its nodes

    node = module.Node

    def make(*args: Any, **kwargs: Any) -> Any:
        return None if applies() else node(*args, **kwargs)

    module.Node = make
    try:
        yield
    finally:
        module.Node = node


# Training: losses and metrics.


def compiled_loss(model: Model) -> Any:
    """Returns the object in which a model keeps the losses of `compile`; None if it has none.

    Its `metrics` are the trackers of the whole loss and of those of single outputs.
    """
    return getattr(model, "_compile_loss", None)


def loss_weights(model: Model) -> Any:
    """Returns the `loss_weights` that `compile` was given, or None."""
    return getattr(compiled_loss(model), "_user_loss_weights", None)


def wrapped_function(metric: keras.Metric) -> Callable[..., Tensor] | None:
    """Returns the function or loss that a metric averages; None for other metrics."""
    return getattr(metric, "_fn", None)


def metric_direction(metric: keras.Metric) -> Literal["max", "min"] | None:
    """Returns whether more or less of a metric is better, where Keras says so."""
    return {"up": "max", "down": "min"}.get(getattr(metric, "_direction", ""))  # type: ignore[return-value]


# State of the thread.


def global_attribute(name: str) -> Any:
    """Returns an entry of the state that Keras keeps for the thread, by one of the keys above, or None."""
    from keras.src.backend.common import global_state

    return global_state.get_global_attribute(name)


def set_global_attribute(name: str, value: Any) -> None:
    """Sets an entry of the state that Keras keeps for the thread; None takes it away."""
    from keras.src.backend.common import global_state

    global_state.set_global_attribute(name, value)


@contextlib.contextmanager
def unseeded_torch() -> Iterator[None]:
    """Has `keras.random` on PyTorch draw without looking at the value of a seed, while the block runs."""
    from keras.src.backend.torch import random

    original = random.torch_seed_generator
    random.torch_seed_generator = lambda _: None
    try:
        yield
    finally:
        random.torch_seed_generator = original


# Export.


def export_signature(model: Model) -> list[Any]:
    """Returns the specs of a model's arguments as Keras' own `export` reads them.

    Args:
        model: A built model.

    Raises:
        ValueError: If a subclassed model has never been called.
    """
    from keras.src.export.export_utils import get_input_signature

    return list(get_input_signature(model))
