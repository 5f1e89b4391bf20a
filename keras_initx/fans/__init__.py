"""Fans: how many inputs an output element sums, and how many output elements an input reaches."""

from keras_initx.fans._axes import Fans, KernelAxes
from keras_initx.fans._compute import compute_fans, split_kernel
from keras_initx.fans._layout import Layout, LayoutLike

__all__ = ["Fans", "KernelAxes", "Layout", "LayoutLike", "compute_fans", "split_kernel"]
