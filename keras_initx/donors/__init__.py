"""Donors: takes the weights of a model from another one, of other widths, depths, channels, grids and rows."""

from keras_initx.donors._blocks import DEPTHS, places
from keras_initx.donors._carry import Carried, Carrier, Grid
from keras_initx.donors._match import Pair, match
from keras_initx.donors._read import check_donor, read_donor
from keras_initx.donors._tables import NEW_ROWS
from keras_initx.donors._words import Words, pieces_of, rows_of, words_of

__all__ = [
    "DEPTHS",
    "NEW_ROWS",
    "Carried",
    "Carrier",
    "Grid",
    "Pair",
    "Words",
    "check_donor",
    "match",
    "pieces_of",
    "places",
    "read_donor",
    "rows_of",
    "words_of",
]
