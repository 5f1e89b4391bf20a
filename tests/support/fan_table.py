"""Real Keras layers with the fans that they truly have: the table that several tests go through."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import layers, ops
from scipy import stats

SEEDS = 8
# Some 250 means of 8 seeds: under the law a t above this has a chance of 1e-4 in all of them together.
T_LIMIT = stats.t(SEEDS - 1).isf(1e-4 / 250 / 2)


@dataclasses.dataclass(frozen=True)
class Row:
    """A layer of the table: how to build it, what it gets, and the fans that it truly has."""

    build: Callable[[Any], Any]
    shape: tuple[int, ...]
    fans: tuple[float, float]
    layout: Any = None
    crop: int = 0  # places at each border where an output sees less


def conv(rank, filters, size, **options):
    cls = getattr(layers, f"Conv{rank}D")
    return lambda i: cls(filters, size, kernel_initializer=i, **options)


def transposed(rank, filters, size, strides=1):
    cls = getattr(layers, f"Conv{rank}DTranspose")
    return lambda i: cls(filters, size, strides=strides, kernel_initializer=i)


def depthwise(rank, size, multiplier=1):
    cls = getattr(layers, f"DepthwiseConv{rank}D")
    return lambda i: cls(size, depth_multiplier=multiplier, depthwise_initializer=i)


def einsum(equation, output):
    return lambda i: layers.EinsumDense(equation, output, kernel_initializer=i)


def grouped(groups):
    return {"kind": "conv", "groups": groups}


def strided(strides):
    return {"kind": "transposed", "strides": strides}


ROWS = {
    "dense": Row(lambda i: layers.Dense(256, kernel_initializer=i), (400, 256), (256, 256)),
    "dense expanding": Row(lambda i: layers.Dense(512, kernel_initializer=i), (400, 64), (64, 512)),
    "dense contracting": Row(lambda i: layers.Dense(64, kernel_initializer=i), (400, 512), (512, 64)),
    "conv1d": Row(conv(1, 64, 5), (20, 40, 32), (160, 320)),
    "conv2d": Row(conv(2, 64, 3), (6, 12, 12, 32), (288, 576)),
    "conv2d expanding": Row(conv(2, 256, 3), (6, 12, 12, 16), (144, 2304)),
    "conv2d same": Row(conv(2, 64, 3, padding="same"), (8, 10, 10, 32), (288, 576), crop=1),
    "conv2d strided": Row(
        conv(2, 64, 4, strides=2), (10, 16, 16, 32), (512, 256), {"kind": "conv", "strides": 2}
    ),
    "conv2d odd stride": Row(
        conv(2, 64, 3, strides=2), (10, 17, 17, 32), (288, 144), {"kind": "conv", "strides": 2}
    ),
    "conv2d dilated": Row(conv(2, 64, 3, dilation_rate=2), (6, 14, 14, 32), (288, 576)),
    "conv3d": Row(conv(3, 32, 3), (4, 8, 8, 8, 16), (432, 864)),
    "conv2d 2 groups": Row(conv(2, 64, 3, groups=2), (6, 12, 12, 32), (144, 288), grouped(2)),
    "conv2d 8 groups": Row(conv(2, 64, 3, groups=8), (10, 12, 12, 32), (36, 72), grouped(8)),
    "conv2d as depthwise": Row(conv(2, 32, 3, groups=32), (10, 12, 12, 32), (9, 9), grouped(32)),
    "conv1d groups": Row(conv(1, 64, 5, groups=4), (20, 40, 32), (40, 80), grouped(4)),
    "depthwise 16": Row(depthwise(2, 3), (10, 12, 12, 16), (9, 9), "depthwise"),
    "depthwise 256": Row(depthwise(2, 3), (6, 12, 12, 256), (9, 9), "depthwise"),
    "depthwise multiplier": Row(depthwise(2, 3, 2), (6, 12, 12, 64), (9, 18), "depthwise"),
    "depthwise1d": Row(depthwise(1, 5, 4), (20, 40, 64), (5, 20), "depthwise"),
    "transposed1d": Row(transposed(1, 64, 4), (20, 40, 32), (128, 256), "transposed", 3),
    "transposed1d strided": Row(transposed(1, 64, 4, 2), (20, 40, 32), (64, 256), strided(2), 4),
    "transposed2d": Row(transposed(2, 128, 3), (8, 10, 10, 32), (288, 1152), "transposed", 2),
    "transposed2d contracting": Row(transposed(2, 32, 3), (8, 10, 10, 128), (1152, 288), "transposed", 2),
    "transposed2d dcgan": Row(transposed(2, 64, 4, 2), (8, 8, 8, 128), (512, 1024), strided(2), 4),
    "transposed2d pixels": Row(transposed(2, 64, 2, 2), (8, 8, 8, 64), (64, 256), strided(2)),
    "transposed3d": Row(transposed(3, 32, 3), (4, 7, 7, 7, 16), (432, 864), "transposed", 2),
    "transposed3d strided": Row(transposed(3, 32, 2, 2), (4, 6, 6, 6, 16), (16, 256), strided(2)),
    "einsum": Row(einsum("abc,cd->abd", (None, 256)), (10, 40, 128), (128, 256)),
    "einsum to heads": Row(einsum("abc,cde->abde", (None, 8, 16)), (10, 40, 128), (128, 128)),
    "einsum from heads": Row(einsum("abcd,cde->abe", (None, 128)), (10, 40, 8, 16), (128, 128)),
    "einsum ellipsis": Row(einsum("...x,xy->...y", (256,)), (400, 128), (128, 256)),
    "einsum outputs first": Row(einsum("abc,dc->abd", (None, 256)), (10, 40, 128), (128, 256)),
    "einsum per head": Row(
        einsum("abhc,hcd->abhd", (None, 8, 64)),
        (10, 40, 8, 64),
        (64, 64),
        {"kind": "einsum", "batch_axes": [0]},
    ),
    "einsum experts": Row(
        einsum("bec,ecd->bed", (32, 64)), (100, 32, 64), (64, 64), {"kind": "einsum", "batch_axes": [0]}
    ),
}


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), np.float64)


def assert_promised(ratios):
    ratios = np.array(ratios)
    error = ratios.std(ddof=1) / math.sqrt(SEEDS)
    assert error < 0.08  # or the test could not fail: the defects that it looks for are factors
    assert abs(ratios.mean() - 1) < T_LIMIT * error
