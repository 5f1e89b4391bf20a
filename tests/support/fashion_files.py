"""Files of Fashion-MNIST: the real ones where a machine has them, and small ones in the same format."""

import functools
import gzip
import os
import struct

import numpy as np
import pytest

from keras_initx.datasets import _fashion_images

# CI installs Debian's package and sets this, so that files that are missing there are seen.
REQUIRED = os.environ.get("INITX_REQUIRE_FASHION_MNIST") == "1"
needs_real_files = pytest.mark.skipif(
    not REQUIRED and _fashion_images.find_fashion_mnist() is None,
    reason="needs the files of Fashion-MNIST (apt-get install dataset-fashion-mnist)",
)


@functools.cache
def real():
    """The real data set, which is read once."""
    found = _fashion_images.find_fashion_mnist()
    assert found, "CI must install Debian's package dataset-fashion-mnist: see .ci/run"
    return _fashion_images.read_fashion_mnist(found)


def idx(values):
    """The bytes of an array in the format IDX, written by hand from its description."""
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def write(folder, rows=(30, 10)):
    """Writes four small files, and returns the arrays that they hold."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in zip(("train", "t10k"), rows, strict=True):
        arrays[f"{split}-images-idx3-ubyte.gz"] = rng.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{split}-labels-idx1-ubyte.gz"] = rng.integers(0, 10, count, np.uint8)
    for name, values in arrays.items():
        (folder / name).write_bytes(gzip.compress(idx(values)))
    return arrays
