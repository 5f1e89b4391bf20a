"""How wide a model is, for laws that divide by its width and not by a fan."""

from collections.abc import Callable, Sequence

from keras_initx.fans import KernelAxes, split_kernel
from keras_initx.walk import KernelSite

__all__ = ["model_width"]


def model_width(sites: Sequence[KernelSite]) -> Callable[[KernelSite], int | None]:
    """Returns a function from a kernel to the width of the stream of states that it reads or writes.

    Attention tells it: queries are made from states, and its output is added to them. Without attention the
    embeddings tell it. In a model of several widths each kernel has that of the states at its own end.

    Args:
        sites: The model's kernels.

    Returns:
        The function. It returns None where neither attention nor an embedding tells.
    """
    told = {_told(site) for site in sites if site.role in ("query", "attention_output")} - {None}
    told = told or {_told(site) for site in sites if site.role == "embedding"} - {None}
    if len(told) == 1:
        (only,) = told
        return lambda _: only

    def of(site: KernelSite) -> int | None:
        own = _told(site)
        if own is not None or not site.fans:
            return own
        return min((size for size in _ends(site) if size in told), default=None)

    return of


def _told(site: KernelSite) -> int | None:
    """The width that a kernel of this role has at one of its ends."""
    if not site.fans:
        return None
    inputs, outputs = _ends(site)
    if site.role in ("query", "key", "value"):
        return inputs
    return outputs if site.role in ("attention_output", "embedding") else None


def _ends(site: KernelSite) -> tuple[int, int]:
    axes = _axes(site)
    groups = site.blocks if site.layout is not None and site.layout.kind == "conv" else 1
    return axes.size(axes.inputs) * groups, axes.size(axes.outputs) * groups


def _axes(site: KernelSite) -> KernelAxes:
    inputs, outputs = site.axes or (None, None)
    return split_kernel(tuple(site.kernel.shape), inputs, outputs, site.layout)
