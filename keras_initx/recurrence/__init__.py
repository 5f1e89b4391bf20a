"""Measures the pre-activations of the gates of recurrent layers, and brings them to a target.

Hooks on layers do not see inside a recurrent loop: JAX traces the loop, and some backends run it as one fused
operation. Here the cell's own `call` runs step by step instead, and everything that enters its activations is
recorded.
"""

from keras_initx.recurrence._cells import gate_names, obstacle, scaled
from keras_initx.recurrence._fit import GateFit, fit_cells, fit_gates
from keras_initx.recurrence._loop import gate_stds

__all__ = ["GateFit", "fit_cells", "fit_gates", "gate_names", "gate_stds", "obstacle", "scaled"]
