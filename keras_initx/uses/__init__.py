"""Finds what happens to each weight of a model: the products, convolutions, lookups and sums that take it."""

from keras_initx.uses._find import find_uses
from keras_initx.uses._operations import Convolve
from keras_initx.uses._show import show_uses
from keras_initx.uses._use import Roles, Use

__all__ = ["Convolve", "Roles", "Use", "find_uses", "show_uses"]
