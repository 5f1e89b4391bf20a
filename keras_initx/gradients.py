"""Gradients of functions of tensors, which `keras.ops` has no word for, on each backend."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

__all__ = ["compile_function", "value_and_gradients"]


def value_and_gradients(
    function: Callable[[Sequence[Any]], Any], values: Sequence[Any]
) -> tuple[Any, list[Any]]:
    """Returns what a scalar function makes of some tensors, and its gradients with respect to each of them.

    Both can be differentiated in turn, so that calls nest: within `function` may stand another call.

    >>> ops = keras.ops
    >>> def cube(values):
    ...     return ops.sum(values[0] ** 3)
    >>> def slope(values):
    ...     return ops.sum(value_and_gradients(cube, values)[1][0])
    >>> value, [curvature] = value_and_gradients(slope, [ops.convert_to_tensor([5.0])])
    >>> float(value), ops.convert_to_numpy(curvature).tolist()
    (75.0, [30.0])

    Args:
        function: From a list of tensors to a scalar tensor.
        values: Float tensors to take it at.

    Returns:
        The value, and one tensor for each of `values`, of its shape and dtype: zeros where the function does
        not depend on it.
    """
    values = list(values)
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.value_and_grad(function)(values)
    if backend == "torch":
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        # The fused kernels of attention have no second derivatives.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            points = [value if value.requires_grad else value.detach().requires_grad_() for value in values]
            result = function(points)
            found = torch.autograd.grad(
                result, points, create_graph=True, allow_unused=True, materialize_grads=True
            )
            return result, list(found)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(values)
        result = function(values)
    found = tape.gradient(result, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return result, [tf.convert_to_tensor(gradient) for gradient in found]  # lookups give slices


def compile_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of tensors compiled as a whole, where that can be relied on.

    On JAX it is. On TensorFlow it is not: some processes refuse graphs of third derivatives of convolutions
    for a cycle of nodes, others run the same model's.

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
