"""Filters that a law makes of what a layer takes."""

from typing import Any

import numpy as np
from keras import ops

from keras_initx.initializers import DataDependent
from keras_initx.walk import KernelSite

__all__ = ["FILTERED", "filters_for", "takes_filters"]

_MOST = 20_000  # rows: k-means holds a few arrays of rows by units


class _Filtered(DataDependent):
    """Stands in for the law of a site whose filters are made: they are left as they are."""

    def rescale(self, mean: Any, std: Any) -> tuple[Any, Any]:
        """Returns what changes nothing."""
        return 0.0 * mean + std / std, 0.0


FILTERED = _Filtered()


def takes_filters(site: KernelSite) -> bool:
    """Tells whether the layer multiplies its whole kernel with rows of its input."""
    if site.checked:  # what its kernel multiplies is not known
        return False
    return site.role == "dense" or (site.role == "conv" and site.layer.groups == 1)


def filters_for(site: KernelSite, law: Any, inputs: Any) -> Any:
    """Returns the kernel that a law makes of the inputs of a site's layer."""
    shape = tuple(site.kernel.shape)
    fan_in, units = int(np.prod(shape[:-1])), shape[-1]
    inputs = ops.cast(inputs, "float32")
    if site.role == "conv":
        layer = site.layer
        # The patches, in the order of the kernel's axes, are a convolution with the identity.
        identity = ops.reshape(ops.eye(fan_in, dtype="float32"), (*shape[:-1], fan_in))
        padding = layer.padding
        if padding == "causal":
            inputs, padding = ops.pad(inputs, layer._compute_causal_padding()), "valid"
        inputs = ops.conv(
            inputs, identity, list(layer.strides), padding, layer.data_format, layer.dilation_rate
        )
        if layer.data_format == "channels_first":
            inputs = ops.moveaxis(inputs, 1, -1)
    rows = ops.convert_to_numpy(inputs).reshape(-1, fan_in)
    if len(rows) > _MOST:
        rows = rows[np.linspace(0, len(rows) - 1, _MOST).astype(int)]
    filters = law.filters(rows.astype("float64"), units)
    return ops.convert_to_tensor(filters.reshape(shape), dtype=site.kernel.dtype)
