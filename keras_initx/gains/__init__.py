"""Gains: how much an activation changes the size of a signal, computed from the activation alone."""

from keras_initx.gains._moments import compute_gain, second_moments

__all__ = ["compute_gain", "second_moments"]
