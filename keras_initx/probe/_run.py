"""The pass: calls a model once and shows the pre-activation of each site."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_initx._keras_internals import (
    flatten_layers,
    is_layer_of_keras,
    own_trainable_variables,
    own_variables,
)
from keras_initx._types import Batch, Layer, Model, Tensor, Variable
from keras_initx.probe._hooks import accompanied, hooked
from keras_initx.probe._moments import mean_and_variance
from keras_initx.probe._readers import watched
from keras_initx.probe._scopes import no_gradients, unchanged
from keras_initx.probe._unsupported import refused_layout
from keras_initx.uses import Taken, kept_buffers
from keras_initx.walk import KernelSite, iter_kernels

__all__ = ["preactivation_std", "run"]


def run(
    model: Model,
    inputs: Batch,
    sites: Sequence[KernelSite],
    observe: Callable[[KernelSite, Tensor], Tensor],
    enter: Callable[[KernelSite, Tensor], Tensor | None] | None = None,
    training: bool = False,
    before: Sequence[tuple[Layer, Callable[..., None]]] = (),
    check: Callable[[KernelSite, Callable[[], Any], Callable[[], Any]], bool] | None = None,
    after: Sequence[tuple[Layer, Callable[[Any], None]]] = (),
    gradients: bool = False,
    read: Callable[[KernelSite, str], None] | None = None,
    held: Sequence[Variable] = (),
    take: Callable[[KernelSite, Taken], Tensor] | None = None,
) -> Any:
    """Calls the model once, eagerly, and shows the pre-activation of each site to `observe`.

    Args:
        model: A built Keras model or layer.
        inputs: The batch that the model is called on.
        sites: Sites without an obstacle.
        observe: Called with a site and its pre-activation. The tensor that it returns takes the place of the
            pre-activation, so that all later layers see it.
        enter: Called with a site and the input of its layer, before each run of the layer. A tensor that it
            returns takes the place of the input; None keeps the input.
        training: Whether the model runs as in training: with dropout, and with the statistics of the batch in
            normalizations. Moving statistics are put back afterwards, as are states of stateful layers.
        before: Pairs of a layer and a function, which is called with the arguments of each call of the layer.
        check: Called before each run of a layer with a `checked` site. It gets the site; a function that runs
            the layer and returns the pair of the site's pre-activations and the output; and a function that
            runs the layer's own `call`. If it returns False, the site is not shown.
        after: Pairs of a layer and a function, which is called with the output of each call of the layer.
        gradients: Whether gradients are taken of the pass. Torch then records the pass, and JAX shows
            tracers. Tensors that `observe` and `enter` return are copied, so that the model may change them
            in place. A site with `uses` is shown below the gradients on TensorFlow and torch: a tensor that
            takes the place of its output is recorded as the output itself.
        read: Called if anything other than a site's own layer reads its kernel or bias, with the site and the
            name of the reading layer.
        held: Variables to put back when the pass is over.
        take: Called in place of `enter` for a site that has `uses`, with the operation that takes its
            kernel: the signal of this need not be the input of the layer. Returns the tensor to go on with
            in place of the operation's output.

    Returns:
        The model's output.

    Raises:
        ValueError: If the model runs in a traced function, or the backend cannot run channels first.
    """
    running: list[Layer] = []
    with contextlib.ExitStack() as hooks:
        if not gradients:
            hooks.enter_context(no_gradients())
        hooks.enter_context(kept_buffers(model))
        hooks.enter_context(unchanged([*_states(model, sites, training), *held]))
        # The hooks of one layer nest: `before` runs innermost, right around `call`, and `after` outermost, so
        # that it sees the output with the replaced pre-activation.
        for layer, function in before:
            hooks.enter_context(accompanied(layer, function, None))
        by_layer: dict[int, list[KernelSite]] = {}
        for site in sites:
            by_layer.setdefault(id(site.layer), []).append(site)
        for group in by_layer.values():
            hooks.enter_context(hooked(group, observe, enter, check, gradients, running, take))
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


def _states(model: Model, sites: Sequence[KernelSite], training: bool) -> list[Variable]:
    """The variables that a pass may move by itself.

    In training this is any statistic. Otherwise it is the states of stateful recurrent layers, and whatever a
    layer of a user's counts in its `call`.
    """
    if training:
        return list(model.non_trainable_variables)
    written = {id(v) for site in sites for v in (site.kernel, site.bias) if v is not None}
    found = []
    for layer in flatten_layers(model):
        if getattr(layer, "stateful", False):
            found += layer.non_trainable_variables
        elif not is_layer_of_keras(layer):
            own = {id(v) for v in own_trainable_variables(layer)} | written
            found += [v for v in own_variables(layer) if id(v) not in own]
    return found


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
        The population standard deviation by the path of the kernel, in the order in which the layers first
        run. If a layer runs several times, all its calls are taken together. If several layers share a
        kernel, each layer has an entry.
    """
    moments: dict[str, list[tuple[float, float]]] = {}

    def observe(site: KernelSite, output: Tensor) -> Any:
        moments.setdefault(site.path, []).append(mean_and_variance(output))
        return output

    every = [one for site in iter_kernels(model, trace=False) for one in (site, *site.shared)]
    run(model, inputs, [site for site in every if not site.obstacle], observe)
    return {path: _pooled(calls) for path, calls in moments.items()}


def _pooled(calls: list[tuple[float, float]]) -> float:
    """The standard deviation over several calls of equal size: variance within and between them."""
    means, variances = zip(*calls, strict=True)
    return float(np.mean(variances) + np.var(means)) ** 0.5
