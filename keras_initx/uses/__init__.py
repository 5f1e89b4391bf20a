"""Finds what happens to each weight of a model: the products, convolutions, lookups and sums that take it."""

from keras_initx.uses._backend import kept_buffers
from keras_initx.uses._couple import Coupling, couple
from keras_initx.uses._find import find_uses
from keras_initx.uses._operations import Convolve
from keras_initx.uses._record import Ran, affine, record
from keras_initx.uses._show import gradient_at_operand, show_uses
from keras_initx.uses._units import Units
from keras_initx.uses._use import Roles, Taken, Use

__all__ = [
    "Convolve",
    "Coupling",
    "Ran",
    "Roles",
    "Taken",
    "Units",
    "Use",
    "affine",
    "couple",
    "find_uses",
    "gradient_at_operand",
    "kept_buffers",
    "record",
    "show_uses",
]
