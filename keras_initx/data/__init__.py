"""Takes checked batches, which a model can be called on, from any form of a user's data."""

from keras_initx.data._inputs import check_finite, check_looked_up, knows_inputs, refusal
from keras_initx.data._stream import iter_pairs
from keras_initx.data._take import take_pair
from keras_initx.data._weighted import Weighted, split_weights

__all__ = [
    "Weighted",
    "check_finite",
    "check_looked_up",
    "iter_pairs",
    "knows_inputs",
    "refusal",
    "split_weights",
    "take_pair",
]
