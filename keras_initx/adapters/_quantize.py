"""The values of a kernel after Keras has quantized it, as floats."""

import math
from collections.abc import Callable

import keras
from keras import ops

from keras_initx._types import Tensor
from keras_initx.walk import Adapter

__all__ = ["MODES", "rounding"]

MODES = ("int4", "int8")
_INT4 = (-8, 7)


def rounding(adapter: Adapter, mode: str, block_size: int | None) -> Callable[[Tensor], Tensor]:
    """Returns the function from the matrix of a base kernel to its quantized values, as `layer.quantize` has.

    Quantizing these values once more does not change them, but for rounding in float32.

    Args:
        adapter: The adapter of a Dense, EinsumDense or Embedding layer.
        mode: `"int8"`, with one step for each output or word; or `"int4"`.
        block_size: Inputs in a row that share a step in int4; None for one step for each output or word.
    """
    shape = tuple(adapter.kernel.shape)
    of_words = adapter.kind == "embedding"
    summed = (len(shape) - 1,) if of_words else adapter.summed

    def rounded(matrix: Tensor) -> Tensor:
        kernel = ops.reshape(matrix, shape)
        if mode == "int8":
            whole, steps = keras.quantizers.abs_max_quantize(kernel, axis=summed)
            found = ops.cast(whole, "float32") / steps
        else:
            # As Keras has it: the axes keep their order, also where the summed axes are not the first.
            rows = math.prod(shape[axis] for axis in summed)
            flat = ops.transpose(kernel) if of_words else ops.reshape(kernel, (rows, -1))
            flat = _int4(flat, block_size)
            found = ops.transpose(flat) if of_words else flat
        return ops.reshape(found, matrix.shape)

    return rounded


def _int4(flat: Tensor, block_size: int | None) -> Tensor:
    if block_size is None:
        whole, steps = keras.quantizers.abs_max_quantize(flat, axis=0, value_range=_INT4)
        return ops.cast(whole, "float32") / steps
    whole, steps, zero = keras.quantizers.abs_max_quantize_grouped_with_zero_point(
        flat, block_size=block_size, value_range=_INT4
    )
    steps, zero = (
        ops.repeat(ops.cast(part, "float32"), block_size, axis=0)[: flat.shape[0]] for part in (steps, zero)
    )
    return (ops.cast(whole, "float32") - zero) * steps
