"""Learning rates by variable: one optimizer of Keras, one learning rate, and a factor for each variable."""

from keras_initx.optimizers._laws import KNOWN, Law, law_of
from keras_initx.optimizers._multipliers import Multiplier, Multipliers
from keras_initx.optimizers._scaled import ScaledRates, scale_rates

__all__ = ["KNOWN", "Law", "Multiplier", "Multipliers", "ScaledRates", "law_of", "scale_rates"]
