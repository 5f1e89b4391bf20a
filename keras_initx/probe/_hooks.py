"""Layers that show what they compute, for the time of a pass."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import ops

from keras_initx._types import Layer, Tensor
from keras_initx.probe._unsupported import TRACED
from keras_initx.walk import KernelSite

__all__ = ["accompanied", "hooked"]


@contextlib.contextmanager
def hooked(
    sites: Sequence[KernelSite],
    observe: Callable[[KernelSite, Any], Any],
    enter: Callable[[KernelSite, Any], Any] | None,
    check: Callable[..., bool] | None,
    gradients: bool,
    running: list[Any],
) -> Iterator[None]:
    """Has one layer, whose sites these are, show what each of its kernels makes.

    Args:
        sites: All sites of the layer.
        observe: As in `run`.
        enter: As in `run`.
        check: As in `run`.
        gradients: As in `run`.
        running: Where the layer is listed while it runs.
    """
    layer = sites[0].layer
    call, shadow = layer.call, layer.__dict__.get("call")

    def hooked(*args: Any, **kwargs: Any) -> Any:
        running.append(layer)
        try:
            return shown(*args, **kwargs)
        finally:
            running.pop()

    def shown(*args: Any, **kwargs: Any) -> Any:
        now = {site.kernel.name: site for site in _sites_of_call(sites, args, kwargs)}
        own = functools.partial(call, *args, **kwargs)

        def run(show: Callable[[str, Any], Any]) -> Any:
            if sites[0].call is not None:
                return sites[0].call(layer, show, *args, **kwargs)
            return _linear(layer, own, functools.partial(show, next(iter(now), "")))

        if check and sites[0].checked:
            now = {name: s for name, s in now.items() if check(s, functools.partial(_shown, name, run), own)}
        for site in now.values() if enter else ():
            args, kwargs = _entered(enter, site, args, kwargs, gradients)  # type: ignore[arg-type]
        own = functools.partial(call, *args, **kwargs)

        def show(name: str, output: Tensor) -> Any:
            _refuse_symbols(output, sites[-1].path, gradients)
            return _changeable(observe(now[name], output), gradients) if name in now else output

        return run(show)

    with _called(layer, hooked, shadow):
        yield


def _entered(
    enter: Callable[[KernelSite, Any], Any],
    site: KernelSite,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    gradients: bool,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Shows a site what its layer is about to run on, its first argument, and puts in what it returns."""
    if args:
        replaced = _changeable(enter(site, args[0]), gradients)
        return (args if replaced is None else (replaced, *args[1:])), kwargs
    name = next(iter(kwargs))
    replaced = _changeable(enter(site, kwargs[name]), gradients)
    return args, (kwargs if replaced is None else kwargs | {name: replaced})


def _changeable(tensor: Tensor, gradients: bool) -> Any:
    """A copy where gradients are recorded: torch refuses changes in place of what a gradient of ours made."""
    return ops.copy(tensor) if gradients and tensor is not None else tensor


def _shown(kernel: str, run: Callable[..., Any]) -> tuple[list[Any], Any]:
    """What a layer shows of one kernel, and its output."""
    found: list[Any] = []

    def show(name: str, output: Tensor) -> Any:
        if name == kernel:
            found.append(ops.copy(output))  # what comes next may change it in place
        return output

    output = run(show)
    return found, output


def _refuse_symbols(output: Tensor, path: str, gradients: bool) -> None:
    traced = "Tracer" in type(output).__name__ and not gradients  # JAX differentiates by tracers
    if traced or type(output).__name__ == "SymbolicTensor":
        raise ValueError(
            f"{TRACED}. Received: `{path}` runs inside a traced function, where its "
            "output has no value yet. Take the tf.function or jit off the call, or call this outside it."
        )


@contextlib.contextmanager
def accompanied(
    layer: Layer, before: Callable[..., None] | None, after: Callable[[Any], None] | None
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
def _called(layer: Layer, hooked: Callable[..., Any], shadow: Callable[..., Any] | None) -> Iterator[None]:
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


def _linear(layer: Layer, call: Callable[[], Any], show: Callable[[Any], Any]) -> Any:
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
