"""Initializers as a hyperparameter of KerasTuner."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_initx.experiments._problem import label_schemes

__all__ = ["choice"]


def choice(hp: Any, name: str, schemes: Sequence[Any] | Mapping[str, Any], default: str | None = None) -> Any:
    """Lets KerasTuner choose an initializer for a layer.

    `hp.Choice` takes texts and numbers only. Here it chooses a label, and the layer gets an initializer that
    no other layer has, as one that two kernels share can give both the same values. Leave seeds out: an int
    is the same for every layer that draws from it.

    >>> import keras_tuner
    >>> hp = keras_tuner.HyperParameters()
    >>> schemes = {"He": "initx>HeScaled", "small": keras.initializers.RandomNormal(stddev=0.01)}
    >>> choice(hp, "first", schemes).gain, hp.values
    (1.0, {'first': 'He'})
    >>> hp.values["first"] = "small"
    >>> choice(hp, "first", schemes).stddev
    0.01

    Args:
        hp: The `keras_tuner.HyperParameters` of a hypermodel.
        name: The hyperparameter's name. Layers that call it by one name are given the same choice.
        schemes: Names, configs or objects of initializers; or a dict of label and one of these.
        default: The label to begin with; None for the first.

    Returns:
        A fresh initializer.

    Raises:
        ValueError: If one of them is no initializer of a layer.
    """
    found = label_schemes(schemes)
    for label, scheme in found.items():
        if scheme is None or hasattr(scheme, "plan"):
            received, cure = (
                ("None", "Name the layer's own, such as 'glorot_uniform'.")
                if scheme is None
                else (
                    f"{label!r}, which needs the whole model",
                    "Build the model, then call `initx.initialize(model, hp.Choice(name, names))`.",
                )
            )
            raise ValueError(f"`schemes` must be initializers of a layer. Received: {received}. {cure}")
    chosen = found[hp.Choice(name, list(found), default=default)]
    return chosen.clone() if isinstance(chosen, keras.initializers.Initializer) else chosen
