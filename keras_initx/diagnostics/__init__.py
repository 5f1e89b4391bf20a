"""`diagnose`: a report on the signal and the gradients of a model before the first training step.

One call goes through these files:

    _diagnose     checks the arguments and builds the report
    _exam         examines the model once: all steps from here to `_verdicts`
      _measure      runs the model forward and backward, and reads each kernel (formulas: _statistics)
      _updates      takes one step of the optimizer on copies
      _rows         turns the readings of a kernel into a row
      _duplicates   finds kernels that are copies of each other
      _verdicts     turns rows into findings: the faults, without a cure
    _cures        tries cures: applies one, examines again, puts all values back (_cure, _rates)
    _jacobian     computes singular values, where they are asked for
    _report       holds the result and checks limits (columns of its table: _format)
"""

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
