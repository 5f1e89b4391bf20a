"""Donors: the weights of a model from those of another one."""

from keras_initx.donors._blocks import DEPTHS, places
from keras_initx.donors._carry import Carried, Carrier, Grid
from keras_initx.donors._doubts import other_operations
from keras_initx.donors._kinds import Kinds
from keras_initx.donors._match import match
from keras_initx.donors._pair import Pair
from keras_initx.donors._read import check_donor, is_adapter, read_donor
from keras_initx.donors._settings import other_settings
from keras_initx.donors._tables import NEW_ROWS, check_grid
from keras_initx.donors._ways import carry_all
from keras_initx.donors._words import Words, named_rows, pieces_of, shared_words, two_vocabularies

__all__ = [
    "DEPTHS",
    "NEW_ROWS",
    "Carried",
    "Carrier",
    "Grid",
    "Kinds",
    "Pair",
    "Words",
    "carry_all",
    "check_donor",
    "check_grid",
    "is_adapter",
    "match",
    "named_rows",
    "other_operations",
    "other_settings",
    "pieces_of",
    "places",
    "read_donor",
    "shared_words",
    "two_vocabularies",
]
