"""The rows of inputs that a kernel multiplies, and the filters that a law makes from them."""

import numpy as np
from keras import ops

from keras_initx._keras_internals import causal_padding
from keras_initx._types import Tensor
from keras_initx.initializers import DataFilters
from keras_initx.walk import KernelSite

__all__ = ["filters_for", "rows_for"]

# Largest number of rows, spread evenly over the data. k-means keeps a few arrays of shape (rows, units).
_MOST = 20_000


def filters_for(site: KernelSite, law: DataFilters, inputs: Tensor) -> Tensor:
    """Returns the kernel that a law makes from the inputs of the kernel's layer.

    Args:
        site: The kernel, of a dense layer or of a convolution of one group.
        law: The law.
        inputs: The inputs of the layer.
    """
    rows = rows_for(site, inputs)
    rows = rows.reshape(-1, rows.shape[-1])
    if len(rows) > _MOST:
        rows = rows[np.linspace(0, len(rows) - 1, _MOST).astype(int)]
    filters = law.filters(rows.astype("float64"), site.kernel.shape[-1])
    return ops.convert_to_tensor(filters.reshape(tuple(site.kernel.shape)), dtype=site.kernel.dtype)


def rows_for(site: KernelSite, inputs: Tensor) -> np.ndarray:
    """Returns the values that a kernel multiplies: the inputs, or the patches of a convolution.

    Args:
        site: The kernel, of a dense layer or of a convolution of one group.
        inputs: The inputs of the layer.

    Returns:
        float32 of shape (..., fan_in), in the order of the kernel's axes.
    """
    shape = tuple(site.kernel.shape)
    fan_in = int(np.prod(shape[:-1]))
    inputs = ops.cast(inputs, "float32")
    if site.role == "conv":
        layer = site.layer
        # A convolution with the identity gives the patches, with entries in the order of the kernel's axes.
        identity = ops.reshape(ops.eye(fan_in, dtype="float32"), (*shape[:-1], fan_in))
        padding = layer.padding
        if padding == "causal":
            inputs, padding = ops.pad(inputs, causal_padding(layer)), "valid"
        inputs = ops.conv(
            inputs, identity, list(layer.strides), padding, layer.data_format, layer.dilation_rate
        )
        if layer.data_format == "channels_first":
            inputs = ops.moveaxis(inputs, 1, -1)
    return np.asarray(ops.convert_to_numpy(inputs))
