"""Draws of a law for one kernel of a model."""

import numbers
from collections.abc import Callable
from typing import Any, TypeVar

from keras_initx._types import Tensor
from keras_initx.initializers import Law
from keras_initx.state import stream_seed
from keras_initx.walk import KernelSite

__all__ = ["Update", "drawn", "with_stream"]

# `update(variable, function)` of `state.transaction`: the function maps the old value to the new.
Update = Callable[..., None]
AnyLaw = TypeVar("AnyLaw", bound=Law)


def with_stream(law: AnyLaw, site: KernelSite, seed: int | None, **config: Any) -> AnyLaw:
    """Returns a law that knows the axes of a kernel and has a stream of random numbers for it alone.

    Args:
        law: The law.
        site: The kernel that the law is to draw.
        seed: Seed of the whole model; None for the law's own seed.
        config: Entries of the law's config to replace.
    """
    own_seed = law.seed if seed is None else seed
    if isinstance(own_seed, numbers.Integral):
        own_seed = stream_seed(int(own_seed), site.path)
    if site.axes:
        config["input_axes"], config["output_axes"] = site.axes
    return law.from_config(law.get_config() | config | {"seed": own_seed})


def drawn(law: Law, site: KernelSite) -> Callable[[Tensor], Tensor]:
    """Returns a function that replaces a kernel's value by a new draw of the law."""
    return lambda value: law(tuple(value.shape), site.kernel.dtype)
