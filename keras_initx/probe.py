"""One instrumented pass over a model: the only code that hooks layers."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initx.walk import KernelSite, iter_kernels

__all__ = ["TRACED", "mean_and_variance", "preactivation_std", "run", "unit_moments"]

TRACED = "`model` must run eagerly"


def run(
    model: Any,
    inputs: Any,
    sites: Sequence[KernelSite],
    observe: Callable[[KernelSite, Any], Any],
    enter: Callable[[KernelSite, Any], Any] | None = None,
    training: bool = False,
    before: Sequence[tuple[Any, Callable[..., None]]] = (),
    check: Callable[[KernelSite, Callable[[], Any], Callable[[], Any]], bool] | None = None,
    after: Sequence[tuple[Any, Callable[[Any], None]]] = (),
    gradients: bool = False,
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
        check: Called before a layer of a registered class runs, with each of its sites, with what runs it and
            returns a list of the site's pre-activations and the output, and with what runs its own `call`.
            If it returns False, the site is not shown.
        after: Layers, and what is called with the output of each of their calls.
        gradients: Whether gradients are taken of the pass: torch then records it, JAX shows tracers.

    Returns:
        The model's output.
    """
    with contextlib.ExitStack() as hooks:
        if not gradients:
            hooks.enter_context(_no_gradients())
        stateful = [layer for layer in model._flatten_layers() if getattr(layer, "stateful", False)]
        moved = [model] if training else stateful
        hooks.enter_context(_unchanged([v for layer in moved for v in layer.non_trainable_variables]))
        for layer, function in before:
            hooks.enter_context(_accompanied(layer, function, None))
        by_layer: dict[int, list[KernelSite]] = {}
        for site in sites:
            by_layer.setdefault(id(site.layer), []).append(site)
        for group in by_layer.values():
            hooks.enter_context(_hooked(group, observe, enter, check, gradients))
        for layer, function in after:
            hooks.enter_context(_accompanied(layer, None, function))
        return model(inputs, training=training)


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
        run; over all calls of a layer that runs several times.
    """
    moments: dict[str, list[tuple[float, float]]] = {}

    def observe(site: KernelSite, output: Any) -> Any:
        moments.setdefault(site.path, []).append(mean_and_variance(output))
        return output

    run(model, inputs, [site for site in iter_kernels(model, trace=False) if not site.obstacle], observe)
    return {path: _pooled(calls) for path, calls in moments.items()}


def _pooled(calls: list[tuple[float, float]]) -> float:
    means, variances = zip(*calls, strict=True)
    return float(np.mean(variances) + np.var(means)) ** 0.5


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


def unit_moments(tensor: Any, axes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean and the population variance of each unit, in float64.

    >>> mean, variance = unit_moments(ops.convert_to_tensor([[1.0, 0.0], [3.0, 0.0]]), (-1,))
    >>> mean.tolist(), variance.tolist()
    ([2.0, 0.0], [1.0, 0.0])

    Args:
        tensor: A tensor of any float dtype.
        axes: The axes that index the units, in the order in which the result is to be flattened.

    Returns:
        Two arrays of one axis.
    """
    values = np.moveaxis(ops.convert_to_numpy(tensor), axes, range(-len(axes), 0))
    rows = values.reshape(-1, int(np.prod(values.shape[values.ndim - len(axes) :]))).astype("float64")
    return rows.mean(0), rows.var(0)


@contextlib.contextmanager
def _hooked(
    sites: Sequence[KernelSite],
    observe: Callable[[KernelSite, Any], Any],
    enter: Callable[[KernelSite, Any], Any] | None,
    check: Callable[..., bool] | None,
    gradients: bool,
) -> Iterator[None]:
    """Has one layer, whose sites these are, show what each of its kernels makes."""
    layer = sites[0].layer
    call, shadow = layer.call, layer.__dict__.get("call")

    def hooked(*args: Any, **kwargs: Any) -> Any:
        now = {site.kernel.name: site for site in _sites_of_call(sites, args, kwargs)}
        own = functools.partial(call, *args, **kwargs)

        def run(show: Callable[[str, Any], Any]) -> Any:
            if sites[0].call is not None:
                return sites[0].call(layer, show, *args, **kwargs)
            return _linear(layer, own, functools.partial(show, next(iter(now), "")))

        if check and sites[0].taught:
            now = {name: s for name, s in now.items() if check(s, functools.partial(_shown, name, run), own)}
        for site in now.values() if enter else ():
            args, kwargs = _entered(enter, site, args, kwargs)  # type: ignore[arg-type]
        own = functools.partial(call, *args, **kwargs)

        def show(name: str, output: Any) -> Any:
            _refuse_symbols(output, sites[-1].path, gradients)
            return observe(now[name], output) if name in now else output

        return run(show)

    with _called(layer, hooked, shadow):
        yield


