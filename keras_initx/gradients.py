"""Gradients of functions of tensors, which `keras.ops` does not have."""

import concurrent.futures
import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initx._types import Tensor

__all__ = ["compile_function", "to_numpy", "unscoped", "value_and_gradients"]


def value_and_gradients(
    function: Callable[..., Any],
    values: Sequence[Tensor],
    *,
    has_aux: bool = False,
    nested: bool = True,
    inside: Callable[[], Sequence[Tensor]] = tuple,
) -> tuple[Any, list[Tensor]]:
    """Returns the value of a scalar function of some tensors, and its gradient with respect to each of them.

    Value and gradients can be differentiated in turn, so that calls nest: `function` may call this, too.

    >>> ops = keras.ops
    >>> def cube(values):
    ...     return ops.sum(values[0] ** 3)
    >>> def slope(values):
    ...     return ops.sum(value_and_gradients(cube, values)[1][0])
    >>> value, [curvature] = value_and_gradients(slope, [ops.convert_to_tensor([5.0])])
    >>> float(value), ops.convert_to_numpy(curvature).tolist()
    (75.0, [30.0])

    Args:
        function: Function from a list of tensors to a scalar tensor.
        values: Float tensors at which to take value and gradients.
        has_aux: Whether the function returns a pair: the scalar, and a structure of tensors that is not
            differentiated and comes back as it is.
        nested: Whether the results may be differentiated in turn, which costs memory and time on torch.
        inside: Returns tensors that the function made, once it has run. Not on JAX, which gives no gradient
            at a tensor that is made inside.

    Returns:
        The value (with `has_aux` the pair), and one gradient for each of `values`, in its shape and dtype:
        zeros if the function does not depend on it. One for each tensor of `inside` follows: None if no way
        leads from `values` through it to the result.
    """
    values = list(values)
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.value_and_grad(function, has_aux=has_aux)(values)
    if backend == "torch":
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        # Torch's fused attention has no second derivatives.
        attention = sdpa_kernel(SDPBackend.MATH) if nested else contextlib.nullcontext()
        with torch.enable_grad(), attention:
            points = [value if value.requires_grad else value.detach().requires_grad_() for value in values]
            result = function(points)
            scalar = result[0] if has_aux else result
            points += inside()
            # Torch raises for a tensor that nothing differentiates, as a loss behind `stop_gradient`.
            asked = [point for point in points if point.requires_grad and scalar.requires_grad]
            given = (
                torch.autograd.grad(scalar, asked, create_graph=nested, allow_unused=True) if asked else ()
            )
            found = {id(point): gradient for point, gradient in zip(asked, given, strict=True)}
            return result, _filled([found.get(id(point)) for point in points], values)
    import tensorflow as tf

    # The tape cannot watch a replicated variable within `strategy.scope()`. It can watch a tensor.
    values = [tf.convert_to_tensor(value) for value in values]
    with tf.GradientTape() as tape:
        tape.watch(values)
        result = function(values)
    scalar = result[0] if has_aux else result
    gradients = tape.gradient(scalar, [*values, *inside()])
    # An embedding's are IndexedSlices.
    gradients = [None if gradient is None else tf.convert_to_tensor(gradient) for gradient in gradients]
    return result, _filled(gradients, values)


def _filled(gradients: list[Any], values: Sequence[Tensor]) -> list[Any]:
    """The gradients, with zeros for those of `values` that are None."""
    count = len(values)
    zeros = (ops.zeros_like(v) if g is None else g for g, v in zip(gradients[:count], values, strict=True))
    return [*zeros, *gradients[count:]]


def compile_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function of tensors on JAX; returns it as it is on other backends.

    On TensorFlow compiling is not reliable: some processes refuse graphs of third derivatives of convolutions
    for a cycle of nodes, and others run the same model.

    >>> ops = keras.ops
    >>> print(ops.convert_to_numpy(compile_function(ops.square)(ops.convert_to_tensor(3.0))))
    9.0

    Args:
        function: A pure function of structures of tensors.

    Returns:
        A function of the same arguments.
    """
    if keras.backend.backend() != "jax":
        return function
    import jax

    return jax.jit(function)


def unscoped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that runs outside the `strategy.scope()` of TensorFlow around its call.

    Within a scope, variables are replicated, and an optimizer steps on all replicas at once only.

    >>> unscoped(max)(2, 3)
    3

    Args:
        function: A function that makes variables of its own, or makes an optimizer step on them.

    Returns:
        A function of the same arguments.
    """

    @functools.wraps(function)
    def run(*args: object, **kwargs: object) -> Any:
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            if tf.distribute.has_strategy():
                # TensorFlow has no way out of a scope, but each thread has scopes of its own.
                with concurrent.futures.ThreadPoolExecutor(1) as pool:
                    return pool.submit(function, *args, **kwargs).result()
        return function(*args, **kwargs)

    return run


def to_numpy(tensor: Tensor) -> np.ndarray:
    """Returns the values of a tensor as a NumPy array, also of two kinds that Keras does not convert.

    They are tensors that torch records for gradients, and TensorFlow's scalars of bfloat16, now float32.

    >>> to_numpy(ops.ones((2,))).tolist()
    [1.0, 1.0]

    Args:
        tensor: A tensor of any backend.
    """
    if len(tensor.shape) == 0 and keras.backend.standardize_dtype(tensor.dtype) == "bfloat16":
        tensor = ops.cast(tensor, "float32")
    return np.asarray(ops.convert_to_numpy(tensor.detach() if hasattr(tensor, "detach") else tensor))
