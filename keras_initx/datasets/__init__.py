"""Data sets for the examples: from files of the machine, and a loader for those of tensorflow-datasets."""

import importlib.util

from keras_initx.datasets._digit_images import read_digits
from keras_initx.datasets._fashion_images import read_fashion_mnist
from keras_initx.datasets._labelled_images import LabelledImages
from keras_initx.datasets._load import load
from keras_initx.datasets._pydoc_text import PydocText, read_pydoc
from keras_initx.datasets._source_text import SourceText, read_pysource, windows

# tensorflow-datasets cannot be imported where TensorFlow is absent. The functions `read_...` need neither of
# them, so the room must be importable without both.
if importlib.util.find_spec("tensorflow") and importlib.util.find_spec("tensorflow_datasets"):
    from keras_initx.datasets._builders import InitxDigits, InitxPydoc, InitxPysource

__all__ = [
    "InitxDigits",
    "InitxPydoc",
    "InitxPysource",
    "LabelledImages",
    "PydocText",
    "SourceText",
    "load",
    "read_digits",
    "read_fashion_mnist",
    "read_pydoc",
    "read_pysource",
    "windows",
]
