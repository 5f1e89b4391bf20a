"""Finds the kernels of a model and their places in it: the only code that knows Keras' layer classes.

A model is read in three stages:

    _sites      lists the kernels with the facts of their layers: role, layout, fans (the table: _kernels)
    _trace      runs the model on symbolic tensors and lists the steps: which operation feeds which
    _flow       finds each kernel in the trace: depth, activations around it, residual branches
"""

from keras_initx.walk._adapters import Adapter, adapter_of
from keras_initx.walk._coupled import coupled
from keras_initx.walk._graph import Graph, Node, Operand, input_specs, numbers_of_node, trace
from keras_initx.walk._kernels import register
from keras_initx.walk._layers import ATTENTION, EMBEDDINGS, LINEAR, Kernel, cell_gates, with_effect
from keras_initx.walk._obstacles import is_of_users
from keras_initx.walk._paths import layer_paths
from keras_initx.walk._position import Branch
from keras_initx.walk._select import matches, matching, prefixes, select
from keras_initx.walk._site import KernelSite
from keras_initx.walk._sites import iter_kernels
from keras_initx.walk._variables import Weight, iter_weights, own_initializer

__all__ = [
    "ATTENTION",
    "EMBEDDINGS",
    "LINEAR",
    "Adapter",
    "Branch",
    "Graph",
    "Kernel",
    "KernelSite",
    "Node",
    "Operand",
    "Weight",
    "adapter_of",
    "cell_gates",
    "coupled",
    "input_specs",
    "is_of_users",
    "iter_kernels",
    "iter_weights",
    "layer_paths",
    "matches",
    "matching",
    "numbers_of_node",
    "own_initializer",
    "prefixes",
    "register",
    "select",
    "trace",
    "with_effect",
]
