"""`Kinds`: what each axis of a weight numbers, which decides how another size of the axis is met."""

import functools
from collections.abc import Sequence
from typing import Literal, TypeAlias

from keras_initx.donors._pair import Place, fields_of
from keras_initx.fans import split_kernel
from keras_initx.uses import Coupling, Units
from keras_initx.walk import KernelSite

__all__ = ["Kind", "Kinds"]

# Units that may stand for one another, taps of a field, features of the model's input, or things with names
# of their own: words or classes, and positions.
Kind: TypeAlias = Literal["units", "field", "features", "named", "positions"]
# Activations of heads whose units have names.
_OF_HEADS = (None, "linear", "softmax", "sigmoid", "log_softmax")


class Kinds:
    """What the axes of a model's weights number.

    Args:
        coupling: The units of the weights.
        kernels: The kernels of the model.
    """

    def __init__(self, coupling: Coupling, kernels: Sequence[KernelSite]) -> None:
        self._coupling, self._kernels = coupling, kernels

    def of(self, weight: Place, axis: int) -> Kind:
        """Returns what an axis of a weight numbers."""
        units = self._coupling.units(weight.kernel)[axis]
        if axis < fields_of(weight):
            return "field"
        if "rows" in units.marks or self._made.get(units.key):
            return "named"
        if "positions" in units.marks:
            return "positions"
        if any(self.summed(weight, axis)) and any("input" in part.marks for part in units.parts):
            return "features"
        uses = self._coupling.uses(weight.kernel)
        # The bias of a head has two axes, too.
        added = (
            bool(uses) and not any(use.is_kernel for use in uses) and weight.role in ("embedding", "other")
        )
        added = added and len(weight.kernel.shape) > 1
        # A table that is added to a signal has rows for positions, besides the units of the signal.
        return "positions" if added and units.key not in (self._made.keys() | self._consumed) else "units"

    def named_axes(self, weight: Place) -> list[int]:
        """Returns the axes of a weight that have names: words or classes."""
        return [axis for axis in range(len(weight.kernel.shape)) if self.of(weight, axis) == "named"]

    def reaching_axes(self, weight: Place) -> list[int]:
        """Returns the axes of units that reach the model's output, where no head is known to name them.

        They may be words, as after two heads that are added, or features of a body.
        """
        units = self._coupling.units(weight.kernel)
        return [
            axis for axis, own in enumerate(units) if self._made.get(own.key) is False and self._reaches(own)
        ]

    def summed(self, weight: Place, axis: int) -> list[bool]:
        """Returns for each operation that takes a kernel whether it sums over an axis."""
        roles = [use.roles for use in self._coupling.uses(weight.kernel) if use.is_kernel and use.roles]
        if weight.kernel.shape[axis] == 1:
            roles = []  # the roles leave out an axis of one entry
        if roles or not isinstance(weight, KernelSite) or weight.fans is None:
            return [axis in own.axes("inputs") for own in roles]
        # The run did not reach it. Where groups or gates share the last axis, the inputs come before.
        inputs, outputs = weight.axes or (None, None)
        return [axis in split_kernel(tuple(weight.kernel.shape), inputs, outputs, weight.layout).inputs]

    @functools.cached_property
    def has_image(self) -> bool:
        """Whether the model has a convolution over two axes."""
        layouts = [site.layout for site in self._kernels if len(site.kernel.shape) == 4]
        return any(layout is not None and layout.kind == "conv" for layout in layouts)

    @functools.cached_property
    def _consumed(self) -> set[int]:
        """The keys of units that some kernel sums over."""
        return self._keys("inputs", self._kernels)

    @functools.cached_property
    def _made(self) -> dict[int, bool]:
        """The keys of units that some kernel makes, and whether these are what a head tells apart."""
        heads = [site for site in self._kernels if self._is_head(site)]
        told = self._keys("outputs", heads, mark="output") - self._consumed
        return {key: key in told for key in self._keys("outputs", self._kernels)}

    def _reaches(self, units: Units) -> bool:
        return "output" in units.marks and units.key not in self._consumed

    def _is_head(self, site: KernelSite) -> bool:
        """Whether the units that a kernel makes have names, if they reach the model's output."""
        if site.is_output and not site.normalized:
            return getattr(site.feeds, "__name__", site.feeds) in _OF_HEADS
        # A layer that runs backwards: its second kernel has a column for each row of its first.
        own = self._coupling.units(site.kernel)
        return (id(site.layer), own[-1].size) in self._looked_up

    @functools.cached_property
    def _looked_up(self) -> set[tuple[int, int]]:
        """The ids of the layers that look up rows by numbers of the input, with the numbers of rows."""
        return {
            (id(site.layer), units.size)
            for site in self._kernels
            for units in self._coupling.units(site.kernel)
            if "rows" in units.marks
        }

    def _keys(self, role: str, kernels: Sequence[KernelSite], mark: str = "") -> set[int]:
        """The keys of the units on the axes of kernels that have a role, or of those with a mark."""
        found = [
            self._coupling.units(site.kernel)[axis]
            for site in kernels
            for use in self._coupling.uses(site.kernel)
            if use.is_kernel and use.roles
            for axis in use.roles.axes(role)
        ]
        return {units.key for units in found if not mark or mark in units.marks}
