"""The place of a kernel in the flow of a model, as `_flow` finds it."""

import dataclasses

from keras_initx._types import Activation, Layer

__all__ = ["Branch", "Position"]


@dataclasses.dataclass(frozen=True)
class Branch:
    """A residual branch: the f in x + f(x).

    Attributes:
        index: Number of the branch, in the order in which branches end.
        layers: Number of kernels in a row, on the longest way through the branch.
    """

    index: int
    layers: int


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Position:
    """The part of a `KernelSite` that a trace tells; the docstring there explains the attributes."""

    activation: Activation | None = None
    feeds: Activation | None = None
    feeds_layer: Layer | None = None
    feeds_normalized: bool = False
    normalized: bool = False
    depth: int | None = None
    branch: Branch | None = None
    ends_branch: bool = False
    is_output: bool = False
    position: int | None = None
    note: str = ""