def _entered(
    enter: Callable[[KernelSite, Any], Any], site: KernelSite, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Shows a site what its layer is about to run on, its first argument, and puts in what it returns."""
    if args:
        replaced = enter(site, args[0])
        return (args if replaced is None else (replaced, *args[1:])), kwargs
    name = next(iter(kwargs))
    replaced = enter(site, kwargs[name])
    return args, (kwargs if replaced is None else kwargs | {name: replaced})


def _shown(kernel: str, run: Callable[..., Any]) -> tuple[list[Any], Any]:
    """What a layer shows of one kernel, and its output."""
    found: list[Any] = []

    def show(name: str, output: Any) -> Any:
        if name == kernel:
            found.append(output)
        return output

    output = run(show)
    return found, output


def _refuse_symbols(output: Any, path: str, gradients: bool) -> None:
    traced = "Tracer" in type(output).__name__ and not gradients  # JAX differentiates by tracers
    if traced or type(output).__name__ == "SymbolicTensor":
        raise ValueError(
            f"{TRACED}. Received: `{path}` runs inside a traced function, where its "
            "output has no value yet. Take the tf.function or jit off the call, or call this outside it."
        )


@contextlib.contextmanager
def _accompanied(
    layer: Any, before: Callable[..., None] | None, after: Callable[[Any], None] | None
) -> Iterator[None]:
    """Has functions called with the arguments of each call of a layer, and with what it returns."""
    call, shadow = layer.call, layer.__dict__.get("call")

    def hooked(*args: Any, **kwargs: Any) -> Any:
        if before:
            before(*args, **kwargs)
        output = call(*args, **kwargs)
        if after:
            after(output)
        return output

    with _called(layer, hooked, shadow):
        yield


@contextlib.contextmanager
def _called(layer: Any, hooked: Callable[..., Any], shadow: Any) -> Iterator[None]:
    """Has another function in place of a layer's `call`."""
    # `object.__setattr__` passes by Keras' tracking of layer attributes.
    object.__setattr__(layer, "call", hooked)
    try:
        yield
    finally:
        if shadow is None:
            object.__delattr__(layer, "call")
        else:
            object.__setattr__(layer, "call", shadow)


def _sites_of_call(
    sites: Sequence[KernelSite], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Sequence[KernelSite]:
    """The sites whose kernels a call uses: a reversible embedding has one for each direction."""
    if not hasattr(sites[0].layer, "tie_weights"):
        return sites
    backwards = kwargs.get("reverse", len(args) > 1 and args[1])
    return [site for site in sites if (site.kernel.name == "reverse_embeddings") == bool(backwards)]


def _linear(layer: Any, call: Callable[[], Any], show: Callable[[Any], Any]) -> Any:
    """What a layer returns, shown before its activation."""
    activation = getattr(layer, "activation", None)
    if activation is None:
        return show(call())
    # `object.__setattr__` passes by Keras' tracking of layer attributes.
    # Not None: Keras' own layers ask for that, a user's need not.
    object.__setattr__(layer, "activation", keras.activations.linear)
    try:
        output = call()
    finally:
        object.__setattr__(layer, "activation", activation)
    return activation(show(output))


@contextlib.contextmanager
def _unchanged(variables: Sequence[Any]) -> Iterator[None]:
    """Puts variables back when the block ends."""
    before = [(variable, ops.copy(variable.value)) for variable in variables]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


def _no_gradients() -> contextlib.AbstractContextManager[None]:
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()
