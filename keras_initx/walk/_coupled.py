"""`coupled`: which axes of the weights of a model number the same units."""

from keras_initx._types import Model
from keras_initx.checks import first_line
from keras_initx.uses import Coupling, couple
from keras_initx.walk._inputs import candidate_inputs

__all__ = ["coupled"]


def coupled(model: Model) -> tuple[Coupling, str]:
    """Runs a model without values, and returns which axes of its weights number the same units.

    >>> import keras
    >>> model = keras.Sequential([keras.layers.Input((4, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    >>> inputs, outputs = coupled(model)[0].units(model.layers[-1].kernel)
    >>> inputs.how, [units.size for units in inputs.of]
    ('product', [4, 3])

    Args:
        model: A built Keras model or layer.

    Returns:
        What the run told, and the reason why it told nothing, or "".
    """
    failure = "its input shapes are not known: build or call it first"
    for args, kwargs in candidate_inputs(model):
        try:
            return couple(model, args, kwargs, model.weights), ""
        except Exception as error:  # a user's layer may raise anything on tensors without values
            failure = f"it does not run on tensors without values ({first_line(error, kind=True)})"
    return Coupling({}, ()), failure
