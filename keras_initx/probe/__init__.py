"""One instrumented pass over a model: the only code that hooks layers."""

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
