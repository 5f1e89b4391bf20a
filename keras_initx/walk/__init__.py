"""The kernels of a model and where they stand in it: the only code that knows Keras' layer classes."""

from keras_initx.walk._flow import Branch
from keras_initx.walk._graph import Graph, Node, Operand, input_specs, trace
from keras_initx.walk._kernels import register
from keras_initx.walk._layers import EMBEDDINGS, LINEAR, Kernel, cell_gates, with_effect
from keras_initx.walk._obstacles import is_of_users
from keras_initx.walk._paths import layer_paths
from keras_initx.walk._select import matches, matching, prefixes, select
from keras_initx.walk._sites import KernelSite, iter_kernels
from keras_initx.walk._variables import Weight, iter_weights, own_initializer

__all__ = [
    "EMBEDDINGS",
    "LINEAR",
    "Branch",
    "Graph",
    "Kernel",
    "KernelSite",
    "Node",
    "Operand",
    "Weight",
    "cell_gates",
    "input_specs",
    "is_of_users",
    "iter_kernels",
    "iter_weights",
    "layer_paths",
    "matches",
    "matching",
    "own_initializer",
    "prefixes",
    "register",
    "select",
    "trace",
    "with_effect",
]
