"""The parts of `keras_initx.saved_model` that need neither Keras nor TensorFlow.

They know where the files of an exported model lie, and read them. They stand beside `keras_initx`, because
Python imports a package before any module in it, and `import keras_initx` imports Keras. So `initx inspect`
answers in a fraction of a second. Import these names from `keras_initx.saved_model`.
"""

from _initx_saved_model._inspect import SavedModelFolder, SavedVersion, inspect
from _initx_saved_model._paths import WARMUP, local, model_folder
from _initx_saved_model._proof import Proof, write_proof

__all__ = [
    "WARMUP",
    "Proof",
    "SavedModelFolder",
    "SavedVersion",
    "inspect",
    "local",
    "model_folder",
    "write_proof",
]
