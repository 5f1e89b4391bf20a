"""The kernels of a model and where they stand in it: the only code that knows Keras' layer classes."""

from keras_initx.walk._flow import Branch
from keras_initx.walk._kernels import Kernel, register
from keras_initx.walk._sites import KernelSite, iter_kernels

__all__ = ["Branch", "Kernel", "KernelSite", "iter_kernels", "register"]
