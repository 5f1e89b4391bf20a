"""Gradients of functions of tensors, which `keras.ops` does not have, and the losses of models."""

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

Objective = Callable[[Any, Any, Any], Tensor]  # of a batch, its targets and the model's outputs


def value_and_gradients(
    function: Callable[..., Any], values: Sequence[Tensor], *, has_aux: bool = False, nested: bool = True
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

    Returns:
        The value (with `has_aux` the pair), and one gradient for each of `values`, in its shape and dtype.
        The gradient is zeros if the function does not depend on the tensor.
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
            found = torch.autograd.grad(scalar, points, create_graph=nested, materialize_grads=True)
            return result, list(found)
    import tensorflow as tf

    # The tape cannot watch a replicated variable within `strategy.scope()`. It can watch a tensor.
    values = [tf.convert_to_tensor(value) for value in values]
    with tf.GradientTape() as tape:
        tape.watch(values)
        result = function(values)
    scalar = result[0] if has_aux else result
    found = tape.gradient(scalar, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return result, [tf.convert_to_tensor(gradient) for gradient in found]  # an embedding's are IndexedSlices


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


def choose_loss(
    model: Model,
    targets: Arrays | None,
    loss: Loss | None,
    user: str,
    *,
    needed: bool = True,
    seed: int | None = None,
) -> Objective:
    """Returns a loss as a function: the given loss, or the loss that the model was compiled with.

    Args:
        model: A built Keras model.
        targets: The targets that the function will be called with, or None.
        loss: A loss as `compile` takes it: a name, a `keras.losses.Loss` or a function of targets and
            outputs; a list or dict of these for several outputs; or a loss' config. None for the model's own.
        user: Name of the caller that takes gradients of the loss, for errors.
        needed: Whether there must be targets. If False, the loss without targets is a random linear function
            of the outputs.
        seed: Seed of the random linear function.

    Returns:
        A function of the batch, the targets and the model's outputs, which returns a scalar tensor.

    Raises:
        ValueError: If there are targets but no loss, or no targets and `needed`, or the loss is not known. On
            a call, if the loss cannot compare the targets with the outputs.
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
            f"`loss` must be given, or the model must be compiled with one: `{user}` takes its gradients. "
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
                raise ValueError(f"the loss has shape {tuple(value.shape)}: reduce it to one number")
            # Layers add penalties of weights and activities, and `add_loss`, to any loss. The model's own
            # `compute_loss` includes them.
            more = [] if judge is model else model.losses
            return value + sum(ops.sum(ops.cast(own, keras.config.floatx())) for own in more)
        except Exception as error:  # each backend raises a class of its own if shapes do not fit
            reason = first_line(error, kind=True).rstrip(".")
            raise ValueError(
                f"`targets` must fit the loss and the model's outputs. Received: {_shapes(labels)}, "
                f"outputs {_shapes(outputs)}, loss {given!r}; it raised {reason}. "
                "Pass the `targets` and the `loss` that `fit` and `compile` take."
            ) from error

    return objective


def _unscaled(loss: Tensor) -> Any:
    """Undoes Keras' division by the number of replicas within `strategy.scope()`: here is one replica."""
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
    """Returns a model that computes the loss in its `compute_loss`, and the loss."""
    # An empty model: to compile the user's model would replace its own loss and optimizer.
    if isinstance(loss, dict) and "class_name" in loss:
        loss = keras.losses.get(loss)
    check_loss(loss)
    judge = keras.Model()
    if names := getattr(model, "output_names", None):
        judge.output_names = names
    judge.compile(loss=loss)
    return judge, loss


def _check_labels(loss: Loss | None, targets: Arrays | None, outputs: Arrays) -> None:
    """Raises ValueError if a label is not the number of a class: JAX, and accelerators, take it silently."""
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
    def told(leaf: Tensor) -> str:
        return f"{getattr(leaf.dtype, 'name', str(leaf.dtype).removeprefix('torch.'))}{tuple(leaf.shape)}"

    return [told(leaf) for leaf in tree.flatten(structure) if leaf is not None]


def _linear(seed: int | None) -> Objective:
    """Returns a random linear function of the outputs, with independent normal coefficients."""
    rng = np.random.default_rng(seed)
    # Drawn once for each shape, so that all calls are of the same function.
    drawn: dict[tuple[int, tuple[int, ...]], np.ndarray] = {}

    def loss(_: Batch, __: Arrays | None, outputs: Arrays) -> Tensor:
        total = 0.0
        for number, output in enumerate(tree.flatten(outputs)):
            key = number, tuple(output.shape)
            if key not in drawn:
                drawn[key] = rng.standard_normal(output.shape)
            total += ops.sum(ops.convert_to_tensor(drawn[key], output.dtype) * output)
        return total

    return loss
