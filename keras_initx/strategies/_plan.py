"""The plan that a strategy hands to `initialize`: a draw for each kernel."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import keras

from keras_initx._types import Initializer, Model
from keras_initx.fans import Layout
from keras_initx.initializers import OrthogonalScaled, RandomScaled, default_config
from keras_initx.walk import KernelSite, Weight

__all__ = ["Draw", "Plan", "Strategy", "WholePlan", "configure", "describe", "fits_fans"]

# Arguments that a label leaves out: `initialize` sets the first four, and a vocabulary is long.
_UNTOLD = ("seed", "layout", "input_axes", "output_axes", "checksum", "vocabulary")
_DISTRIBUTIONS = {"untruncated_normal": "normal", "uniform": "uniform"}


@dataclasses.dataclass(frozen=True)
class Draw:
    """The initializer of one kernel, and how to use it.

    Attributes:
        initializer: An initializer; `initialize` sets its seed, axes and layout for the kernel. None for the
            initializer of the weight's own layer.
        note: A remark on this kernel for the report.
        stream: A path, for kernels that are drawn jointly: the kernel takes the random numbers of this path
            in place of its own. Empty for its own.
        as_is: Whether to leave the initializer's axes and layout alone, as when a layer's own initializer
            resets the layer's kernel.
        learning_rate: Multiplier for the kernel's learning rate.
        source: Path of the weight of another model that the value comes from; empty for a draw.
        share: Share of the value that comes from there.
        computed: Whether the initializer is a function that computes the value from other weights. It is
            called once. A base kernel, which stays under other draws, gets this value.
    """

    initializer: Initializer | None
    note: str = ""
    stream: str = ""
    as_is: bool = False
    learning_rate: float = 1.0
    source: str = ""
    share: float = 1.0
    computed: bool = False


Plan: TypeAlias = dict[KernelSite, Draw]
# The plan of a strategy that takes all weights.
WholePlan: TypeAlias = dict[KernelSite | Weight, Draw]


class Strategy(Protocol):
    """An initializer for a whole model: any object with this method.

    Kernels that the plan leaves out are drawn by their layers' own initializers. A strategy with a true
    `takes_all_weights` gets biases, statistics and other weights, too.
    """

    def plan(self, sites: Sequence[KernelSite], model: Model) -> Plan | WholePlan:
        """Returns the draw of each kernel; raises ValueError for models that the strategy is not made for."""
        ...


def fits_fans(initializer: Initializer) -> Any:
    """Returns an initializer of the same law that takes a kernel's layout.

    Keras' initializers compute fans from the shape alone, and know no strides, groups, gates or depthwise
    kernels. Initializers that are not Keras' come back as they are.
    """
    # Exact classes: a subclass may draw by another law.
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
    """Returns a copy of an initializer with a seed and, given a site, with the true fans of its kernel.

    Args:
        initializer: The template. Axes or a layout that the user gave it stay; a layout that names only the
            kind of the kernel is completed with strides, groups and gates.
        site: The kernel, or None to leave layout and axes alone.
        seed: The seed.
        layout: Layout of the layer's fused gates, for a bias.
        width: Width of the model at the kernel, for laws that divide by it.

    Returns:
        A new initializer; a plain function comes back as it is.
    """
    initializer = initializer if site is None else fits_fans(initializer)
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config: dict[str, Any] = initializer.get_config()
    changes: dict[str, Any] = {"seed": seed} if "seed" in config else {}
    layout = site.layout if site is not None else layout
    # Without `input_axes` an initializer has no fans: it draws biases, or the output of a generated kernel.
    if "input_axes" not in config:
        if layout is not None and layout.gates and config.get("gates", 0) is None:
            changes["gates"] = layout.gates
    elif site is not None and config["input_axes"] is None and _is_free(initializer, site):
        if site.axes:
            changes |= {"input_axes": list(site.axes[0]), "output_axes": list(site.axes[1])}
        elif layout is not None:
            changes["layout"] = layout.to_dict()
    if width is not None and config.get("width", 0) is None:
        changes["width"] = width
    # A recipe takes a layout but has none in its config: it is set as an attribute below.
    told = changes.pop("layout", None) if "layout" not in config else None
    nested = {name: _seeded(value, seed) for name, value in config.items() if _is_initializer(value)}
    if changes or nested or told:
        initializer = type(initializer).from_config(config | nested | changes)
    if told is not None:
        initializer.layout = layout
    return initializer


def _is_free(initializer: Initializer, site: KernelSite) -> bool:
    """Whether an initializer may take the layer's layout: it has none yet, or names the kind only."""
    own = getattr(initializer, "layout", "none")  # "none": it has no such attribute
    return own is None or (site.layout is not None and own == Layout(site.layout.kind))


def _short(value: object) -> Any:
    return value["class_name"] if isinstance(value, Mapping) and "class_name" in value else value


def _is_initializer(value: object) -> bool:
    return isinstance(value, Mapping) and "seed" in (value.get("config") or {})


def _seeded(config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Sets the seed of a serialized initializer within another one's config; ICNR has such a config."""
    return {**config, "config": {**config["config"], "seed": seed}}


def describe(initializer: Initializer | Strategy | None) -> str:
    """Returns a short name of an initializer, with the arguments that differ from the defaults.

    >>> describe(RandomScaled(gain=2.0, seed=1)), describe(max)
    ('RandomScaled(gain=2)', 'max')
    """
    if not isinstance(initializer, keras.initializers.Initializer):
        return getattr(initializer, "__name__", type(initializer).__name__)
    cls: Any = type(initializer)
    name, config, defaults = cls.__name__, initializer.get_config(), default_config(cls)
    shown = {
        key: f"{value:.4g}" if isinstance(value, float) else _short(value)
        for key, value in config.items()
        if key not in _UNTOLD and value != defaults.get(key)
    }
    return f"{name}({', '.join(f'{key}={value}' for key, value in shown.items())})"
