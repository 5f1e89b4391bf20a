"""What passes between a strategy and `initialize`: for each kernel, what draws it."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import keras

from keras_initx._types import Initializer, Model
from keras_initx.fans import Layout
from keras_initx.initializers import OrthogonalScaled, RandomScaled, default_config
from keras_initx.walk import KernelSite

__all__ = ["Draw", "Plan", "Strategy", "configure", "describe", "fits_fans"]

_DISTRIBUTIONS = {"untruncated_normal": "normal", "uniform": "uniform"}


@dataclasses.dataclass(frozen=True)
class Draw:
    """What draws one kernel.

    Attributes:
        initializer: An initializer; its seed, axes and layout are set for the kernel.
        note: What a user should know of this kernel.
        stream: Path whose stream of random numbers it takes in place of the kernel's own, where kernels are
            drawn jointly.
        as_is: Whether to leave the initializer's axes and layout alone, as when a layer resets its own
            kernel.
        learning_rate: What the kernel's learning rate is to be multiplied by.
    """

    initializer: Any
    note: str = ""
    stream: str = ""
    as_is: bool = False
    learning_rate: float = 1.0


Plan = dict[KernelSite, Draw]


class Strategy(Protocol):
    """A scheme for a whole model; kernels that its plan leaves out are drawn by their layers' own."""

    def plan(self, sites: Sequence[KernelSite], model: Model) -> Plan:
        """Returns what draws each kernel; raises ValueError where the model is not what the scheme is for."""
        ...


def fits_fans(initializer: Initializer) -> Any:
    """Returns an initializer of the same law that can be told a kernel's layout; others as they are.

    Keras' own know no strides, groups, gates or depthwise kernels.
    """
    if type(initializer).__module__.startswith("keras.") and isinstance(
        initializer, keras.initializers.VarianceScaling
    ):
        return RandomScaled(
            gain=math.sqrt(initializer.scale),
            mode=initializer.mode,
            distribution=_DISTRIBUTIONS.get(initializer.distribution, "truncated_normal"),
            input_axes=initializer.input_axes,
            output_axes=initializer.output_axes,
        )
    if type(initializer) is keras.initializers.Orthogonal:
        own: keras.initializers.Orthogonal = initializer
        return OrthogonalScaled(gain=own.gain)
    return initializer


def configure(
    initializer: Initializer,
    site: KernelSite | None,
    seed: int,
    layout: Layout | None = None,
    width: int | None = None,
) -> Any:
    """Returns the initializer with a seed and, given a site, with the site's true fans.

    Args:
        initializer: A template. A layout or axes of its own stay, completed where its layout only names the
            kind that the kernel has.
        site: The kernel, or None to leave layout and axes alone.
        seed: The seed.
        layout: Layout of the layer's fused gates, for a bias.
        width: Width of the model at the kernel, for laws that ask for it.

    Returns:
        A new initializer; the template itself where it is a plain function.
    """
    initializer = initializer if site is None else fits_fans(initializer)
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config: dict[str, Any] = initializer.get_config()
    changes: dict[str, Any] = {"seed": seed} if "seed" in config else {}
    layout = site.layout if site is not None else layout
    if "input_axes" not in config:  # a law of biases, or of what a kernel generates
        if layout is not None and layout.gates and config.get("gates", 0) is None:
            changes["gates"] = layout.gates
    elif site is not None and config["input_axes"] is None and _is_free(initializer, site):
        if site.axes:
            changes |= {"input_axes": list(site.axes[0]), "output_axes": list(site.axes[1])}
        elif layout is not None:
            changes["layout"] = layout.to_dict()
    if width is not None and config.get("width", 0) is None:
        changes["width"] = width
    told = changes.pop("layout", None) if "layout" not in config else None  # a recipe keeps it for itself
    nested = {name: _seeded(value, seed) for name, value in config.items() if _is_initializer(value)}
    if changes or nested or told:
        initializer = type(initializer).from_config(config | nested | changes)
    if told is not None:
        initializer.layout = layout
    return initializer


def _is_free(initializer: Initializer, site: KernelSite) -> bool:
    """Whether an initializer's layout may be the layer's: it has none, or says no more than the kind."""
    own = getattr(initializer, "layout", "none")
    return own is None or (site.layout is not None and own == Layout(site.layout.kind))


def _short(value: object) -> Any:
    return value["class_name"] if isinstance(value, Mapping) and "class_name" in value else value


def _is_initializer(value: object) -> bool:
    return isinstance(value, Mapping) and "seed" in (value.get("config") or {})


def _seeded(config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A serialized initializer within another's config, as ICNR holds one, with its seed set."""
    return {**config, "config": {**config["config"], "seed": seed}}


def describe(initializer: Initializer) -> str:
    """Returns a short name with the arguments that differ from the class' defaults."""
    if not isinstance(initializer, keras.initializers.Initializer):
        return getattr(initializer, "__name__", type(initializer).__name__)
    cls: Any = type(initializer)
    name, config, defaults = cls.__name__, initializer.get_config(), default_config(cls)
    shown = {
        key: f"{value:.4g}" if isinstance(value, float) else _short(value)
        for key, value in config.items()
        if key not in ("seed", "layout", "input_axes", "output_axes") and value != defaults.get(key)
    }
    return f"{name}({', '.join(f'{key}={value}' for key, value in shown.items())})"
