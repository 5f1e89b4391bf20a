"""Draws of a law's base for one kernel of a model."""

import numbers
from collections.abc import Callable
from typing import Any

from keras_initx.state import stream_seed
from keras_initx.walk import KernelSite

__all__ = ["drawn", "seeded"]


def seeded(law: Any, site: KernelSite, seed: int | None, **config: Any) -> Any:
    """Returns the law with the kernel's axes and a stream of random numbers of its own.

    Args:
        law: The law.
        site: The kernel that it is to draw.
        seed: Seed of the whole model; None for the law's own.
        config: What else the law is to be given.
    """
    own_seed = law.seed if seed is None else seed
    if isinstance(own_seed, numbers.Integral):
        own_seed = stream_seed(int(own_seed), site.path)
    if site.axes:
        config["input_axes"], config["output_axes"] = site.axes
    return law.from_config(law.get_config() | config | {"seed": own_seed})


def drawn(law: Any, site: KernelSite) -> Callable[[Any], Any]:
    """Returns a function from a kernel's value to a new draw of the law."""
    return lambda value: law(tuple(value.shape), site.kernel.dtype)
