"""Data-dependent initialization of a whole model, in one forward pass."""

from keras_initx.calibration._calibrate import calibrate
from keras_initx.calibration._drawn import calibrate_drawn
from keras_initx.calibration._report import CalibrationReport, CalibrationRow
from keras_initx.calibration._task import Task
from keras_initx.initializers import is_law

__all__ = ["CalibrationReport", "CalibrationRow", "Task", "calibrate", "calibrate_drawn", "is_law"]
