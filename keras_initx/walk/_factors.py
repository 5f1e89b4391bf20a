"""The sites of the factors of low-rank adapters."""

from keras_initx._types import Variable
from keras_initx.fans import compute_fans
from keras_initx.walk._adapters import FACTORS, Adapter, factor_axes
from keras_initx.walk._initial import initializer_of
from keras_initx.walk._kernels import layout_of, rule_of
from keras_initx.walk._site import KernelSite
from keras_initx.walk._taught import axes_of

__all__ = ["factor_site"]


def factor_site(variable: Variable, path: str, adapter: Adapter, looped: bool) -> KernelSite:
    """Returns the site of a factor. Its fans are those of the kernel's equation, cut at the rank.

    Args:
        variable: The factor.
        path: Path of its layer.
        adapter: The adapter.
        looped: Whether the layer runs inside a recurrent loop.
    """
    layer = adapter.layer
    base, rule = rule_of(layer)
    known = rule.kernels.get("embeddings" if "embeddings" in variable.name else "kernel")
    rank = len(adapter.a.shape)
    axes, layout = factor_axes(
        variable.name, axes_of(layer, base, known, adapter.kernel), layout_of(layer, known), rank
    )
    input_axes, output_axes = axes or (None, None)
    return KernelSite(
        path=f"{path}/{variable.name}".removeprefix("/"),
        role=FACTORS[variable.name],
        layer=layer,
        kernel=variable,
        bias=None,
        initializer=initializer_of(layer, variable),
        axes=axes,
        layout=layout,
        unit_axes=None,
        fans=compute_fans(tuple(variable.shape), input_axes, output_axes, layout) if known else None,
        obstacle="it is a factor of LoRA, and not the layer's whole kernel",
        skip="",
        looped=looped,
        adapter=adapter,
    )
