"""Checks of one draw: shape, dtype, finite values, and the axes that Keras' layers tell."""

from collections.abc import Sequence
from typing import Any
from unittest import mock

import keras
import numpy as np
from keras import ops

from keras_initx._types import Tensor
from keras_initx.testing._case import Case, shapes_of
from keras_initx.testing._models import array
from keras_initx.testing._rule import expect, rule

__all__ = [
    "axes_reach_it_inside_einsum_and_attention",
    "default_dtype_is_floatx",
    "draw_has_shape_and_dtype_and_is_finite",
    "integer_dtype_is_refused",
]

_DTYPES = ("float16", "bfloat16", "float32", "float64")


@rule("draw finite values in every shape that it is for and in every float dtype")
def draw_has_shape_and_dtype_and_is_finite(case: Case) -> None:
    """Checks draws in float16, bfloat16, float32 and float64.

    Args:
        case: The initializer under test.

    Raises:
        AssertionError: If a draw has another shape or dtype, or a value that is not finite.
    """
    initializer = case.make()
    for shape in shapes_of(case):
        for dtype in _DTYPES:
            asked = f"for shape={shape}, dtype={dtype!r}"
            drawn = initializer(shape, dtype=dtype)
            expect(tuple(drawn.shape) == tuple(shape), f"the shape {tuple(drawn.shape)} {asked}")
            # JAX without 64 bits gives float32 for float64; it does so for zeros, too.
            possible = _dtype_of(ops.zeros(shape, dtype))
            expect(_dtype_of(drawn) == possible, f"the dtype {_dtype_of(drawn)} {asked}")
            expect(bool(np.isfinite(array(drawn)).all()), f"values that are not finite {asked}")


@rule("draw in `keras.config.floatx()` where no dtype is given")
def default_dtype_is_floatx(case: Case) -> None:
    """Checks a draw without a dtype, under two settings of floatx.

    Args:
        case: The initializer under test.

    Raises:
        AssertionError: If the draw has another dtype.
    """
    before, shape = keras.config.floatx(), shapes_of(case)[0]
    try:
        for floatx in ("float32", "float16"):
            keras.config.set_floatx(floatx)
            found = _dtype_of(case.make()(shape))
            expect(found == floatx, f"the dtype {found} where floatx is {floatx}")
    finally:
        keras.config.set_floatx(before)


@rule('raise ValueError for dtype="int32"')
def integer_dtype_is_refused(case: Case) -> None:
    """Checks that a random initializer does not round real numbers to integers.

    Args:
        case: The initializer under test.

    Raises:
        AssertionError: If a draw with dtype="int32" returns values, or raises another error.
    """
    try:
        drawn = case.make()(shapes_of(case)[0], dtype="int32")
    except ValueError:
        return
    expect(False, f"a tensor of dtype {_dtype_of(drawn)}")


@rule("get the axes of its kernel inside EinsumDense and MultiHeadAttention")
def axes_reach_it_inside_einsum_and_attention(case: Case) -> None:
    """Checks that the axes which Keras tells subclasses of `VarianceScaling` reach the draw.

    Keras makes a new initializer by `from_config(config | axes)`. A class that loses `input_axes` and
    `output_axes` on this way draws the kernels of such layers with wrong fans.

    Args:
        case: The initializer under test.

    Raises:
        AssertionError: If a draw inside these layers has other axes, or values that are not finite.
    """
    seen: list[tuple[Any, ...]] = []
    original = case.cls.__call__

    def spy(self: Any, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        axes = (_from_start(axes, len(shape)) for axes in (self.input_axes, self.output_axes))
        seen.append((tuple(shape), *axes))
        return original(self, shape, dtype)

    with mock.patch.object(case.cls, "__call__", spy):
        attention = keras.layers.MultiHeadAttention(2, 4, kernel_initializer=case.make())
        attention.build((None, 5, 16), (None, 5, 16))
        einsum = keras.layers.EinsumDense("abc,dc->abd", (None, 6), kernel_initializer=case.make())
        einsum.build((None, 5, 16))
    projection = ((16, 2, 4), (0,), (1, 2))
    wanted = [projection] * 3 + [((2, 4, 16), (0, 1), (2,)), ((6, 16), (1,), (0,))]
    for found, known in zip(seen, wanted, strict=True):
        shape, *axes = known
        expect(found == known, f"input and output axes {found[1:]} for shape={shape}, not {tuple(axes)}")
    finite = all(np.isfinite(array(weight)).all() for weight in attention.weights + einsum.weights)
    expect(finite, "weights that are not finite")


def _dtype_of(tensor: Tensor) -> str:
    return str(keras.backend.standardize_dtype(tensor.dtype))


def _from_start(axes: Sequence[int] | None, rank: int) -> tuple[int, ...] | None:
    """Returns axes counted from the first axis; Keras counts some from the last."""
    return None if axes is None else tuple(axis % rank for axis in axes)
