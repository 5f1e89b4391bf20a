"""Whether a model stays the same as it grows in width: the coordinate check of muP."""

from keras_initx.scaling._coordinates import coordinates
from keras_initx.scaling._findings import KINDS, Finding
from keras_initx.scaling._report import CoordinateError, CoordinateReport
from keras_initx.scaling._rows import CoordinateRow, Divergence, Growth, Slope

__all__ = [
    "KINDS",
    "CoordinateError",
    "CoordinateReport",
    "CoordinateRow",
    "Divergence",
    "Finding",
    "Growth",
    "Slope",
    "coordinates",
]
