"""What a model makes of the signal before the first step: a report, in numbers and in words."""

from keras_initx.diagnostics._diagnose import diagnose
from keras_initx.diagnostics._duplicates import Duplicate
from keras_initx.diagnostics._jacobian import Spectrum
from keras_initx.diagnostics._report import KINDS, SignalError, SignalReport, SignalRow, Verdict

__all__ = [
    "KINDS",
    "Duplicate",
    "SignalError",
    "SignalReport",
    "SignalRow",
    "Spectrum",
    "Verdict",
    "diagnose",
]
