"""Gradients of functions of tensors, which `keras.ops` has no word for, and the losses that models have."""

import concurrent.futures
import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_initx._types import Arrays, Batch, Loss, Model, Tensor
from keras_initx.checks import first_line
from keras_initx.data import split_weights

__all__ = ["check_loss", "choose_loss", "compile_function", "to_numpy", "unscoped", "value_and_gradients"]

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

    # Within `strategy.scope()` a replicated variable has no handle to watch. A tensor needs none.
    values = [tf.convert_to_tensor(value) for value in values]
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


def unscoped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that runs outside the `strategy.scope()` of TensorFlow that its caller is in.

    Within a scope, variables are replicated and an optimizer makes no step but on all replicas at once.

    >>> unscoped(max)(2, 3)
    3

    Args:
        function: A function that makes variables of its own, or has an optimizer step on such.

    Returns:
        A function of the same arguments.
    """

    @functools.wraps(function)
    def run(*args: object, **kwargs: object) -> Any:
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            if tf.distribute.has_strategy():
                # TensorFlow has no way out of a scope, but keeps the scopes of each thread apart.
                with concurrent.futures.ThreadPoolExecutor(1) as pool:
                    return pool.submit(function, *args, **kwargs).result()
        return function(*args, **kwargs)

    return run


def to_numpy(tensor: Tensor) -> np.ndarray:
    """Returns the values of a tensor, also of those that a backend refuses to convert.

    They are what torch records for gradients, and TensorFlow's scalars of bfloat16, which become float32.

    >>> to_numpy(ops.ones((2,))).tolist()
    [1.0, 1.0]

    Args:
        tensor: A tensor of any backend.
    """
    if len(tensor.shape) == 0 and keras.backend.standardize_dtype(tensor.dtype) == "bfloat16":
        tensor = ops.cast(tensor, "float32")
    return np.asarray(ops.convert_to_numpy(tensor.detach() if hasattr(tensor, "detach") else tensor))


def choose_loss(
    model: Model,
    targets: Arrays | None,
    loss: Loss | None,
    user: str,
    *,
    needed: bool = True,
    seed: int | None = None,
) -> Objective:
    """Returns the loss that was given, or that the model was compiled with.

    Args:
        model: A built Keras model.
        targets: What it is to be called with; None if there is nothing.
        loss: What `compile` takes: a name, `keras.losses.Loss` or function of targets and outputs, a list or
            dict of them for several outputs; a loss' config; None for the model's.
        user: What takes its gradients, for the errors.
        needed: Whether it must be about targets. If not, and there are none, it is a random linear function
            of the outputs.
        seed: Seed of the linear one.

    Returns:
        A function of the batch, the targets and the model's outputs that returns a scalar tensor.

    Raises:
        ValueError: If there are targets without a loss, or none where they are needed, or the loss is not
            known; on a call, if it cannot compare the targets with the outputs.
    """
    if targets is None and not needed:
        return _linear(seed)
    if targets is None:
        raise ValueError(
            f"`targets` must be given: `{user}` takes gradients of a loss. Received: targets=None. Pass "
            "`targets=y`, or data that is a pair (x, y) or an iterable of such pairs."
        )
    judge, given = model, getattr(model, "loss", None)
    if loss is not None:
        judge, given = _judge(model, loss)
    elif given is None:
        raise ValueError(
            f"`loss` must be given, or the model be compiled with one: `{user}` takes its gradients. "
            f'Received: loss=None, and `{model.name}` has none. Pass for example loss="mse".'
        )
    if any(np.asarray(leaf).dtype.kind in "OSUT" for leaf in tree.flatten(targets) if leaf is not None):
        raise ValueError(f"`targets` must be numbers for a loss. Received: {_shapes(targets)}. Encode them.")

    def objective(batch: Batch, labels: Arrays, outputs: Arrays) -> Any:
        try:
            y, weights = split_weights(labels)
            _check_labels(given, split_weights(targets)[0], outputs)
            given_weights = {} if weights is None else {"sample_weight": weights}
            value = _unscaled(judge.compute_loss(batch, y, outputs, training=False, **given_weights))
            if len(value.shape):
                raise ValueError(f"it is no number, but of shape {tuple(value.shape)}: reduce it")
            # Layers add to any loss: penalties of weights and of activities, and `add_loss`.
            more = [] if judge is model else model.losses
            return value + sum(ops.sum(ops.cast(own, keras.config.floatx())) for own in more)
        except Exception as error:  # each backend has a class of its own for what does not fit
            reason = first_line(error, kind=True).rstrip(".")
            raise ValueError(
                f"`targets` must be what the loss can compare with the outputs. Received: {_shapes(labels)}, "
                f"outputs {_shapes(outputs)}, loss {given!r}; it raised {reason}. "
                "Pass the `targets` and the `loss` that `fit` and `compile` take."
            ) from error

    return objective


def _unscaled(loss: Tensor) -> Any:
    """Takes back the division by the number of replicas that Keras makes within `strategy.scope()`."""
    if keras.backend.backend() != "tensorflow":
        return loss
    import tensorflow as tf

    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return loss if replicas == 1 else loss * replicas


def check_loss(loss: Loss | None) -> None:
    """Raises ValueError unless each loss is one that `compile` takes.

    >>> check_loss({"a": "mse", "b": None})

    Args:
        loss: A loss, or a structure of losses.
    """
    for leaf in () if isinstance(loss, dict) and "class_name" in loss else tree.flatten(loss):
        try:
            known = leaf is None or str(leaf).lower() in ("crossentropy", "ce") or keras.losses.get(leaf)
        except (TypeError, ValueError):
            known = False
        if not known:
            raise ValueError(
                "`loss` must be the name of a Keras loss, a `keras.losses.Loss` or a function of targets and "
                f'outputs; for several outputs a list or dict of them. Received: {leaf!r}. Pass "mse", for '
                "example."
            )


def _judge(model: Model, loss: Loss | None) -> tuple[Any, Any]:
    """Returns a model that takes a loss as the given one would if compiled with it, and the loss."""
    if isinstance(loss, dict) and "class_name" in loss:
        loss = keras.losses.get(loss)
    check_loss(loss)
    judge = keras.Model()
    if names := getattr(model, "output_names", None):
        judge.output_names = names
    judge.compile(loss=loss)
    return judge, loss


def _check_labels(loss: Loss | None, targets: Arrays | None, outputs: Arrays) -> None:
    """Raises where a label is of no class, which JAX, and others on an accelerator, take silently."""
    losses, labels, heads = (tree.flatten(part) for part in (loss, targets, outputs))
    losses = losses * len(heads) if len(losses) == 1 else losses
    if not len(losses) == len(labels) == len(heads):
        return
    for one, label, head in zip(losses, labels, heads, strict=True):
        name = getattr(one, "name", getattr(one, "__name__", one))
        if label is None or str(name).lower().replace("_", "") != "sparsecategoricalcrossentropy":
            continue
        counted = np.asarray(label)
        counted = counted[counted != getattr(one, "ignore_class", None)]
        classes = int(head.shape[-1])
        if counted.size and not (counted.min() >= 0 and counted.max() < classes):
            raise ValueError(f"labels from {counted.min()} to {counted.max()} for {classes} classes")


def _shapes(structure: Arrays | None) -> list[str]:
    leaves = [leaf for leaf in tree.flatten(structure) if leaf is not None]
    return [
        f"{getattr(leaf.dtype, 'name', str(leaf.dtype).removeprefix('torch.'))}{tuple(leaf.shape)}"
        for leaf in leaves
    ]


def _linear(seed: int | None) -> Objective:
    """Returns a random linear function of the outputs, with independent normal coefficients."""
    rng = np.random.default_rng(seed)
    drawn: dict[tuple[int, tuple[int, ...]], Any] = {}

    def loss(_: Batch, __: Arrays | None, outputs: Arrays) -> Any:
        total = 0.0
        for number, output in enumerate(tree.flatten(outputs)):
            key = number, tuple(output.shape)
            if key not in drawn:
                drawn[key] = rng.standard_normal(output.shape)
            total += ops.sum(ops.convert_to_tensor(drawn[key], output.dtype) * output)
        return total

    return loss
