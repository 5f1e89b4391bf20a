"""The reader of the backend that Keras runs on, and runs on tensors without values."""

import contextlib
import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import keras

from keras_initx._keras_internals import flatten_layers, unseeded_torch
from keras_initx._types import Model, Tensor, Variable

__all__ = ["kept_buffers", "reader", "run_without_values"]

# A shape and a dtype.
Spec = tuple[tuple[int, ...], str]


def reader() -> ModuleType:
    """Returns the module that shows the operations of the backend and tells what they do."""
    return importlib.import_module(f"keras_initx.uses._{keras.backend.backend()}")


def run_without_values(
    function: Callable[[list[Tensor], list[Tensor]], None],
    variables: Sequence[Variable],
    specs: Sequence[Spec],
) -> None:
    """Calls a function once, on tensors of the shapes of variables and of inputs that hold no values.

    Args:
        function: Function of the tensors that stand for the variables, and of those that stand for the
            inputs.
        variables: The variables.
        specs: Shapes and dtypes of the inputs.
    """
    kinds = [(tuple(v.shape), keras.backend.standardize_dtype(v.dtype)) for v in variables]
    {"jax": _on_jax, "tensorflow": _on_tensorflow, "torch": _on_torch}[keras.backend.backend()](
        function, kinds, list(specs)
    )


def _on_jax(function: Callable[..., None], kinds: list[Spec], specs: list[Spec]) -> None:
    import jax

    def run(values: list[Tensor], inputs: list[Tensor]) -> None:
        function(values, inputs)

    jax.eval_shape(run, *([jax.ShapeDtypeStruct(*kind) for kind in side] for side in (kinds, specs)))


def _on_tensorflow(function: Callable[..., None], kinds: list[Spec], specs: list[Spec]) -> None:
    import tensorflow as tf
    from tensorflow.python.framework.func_graph import FuncGraph

    with FuncGraph("without_values").as_default():
        function(
            *([tf.compat.v1.placeholder(dtype, shape) for shape, dtype in side] for side in (kinds, specs))
        )


def _on_torch(function: Callable[..., None], kinds: list[Spec], specs: list[Spec]) -> None:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    # A seed is a tensor, which has no value here.
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), unseeded_torch(), _quiet_torch():
        function(*([keras.ops.zeros(*kind) for kind in side] for side in (kinds, specs)))


@contextlib.contextmanager
def kept_buffers(model: Model) -> Iterator[None]:
    """Puts back state that a run changes and Keras does not know.

    On torch these are the buffers of modules, on TensorFlow attributes of layers that are a `tf.Variable`.
    """
    before = [(buffer, _copy(buffer)) for buffer in _buffers(model)]
    try:
        yield
    finally:
        for buffer, value in before:
            if keras.backend.backend() == "torch":
                buffer.data.copy_(value)  # `data`, so that torch may still take gradients of the run
            else:
                buffer.assign(value)


def _buffers(model: Model) -> list[Any]:
    layers = flatten_layers(model)
    if keras.backend.backend() == "torch":
        found = (buffer for layer in layers for buffer in layer.buffers())
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        found = (own for layer in layers for own in vars(layer).values() if isinstance(own, tf.Variable))
    else:
        return []
    return list({id(buffer): buffer for buffer in found}.values())


def _copy(buffer: Any) -> Any:
    return buffer.clone() if keras.backend.backend() == "torch" else buffer.read_value()


@contextlib.contextmanager
def _quiet_torch() -> Iterator[None]:
    """Keeps torch from printing a traceback for each shape that a model refuses: the caller tries another."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
