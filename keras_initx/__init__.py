"""Weight initialization for Keras 3 and TensorFlow.

Importing the package registers every initializer with Keras as `"initx>ClassName"`.
"""

import importlib.metadata

from keras_initx import (
    callbacks,
    diagnostics,
    experiments,
    fans,
    gains,
    initializers,
    layers,
    optimizers,
    plots,
    scaling,
    serving,
    strategies,
    walk,
)
from keras_initx.calibration import calibrate
from keras_initx.diagnostics import diagnose
from keras_initx.experiments import compare
from keras_initx.saved_model import export, inspect
from keras_initx.scaling import coordinates
from keras_initx.serving import serve
from keras_initx.strategies import initialize

__version__ = importlib.metadata.version("keras-initx")
__all__ = [
    "__version__",
    "calibrate",
    "callbacks",
    "compare",
    "coordinates",
    "diagnose",
    "diagnostics",
    "experiments",
    "export",
    "fans",
    "gains",
    "initialize",
    "initializers",
    "inspect",
    "layers",
    "optimizers",
    "plots",
    "scaling",
    "serve",
    "serving",
    "strategies",
    "walk",
]
