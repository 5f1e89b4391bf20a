"""Finds reasons to leave a kernel alone: code that is not Keras' own, adapters, quantization."""

import functools
import inspect
from collections.abc import Iterator
from types import CodeType

from keras import layers

from keras_initx._types import Layer
from keras_initx.walk._layers import PLAIN_WRAPPERS, Rule

__all__ = ["ADAPTED", "TIED", "is_of_users", "obstacle_of", "overridden", "skip_of"]

# Packages with layers that do not assign to the weights of other layers, except in wrappers.
_KNOWN = ("keras", "keras_hub", "keras_initx")


ADAPTED = "LoRA is enabled, so the kernel is not the layer's whole weight"
TIED = "its kernel also makes the logits"


def overridden(layer: Layer, base: type[Layer]) -> str:
    """Returns the name of an attribute that a layer overrides and the `call` of its base uses, or "".

    >>> class Halved(layers.Dense):
    ...     kernel = property(lambda self: self._kernel / 2)
    >>> overridden(Halved(3), layers.Dense), overridden(layers.Dense(3), layers.Dense)
    ('kernel', '')

    Args:
        layer: A layer.
        base: The class of Keras that the layer derives from.
    """
    used = _used(base)  # type: ignore[arg-type]
    classes = type(layer).__mro__
    for cls in classes[: classes.index(base)]:
        if found := next((name for name in vars(cls) if name in used), ""):
            return found
    methods = (name for name in used if inspect.isfunction(inspect.getattr_static(base, name, None)))
    return next((name for name in methods if name in vars(layer)), "")


def is_of_users(layer: Layer) -> bool:
    """Tells whether a layer's `call` may do things that Keras' own never do: assign to others' weights.

    Args:
        layer: A Keras layer.
    """
    package = type(layer).__module__.partition(".")[0]
    return package not in _KNOWN or (
        isinstance(layer, layers.Wrapper) and not isinstance(layer, PLAIN_WRAPPERS)
    )


@functools.cache
def _used(base: type) -> frozenset[str]:
    """The names that the `call` of a class looks up, also by way of its own methods and properties."""
    # Read off the compiled code: names of attributes and globals are all in `co_names`. Names too many do
    # no harm, since only names that a subclass defines count.
    found, left = {"__call__"}, ["call"]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            member = inspect.getattr_static(base, name, None)
            member = getattr(member, "fget", None) or getattr(member, "__func__", member)
            code = getattr(inspect.unwrap(member) if callable(member) else None, "__code__", None)
            left += _names(code) if code else ()
    return frozenset(found)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def skip_of(layer: Layer) -> str:
    """Returns the reason not to draw a layer's kernel; empty if it may be drawn."""
    if getattr(layer, "lora_enabled", False):
        return "LoRA is enabled: the adapter is drawn, its base stays"
    if getattr(layer, "quantization_mode", None):
        return "the kernel is quantized"
    return ""


def obstacle_of(
    layer: Layer, base: type[Layer] | None, rule: Rule, overrides: str, looped: bool, tied: bool
) -> str:
    """Returns the reason why scaling a kernel and its bias does not scale the pre-activation, or "".

    Args:
        layer: The layer.
        base: The layer's nearest class with known pre-activations; None if there is none.
        rule: The entry of that class.
        overrides: Name of an attribute that the layer overrides and the `call` of that class uses.
        looped: Whether the layer runs inside a recurrent loop.
        tied: Whether the kernel also makes the logits.
    """
    name = type(layer).__name__
    if tied:
        return TIED
    if looped:
        return f"{name} runs inside a recurrent loop, and is not a cell that is known"
    if not base:
        return (
            f"the pre-activation of {name} is not known: teach it with `linear` or `call` of "
            "keras_initx.walk.register"
        )
    if type(layer).call is not base.call or (overrides and rule.call and not rule.taught):
        method = overrides if type(layer).call is base.call else "call"
        return f"{name} overrides {base.__name__}.{method}, so its output need not be linear in its kernel"
    if getattr(layer, "lora_enabled", False):
        return ADAPTED
    if getattr(layer, "quantization_mode", None):
        return "the kernel is quantized"
    return ""
