"""The pass: a model is called once, and each site's pre-activation is shown."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_initx._keras_internals import flatten_layers
from keras_initx._types import Batch, Model, Tensor
from keras_initx.probe._hooks import accompanied, hooked
from keras_initx.probe._moments import mean_and_variance
from keras_initx.probe._readers import watched
from keras_initx.probe._scopes import no_gradients, unchanged
from keras_initx.probe._unsupported import refused_layout
from keras_initx.walk import KernelSite, iter_kernels

__all__ = ["preactivation_std", "run"]


def run(
    model: Model,
    inputs: Batch,
    sites: Sequence[KernelSite],
    observe: Callable[[KernelSite, Any], Any],
    enter: Callable[[KernelSite, Any], Any] | None = None,
    training: bool = False,
    before: Sequence[tuple[Any, Callable[..., None]]] = (),
    check: Callable[[KernelSite, Callable[[], Any], Callable[[], Any]], bool] | None = None,
    after: Sequence[tuple[Any, Callable[[Any], None]]] = (),
    gradients: bool = False,
    read: Callable[[KernelSite, str], None] | None = None,
    held: Sequence[Any] = (),
) -> Any:
    """Calls the model once, eagerly, and shows each site's pre-activation to `observe`.

    Args:
        model: A built Keras model or layer.
        inputs: What the model is called on.
        sites: Sites without an obstacle.
        observe: Gets a site and its pre-activation; what it returns takes the place of that, so that all
            later layers see it.
        enter: Called with a site, and with what its layer is about to run on, each time. What it returns
            takes the place of that, unless it is None.
        training: Whether the model runs as in training: with statistics of the batch in normalizations, whose
            moving ones are then what they were before, and with dropout. States of stateful layers stay, too.
        before: Layers, and what is called with the arguments of each of their calls before it runs.
        check: Called before the layer of a site that is `checked` runs, with the site, with what runs the
            layer and returns a list of the site's pre-activations and the output, and with what runs its own
            `call`. If it returns False, the site is not shown.
        after: Layers, and what is called with the output of each of their calls.
        gradients: Whether gradients are taken of the pass: torch then records it, JAX shows tracers. What
            observe and enter return is then copied, so that the model may change it in place.
        read: Called when anything but its own layer reads a site's kernel or bias, with the site and the
            name of the layer that does.
        held: Variables that are put back when the pass is over.

    Returns:
        The model's output.

    Raises:
        ValueError: If the model runs in a traced function, or the backend cannot run channels first.
    """
    running: list[Any] = []
    with contextlib.ExitStack() as hooks:
        if not gradients:
            hooks.enter_context(no_gradients())
        stateful = [layer for layer in flatten_layers(model) if getattr(layer, "stateful", False)]
        moved = [v for layer in ([model] if training else stateful) for v in layer.non_trainable_variables]
        hooks.enter_context(unchanged([*moved, *held]))
        for layer, function in before:
            hooks.enter_context(accompanied(layer, function, None))
        by_layer: dict[int, list[KernelSite]] = {}
        for site in sites:
            by_layer.setdefault(id(site.layer), []).append(site)
        for group in by_layer.values():
            hooks.enter_context(hooked(group, observe, enter, check, gradients, running))
        for layer, function in after:
            hooks.enter_context(accompanied(layer, None, function))
        if read:
            hooks.enter_context(watched(sites, running, read))
        try:
            return model(inputs, training=training)
        except Exception as error:
            if refused := refused_layout(model, error):
                raise refused from error
            raise


def preactivation_std(model: Model, inputs: Batch) -> dict[str, float]:
    """Measures the standard deviation of every pre-activation on a batch; the weights stay as they are.

    >>> import keras
    >>> model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1, "relu", name="head")])
    >>> list(preactivation_std(model, np.ones((4, 2), "float32")))
    ['head']

    Args:
        model: A built Keras model.
        inputs: One batch, in the structure of the model's inputs.

    Returns:
        The population standard deviation by the path of the layer, in the order in which the layers first
        run; over all calls of a layer that runs several times, and for each layer of a shared kernel by
        itself.
    """
    moments: dict[str, list[tuple[float, float]]] = {}

    def observe(site: KernelSite, output: Tensor) -> Any:
        moments.setdefault(site.path, []).append(mean_and_variance(output))
        return output

    every = [one for site in iter_kernels(model, trace=False) for one in (site, *site.shared)]
    run(model, inputs, [site for site in every if not site.obstacle], observe)
    return {path: _pooled(calls) for path, calls in moments.items()}


def _pooled(calls: list[tuple[float, float]]) -> float:
    means, variances = zip(*calls, strict=True)
    return float(np.mean(variances) + np.var(means)) ** 0.5
