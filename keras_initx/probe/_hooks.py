"""Hooks that make a layer show its pre-activations for the time of a pass.

A hook is a function in the layer's `__dict__` under the name `call`, which hides the method of its class.
Keras' `Layer.__call__` looks up `self.call` and so runs the hook, with all of its own work (casts, masks,
dtype policies) around it. Inside, these functions run one after another:

    hooked    lists the layer as running, so that `_readers` can tell its own readings from others'
    _taken    for layers that only their operations tell of: has `keras_initx.uses` show these, and ends here
    shown     picks the sites of this call, and shows each its input (`enter`), which may be replaced
    run       runs the original `call` with the activation swapped for the identity (`_linear`), or runs the
              code of the walk's table, which calls `show` for each of several pre-activations
    show      hands the pre-activation to `observe`, and goes on with the tensor that `observe` returns

The replaced tensor flows on through the layer's own activation, and from there to all later layers.

Attributes are set with `object.__setattr__`, which passes by Keras' tracking of a layer's attributes.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import ops

from keras_initx._types import Layer, Tensor
from keras_initx.probe._unsupported import TRACED
from keras_initx.uses import Taken, Use, show_uses
from keras_initx.walk import KernelSite

__all__ = ["accompanied", "hooked"]


@contextlib.contextmanager
def hooked(
    sites: Sequence[KernelSite],
    observe: Callable[[KernelSite, Tensor], Tensor],
    enter: Callable[[KernelSite, Tensor], Tensor | None] | None,
    check: Callable[..., bool] | None,
    gradients: bool,
    running: list[Layer],
    take: Callable[[KernelSite, Taken], Tensor] | None = None,
) -> Iterator[None]:
    """Makes one layer show the pre-activation of each of its kernels while the block runs.

    Args:
        sites: All sites of the layer.
        observe: Called with a site and its pre-activation; returns the tensor to go on with.
        enter: Called with a site and the layer's input; returns another input, or None.
        check: Tells whether a site may be shown; `run` describes its arguments.
        gradients: Whether gradients are taken of the pass.
        running: A list that holds the layer while it runs.
        take: Called with a site that has `uses` and each of its operations; returns the output to go on with.
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
        if sites[0].uses:
            return _taken(sites, call, args, kwargs, observe, enter, take, gradients)
        now = {site.kernel.name: site for site in _sites_of_call(sites, args, kwargs)}
        own = functools.partial(call, *args, **kwargs)

        def run(show: Callable[[str, Any], Any]) -> Any:
            if sites[0].call is not None:
                return sites[0].call(layer, show, *args, **kwargs)
            return _linear(layer, own, functools.partial(show, next(iter(now), "")))

        if check and sites[0].checked:
            now = {name: s for name, s in now.items() if check(s, functools.partial(_shown, name, run), own)}
        # Inputs go in only now: the check above ran the layer on the inputs that it was called with.
        for site in now.values() if enter else ():
            args, kwargs = _entered(enter, site, args, kwargs, gradients)  # type: ignore[arg-type]
        own = functools.partial(call, *args, **kwargs)

        def show(name: str, output: Tensor) -> Any:
            _refuse_symbols(output, sites[-1].path, gradients)
            return _changeable(observe(now[name], output), gradients) if name in now else output

        return run(show)

    with _called(layer, hooked, shadow):
        yield


def _taken(
    sites: Sequence[KernelSite],
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    observe: Callable[[KernelSite, Tensor], Tensor],
    enter: Callable[[KernelSite, Tensor], Tensor | None] | None,
    take: Callable[[KernelSite, Taken], Tensor] | None,
    gradients: bool,
) -> Any:
    """Runs a layer of which only its operations tell, and shows the outputs of those that take kernels."""
    # `take` reads the signals that the operations take, which need not be the input of the layer.
    for site in sites if enter and not take else ():
        args, kwargs = _entered(enter, site, args, kwargs, gradients)  # type: ignore[arg-type]
    by_weight = {id(site.kernel): site for site in sites}

    def show(use: Use, output: Tensor) -> Tensor:
        site = by_weight[id(use.variable)]
        _refuse_symbols(output, site.path, gradients)
        return observe(site, output)

    def took(taken: Taken) -> Any:
        return take and take(by_weight[id(taken.use.variable)], taken)

    uses = [use for site in sites for use in site.uses]
    return show_uses(functools.partial(call, *args, **kwargs), (args, kwargs), uses, show, took)


def _entered(
    enter: Callable[[KernelSite, Tensor], Tensor | None],
    site: KernelSite,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    gradients: bool,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Shows a site the first argument of its layer's call, and returns the arguments to run on.

    The first argument may be passed by name. `enter` returns a tensor to take its place, or None to keep it.
    """
    if args:
        replaced = _changeable(enter(site, args[0]), gradients)
        return (args if replaced is None else (replaced, *args[1:])), kwargs
    name = next(iter(kwargs))
    replaced = _changeable(enter(site, kwargs[name]), gradients)
    return args, (kwargs if replaced is None else kwargs | {name: replaced})


def _changeable(tensor: Tensor, gradients: bool) -> Any:
    """A tensor that the model may change in place: a copy, if gradients are taken."""
    # Torch refuses to change the outputs of a custom gradient in place, as a ReLU with `inplace` does.
    return ops.copy(tensor) if gradients and tensor is not None else tensor


def _shown(kernel: str, run: Callable[..., Any]) -> tuple[list[Any], Any]:
    """The pre-activations of one kernel that a layer shows in one run, and the layer's output."""
    found: list[Tensor] = []

    def show(name: str, output: Tensor) -> Any:
        if name == kernel:
            found.append(ops.copy(output))  # the rest of the layer may change the tensor in place
        return output

    output = run(show)
    return found, output


def _refuse_symbols(output: Tensor, path: str, gradients: bool) -> None:
    """Raises ValueError if the layer runs inside a traced function, where a tensor has no value yet."""
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
    """Calls functions before and after each call of a layer, with its arguments and with its output."""
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
    """Puts a function in place of a layer's `call`, and afterwards puts back an earlier hook, `shadow`."""
    object.__setattr__(layer, "call", hooked)
    try:
        yield
    finally:
        # Without an earlier hook the name goes, and the method of the class is seen again.
        if shadow is None:
            object.__delattr__(layer, "call")
        else:
            object.__setattr__(layer, "call", shadow)


def _sites_of_call(
    sites: Sequence[KernelSite], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Sequence[KernelSite]:
    """The sites with kernels that this call uses: a reversible embedding has a kernel for each direction."""
    if not hasattr(sites[0].layer, "tie_weights"):
        return sites
    backwards = kwargs.get("reverse", len(args) > 1 and args[1])
    return [site for site in sites if (site.kernel.name == "reverse_embeddings") == bool(backwards)]


def _linear(layer: Layer, call: Callable[[], Any], show: Callable[[Any], Any]) -> Any:
    """Runs a layer with its activation taken out, shows the result, and applies the activation to it."""
    activation = getattr(layer, "activation", None)
    if activation is None:
        return show(call())
    # The identity, not None: Keras' own layers accept None as an activation, but a user's layer need not.
    object.__setattr__(layer, "activation", keras.activations.linear)
    try:
        output = call()
    finally:
        object.__setattr__(layer, "activation", activation)
    return activation(show(output))
