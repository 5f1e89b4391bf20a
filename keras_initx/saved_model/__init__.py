"""Exports models to versioned SavedModel folders that a server takes, and reports their contents."""

from _initx_saved_model import SavedModelFolder, SavedVersion, inspect
from keras_initx.saved_model._export import export
from keras_initx.saved_model._exported import ExportedModel
from keras_initx.saved_model._prove import prove_row_wise

__all__ = ["ExportedModel", "SavedModelFolder", "SavedVersion", "export", "inspect", "prove_row_wise"]
