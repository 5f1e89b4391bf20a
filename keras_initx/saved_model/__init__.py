"""A trained model to a versioned SavedModel folder that a server can be pointed at."""

from _initx_saved_model import SavedModelFolder, SavedVersion, inspect
from keras_initx.saved_model._export import ExportedModel, export
from keras_initx.saved_model._prove import prove_row_wise

__all__ = ["ExportedModel", "SavedModelFolder", "SavedVersion", "export", "inspect", "prove_row_wise"]
