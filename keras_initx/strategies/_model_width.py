"""Finds the width of a model, for laws such as SmallInit that divide by the width and not by a fan."""

from collections.abc import Callable, Sequence

from keras_initx.fans import KernelAxes, split_kernel
from keras_initx.walk import KernelSite

__all__ = ["model_width"]


def model_width(sites: Sequence[KernelSite]) -> Callable[[KernelSite], int | None]:
    """Returns a function from a kernel to the width of the stream of states that the kernel reads or writes.

    Attention tells the width: queries are made from states, and the output of attention is added to states.
    Without attention, embeddings tell it. If a model has several widths, a kernel has the width of the states
    at one of its own ends.

    Args:
        sites: The model's kernels.

    Returns:
        The function. It returns None if neither attention nor an embedding tells the width.
    """
    told = {_told(site) for site in sites if site.role in ("query", "attention_output")} - {None}
    told = told or {_told(site) for site in sites if site.role == "embedding"} - {None}
    if len(told) == 1:
        # One width in the whole model: then also kernels between other sizes, as in feed-forward layers, have
        # it.
        (only,) = told
        return lambda _: only

    def of(site: KernelSite) -> int | None:
        own = _told(site)
        if own is not None or not site.fans:
            return own
        # A feed-forward kernel leads from the states to a wider layer or back: the smaller end is the
        # states'.
        return min((size for size in _ends(site) if size in told), default=None)

    return of


def _told(site: KernelSite) -> int | None:
    """The width of the states, if a kernel of this role reads or writes them; None for other roles."""
    if not site.fans:
        return None
    inputs, outputs = _ends(site)
    if site.role in ("query", "key", "value"):
        return inputs
    return outputs if site.role in ("attention_output", "embedding") else None


def _ends(site: KernelSite) -> tuple[int, int]:
    """Numbers of a kernel's inputs and outputs, over all groups of a convolution."""
    axes = _axes(site)
    groups = site.blocks if site.layout is not None and site.layout.kind == "conv" else 1
    return axes.size(axes.inputs) * groups, axes.size(axes.outputs) * groups


def _axes(site: KernelSite) -> KernelAxes:
    inputs, outputs = site.axes or (None, None)
    return split_kernel(tuple(site.kernel.shape), inputs, outputs, site.layout)
