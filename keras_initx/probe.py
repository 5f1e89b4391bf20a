"""One instrumented pass over a model: the only code that hooks layers."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initx.walk import KernelSite, iter_kernels

__all__ = ["TRACED", "mean_and_variance", "preactivation_std", "run"]

TRACED = "`model` must run eagerly"


def run(
    model: Any,
    inputs: Any,
    sites: Sequence[KernelSite],
    observe: Callable[[KernelSite, Any], Any],
    enter: Callable[[KernelSite], None] | None = None,
) -> Any:
    """Calls the model once, eagerly, in inference mode, and shows each site's pre-activation to `observe`.

    Args:
        model: A built Keras model or layer.
        inputs: What the model is called on.
        sites: Sites without an obstacle, of distinct layers.
        observe: Gets a site and its layer's output before the activation; what it returns takes the output's
            place, so that all later layers see it.
        enter: Called with a site each time its layer is about to run.

    Returns:
        The model's output.
    """
    with contextlib.ExitStack() as hooks:
        hooks.enter_context(_no_gradients())
        for site in sites:
            hooks.enter_context(_hooked(site, observe, enter))
        return model(inputs, training=False)


def preactivation_std(model: Any, inputs: Any) -> dict[str, float]:
    """Measures the standard deviation of every pre-activation on a batch; the weights stay as they are.

    >>> model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1, "relu", name="head")])
    >>> list(preactivation_std(model, np.ones((4, 2), "float32")))
    ['head']

    Args:
        model: A built Keras model.
        inputs: One batch, in the structure of the model's inputs.

    Returns:
        The population standard deviation by the path of the layer, in the order in which the layers first
        run; of a layer that runs several times, the last.
    """
    stds: dict[str, float] = {}

    def observe(site: KernelSite, output: Any) -> Any:
        stds[site.path] = mean_and_variance(output)[1] ** 0.5
        return output

    run(model, inputs, [site for site in iter_kernels(model, trace=False) if not site.obstacle], observe)
    return stds


def mean_and_variance(tensor: Any) -> tuple[float, float]:
    """Returns the mean and the population variance over all elements, accumulated in float32 or better.

    >>> mean_and_variance(ops.convert_to_tensor([1.0, 3.0]))
    (2.0, 1.0)

    Args:
        tensor: A tensor of any float dtype and shape, with at least one element.

    Returns:
        Both as Python floats.
    """
    if keras.backend.standardize_dtype(tensor.dtype) in ("bfloat16", "float16"):
        tensor = ops.cast(tensor, "float32")
    if "cpu" in str(getattr(tensor, "device", "")).lower():
        # Not `ops.convert_to_numpy`, which copies on TensorFlow.
        mean, square = _moments_on_host(np.asarray(tensor))
    else:
        mean, square = float(ops.mean(tensor)), float(ops.mean(ops.square(tensor)))
    variance = square - mean * mean
    if variance < 1e-2 * square:
        # E[y^2] - E[y]^2 cancels here; the second pass over the data is seldom needed.
        variance = float(ops.mean(ops.square(tensor - mean)))
    return mean, variance


def _moments_on_host(values: np.ndarray) -> tuple[float, float]:
    # Eager backend operations cost more to dispatch than to compute here; NumPy reads the same buffer, and
    # its dot product squares and sums in one pass without a temporary.
    flat = values.reshape(-1)
    # An overflow is an infinite result, which callers look for; NumPy need not warn of it besides.
    with np.errstate(over="ignore", invalid="ignore"):
        return float(flat.mean()), float(np.dot(flat, flat)) / flat.size


@contextlib.contextmanager
def _hooked(
    site: KernelSite, observe: Callable[[KernelSite, Any], Any], enter: Callable[[KernelSite], None] | None
) -> Iterator[None]:
    layer = site.layer
    call, activation, shadow = layer.call, layer.activation, layer.__dict__.get("call")

    def hooked(*args: Any, **kwargs: Any) -> Any:
        if enter:
            enter(site)
        # `object.__setattr__` passes by Keras' tracking of layer attributes.
        object.__setattr__(layer, "activation", None)
        try:
            output = call(*args, **kwargs)
        finally:
            object.__setattr__(layer, "activation", activation)
        if type(output).__name__ == "SymbolicTensor" or "Tracer" in type(output).__name__:
            raise ValueError(
                f"{TRACED}. Received: `{site.path}` runs inside a traced function, where its "
                "output has no value yet. Take the tf.function or jit off the call, or call this outside it."
            )
        output = observe(site, output)
        return output if activation is None else activation(output)

    object.__setattr__(layer, "call", hooked)
    try:
        yield
    finally:
        if shadow is None:
            object.__delattr__(layer, "call")
        else:
            object.__setattr__(layer, "call", shadow)


def _no_gradients() -> contextlib.AbstractContextManager[None]:
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()
