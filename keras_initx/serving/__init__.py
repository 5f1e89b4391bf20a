"""Serving of SavedModel folders by TensorFlow Serving's protocol: it needs a folder on disk, nothing else."""

from keras_initx.serving._configs import ModelConfig, configs_of, find_models, read_batching, read_models
from keras_initx.serving._errors import ServingError
from keras_initx.serving._models import Models
from keras_initx.serving._version import Version, VersionStatus

__all__ = [
    "ModelConfig",
    "Models",
    "ServingError",
    "Version",
    "VersionStatus",
    "configs_of",
    "find_models",
    "read_batching",
    "read_models",
]
