"""The gates of recurrent layers: their pre-activations, measured and brought to a target.

Hooks on layers do not see inside a recurrent loop: JAX traces it, and some backends have one fused operation
for it. Here the cell is called step by step instead.
"""

from keras_initx.recurrence._cells import gate_names, obstacle, scaled
from keras_initx.recurrence._fit import GateFit, fit_cells, fit_gates
from keras_initx.recurrence._loop import gate_stds

__all__ = ["GateFit", "fit_cells", "fit_gates", "gate_names", "gate_stds", "obstacle", "scaled"]
