"""Data sets for the examples: two that need no network, and a loader for those of tensorflow-datasets."""

import importlib.util

from keras_initx.datasets._digit_images import DigitImages, read_digits
from keras_initx.datasets._load import load
from keras_initx.datasets._pydoc_text import PydocText, read_pydoc

# tensorflow-datasets cannot be imported where TensorFlow is absent. `read_digits` and `read_pydoc` need
# neither of them, so the room must be importable without both.
if importlib.util.find_spec("tensorflow") and importlib.util.find_spec("tensorflow_datasets"):
    from keras_initx.datasets._builders import InitxDigits, InitxPydoc

__all__ = ["DigitImages", "InitxDigits", "InitxPydoc", "PydocText", "load", "read_digits", "read_pydoc"]
