"""Gradients of functions of tensors, which `keras.ops` has no word for, and the losses that models have."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

__all__ = ["choose_loss", "compile_function", "value_and_gradients"]

Objective = Callable[[Any, Any, Any], Any]


def value_and_gradients(
    function: Callable[[Sequence[Any]], Any],
    values: Sequence[Any],
    *,
    has_aux: bool = False,
    nested: bool = True,
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
        has_aux: Whether the function returns a pair: the scalar, and a structure of tensors that is not
            differentiated and comes back as it is.
        nested: Whether the results may be differentiated in turn, which takes torch memory and time.

    Returns:
        The value, with `has_aux` the pair, and one tensor for each of `values`, of its shape and dtype: zeros
        where the function does not depend on it.
    """
    values = list(values)
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.value_and_grad(function, has_aux=has_aux)(values)
    if backend == "torch":
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        # The fused kernels of attention have no second derivatives.
        attention = sdpa_kernel(SDPBackend.MATH) if nested else contextlib.nullcontext()
        with torch.enable_grad(), attention:
            points = [value if value.requires_grad else value.detach().requires_grad_() for value in values]
            result = function(points)
            found = torch.autograd.grad(
                result[0] if has_aux else result,
                points,
                create_graph=nested,
                allow_unused=True,
                materialize_grads=True,
            )
            return result, list(found)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(values)
        result = function(values)
    found = tape.gradient(
        result[0] if has_aux else result, values, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
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


def choose_loss(
    model: Any, targets: Any, loss: Any, user: str, *, needed: bool = True, seed: Any = None
) -> Objective:
    """Returns the loss that was given, or that the model was compiled with.

    Args:
        model: A built Keras model.
        targets: What it is to be called with; None if there is nothing.
        loss: A name, config, `keras.losses.Loss` or function of targets and outputs; None for the model's.
        user: What takes its gradients, for the errors.
        needed: Whether it must be about targets. If not, and there are none, it is a random linear function
            of the outputs.
        seed: Seed of the linear one.

    Returns:
        A function of the batch, the targets and the model's outputs that returns a scalar tensor.

    Raises:
        ValueError: If there are targets without a loss, or none where they are needed.
    """
    if targets is None and not needed:
        return _linear(seed)
    if targets is None:
        raise ValueError(
            f"`targets` must be given: `{user}` takes gradients of a loss. Received: targets=None. Pass "
            "`targets=y`, or data that is a pair (x, y) or an iterable of such pairs."
        )
    if loss is not None:
        function = keras.losses.get(loss)
        return lambda _, targets, outputs: ops.mean(function(targets, outputs))
    if getattr(model, "loss", None) is None:
        raise ValueError(
            f"`loss` must be given, or the model be compiled with one: `{user}` takes its gradients. "
            f'Received: loss=None, and `{model.name}` has none. Pass for example loss="mse".'
        )
    return lambda batch, targets, outputs: model.compute_loss(batch, targets, outputs, training=False)


def _linear(seed: Any) -> Objective:
    """Returns a random linear function of the outputs, with independent normal coefficients."""
    rng = np.random.default_rng(seed)
    drawn: dict[tuple[int, tuple[int, ...]], Any] = {}

    def loss(_: Any, __: Any, outputs: Any) -> Any:
        total = 0.0
        for number, output in enumerate(tree.flatten(outputs)):
            key = number, tuple(output.shape)
            if key not in drawn:
                drawn[key] = rng.standard_normal(output.shape)
            total += ops.sum(ops.convert_to_tensor(drawn[key], output.dtype) * output)
        return total

    return loss
