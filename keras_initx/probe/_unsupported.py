"""Errors about models that cannot be run here, with any data."""

from keras_initx._keras_internals import flatten_layers
from keras_initx._types import Layer, Model

__all__ = ["TRACED", "is_refusal", "refused_layout"]

# The errors are told by how they begin, not by a class of their own: an error that passes through a graph of
# TensorFlow comes out as one of Python's own classes.
TRACED = "`model` must run eagerly"
_LAYOUT = "`model` must be one that its backend can run here"


def is_refusal(error: Exception) -> bool:
    """Tells whether an error says that a model cannot be run here; other data would not help.

    >>> is_refusal(ValueError("`data` must be finite"))
    False

    Args:
        error: An error from a pass.
    """
    return TRACED in str(error) or _LAYOUT in str(error)


def refused_layout(model: Model, error: Exception) -> ValueError | None:
    """Returns an error to raise if TensorFlow refused channels first on a CPU; None for other errors.

    >>> import keras
    >>> refused_layout(keras.Sequential([keras.layers.Dense(1)]), KeyError("x")) is None
    True

    Args:
        model: The model that ran.
        error: The error that the model raised.
    """
    if "NHWC" not in str(error):
        return None
    first = [layer for layer in flatten_layers(model) if _is_channels_first(layer)]
    where = f"`{first[0].name}` with data_format='channels_first'" if first else "channels first"
    return ValueError(
        f"{_LAYOUT}. Received: {where}, which TensorFlow runs on a "
        "CPU only with oneDNN. Set TF_ENABLE_ONEDNN_OPTS=1 in the environment before TensorFlow is imported, "
        "or build the model with data_format='channels_last'."
    )


def _is_channels_first(layer: Layer) -> bool:
    return getattr(layer, "data_format", None) == "channels_first"
