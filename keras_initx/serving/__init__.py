"""A server for SavedModel folders that speaks TensorFlow Serving's protocol.

This package reads folders on disk and knows nothing about Keras models in memory. So it serves any
SavedModel, whichever tool wrote it.
"""

from keras_initx.serving._configs import ModelConfig, find_models, read_batching, read_models
from keras_initx.serving._errors import ServingError
from keras_initx.serving._models import Models
from keras_initx.serving._ray import serve_on_ray
from keras_initx.serving._server import serve

__all__ = [
    "ModelConfig",
    "Models",
    "ServingError",
    "find_models",
    "read_batching",
    "read_models",
    "serve",
    "serve_on_ray",
]
