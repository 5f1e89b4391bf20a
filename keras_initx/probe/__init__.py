"""Runs a model once and shows the pre-activations of its layers: the only code that hooks layers.

Recurrent loops are the exception: their cells run in `keras_initx.recurrence`, since backends trace or fuse
the loop, and a hook inside would see no values.
"""

from keras_initx.probe._moments import mean_and_variance, unit_moments
from keras_initx.probe._run import preactivation_std, run
from keras_initx.probe._training import rewritten_by_training
from keras_initx.probe._unsupported import is_refusal

__all__ = [
    "is_refusal",
    "mean_and_variance",
    "preactivation_std",
    "rewritten_by_training",
    "run",
    "unit_moments",
]
