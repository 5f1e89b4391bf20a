"""Keras callbacks: calibration before training, and histograms and signal reports in TensorBoard."""

from keras_initx.callbacks._calibrate import Calibrate
from keras_initx.callbacks._signal_monitor import SignalMonitor
from keras_initx.callbacks._weight_histograms import WeightHistograms

__all__ = ["Calibrate", "SignalMonitor", "WeightHistograms"]
