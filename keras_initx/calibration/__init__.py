"""Data-dependent initialization of a whole model, in one forward pass."""

from keras_initx.calibration._calibrate import calibrate
from keras_initx.calibration._choice import is_law
from keras_initx.calibration._drawn import calibrate_drawn
from keras_initx.calibration._report import CalibrationReport, CalibrationRow
from keras_initx.calibration._task import Task

__all__ = ["CalibrationReport", "CalibrationRow", "Task", "calibrate", "calibrate_drawn", "is_law"]
