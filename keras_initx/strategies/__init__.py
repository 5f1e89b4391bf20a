"""Initialization of a whole model: what a shape cannot tell."""

from keras_initx.strategies._by_role import ByRole
from keras_initx.strategies._initialize import initialize
from keras_initx.strategies._names import STRATEGIES
from keras_initx.strategies._plan import Draw, Plan, Strategy
from keras_initx.strategies._report import InitReport, InitRow

__all__ = ["STRATEGIES", "ByRole", "Draw", "InitReport", "InitRow", "Plan", "Strategy", "initialize"]
