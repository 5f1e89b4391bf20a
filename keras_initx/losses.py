"""Losses of models as functions: of a batch, its targets and the model's outputs."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_initx._types import Arrays, Batch, Loss, Model, Tensor
from keras_initx.checks import first_line
from keras_initx.data import split_weights

__all__ = ["Objective", "check_loss", "choose_loss"]

Objective = Callable[[Any, Any, Any], Tensor]  # of a batch, its targets and the model's outputs


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
