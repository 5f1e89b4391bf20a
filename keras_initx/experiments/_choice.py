"""Initializers as a hyperparameter of KerasTuner."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import keras

from keras_initx._types import Initializer, Tensor
from keras_initx.experiments._problem import label_initializers

if TYPE_CHECKING:
    import keras_tuner

__all__ = ["choice"]


def choice(
    hp: "keras_tuner.HyperParameters",
    name: str,
    initializers: Sequence[Initializer] | Mapping[str, Initializer],
    default: str | None = None,
) -> keras.initializers.Initializer | Callable[..., Tensor]:
    """Lets KerasTuner choose the initializer of a layer.

    `hp.Choice` takes only texts and numbers, so the hyperparameter is a label. Each call returns a new
    initializer object, because one object that two kernels share can give both kernels the same values. Leave
    seeds out: with the same int as a seed, two layers draw the same numbers.

    >>> import keras_tuner
    >>> hp = keras_tuner.HyperParameters()
    >>> initializers = {"He": "initx>HeScaled", "small": keras.initializers.RandomNormal(stddev=0.01)}
    >>> choice(hp, "first", initializers).gain, hp.values  # KerasTuner begins with the first label
    (1.0, {'first': 'He'})
    >>> hp.values["first"] = "small"
    >>> choice(hp, "first", initializers).stddev
    0.01

    Args:
        hp: The `keras_tuner.HyperParameters` of a hypermodel.
        name: Name of the hyperparameter. Layers with the same name get the same choice.
        initializers: Names, configs or objects of initializers; or a dict of label and initializer.
        default: The label to begin with; None for the first label.

    Returns:
        A new initializer object.

    Raises:
        ValueError: If an entry is not an initializer of a layer, such as None or a strategy.
    """
    found = label_initializers(initializers)
    for label, initializer in found.items():
        if initializer is None or hasattr(initializer, "plan"):
            received, cure = (
                ("None", "Name the initializer of the layer itself, such as 'glorot_uniform'.")
                if initializer is None
                else (
                    f"{label!r}, which needs the whole model",
                    "Build the model, then call `initx.initialize(model, hp.Choice(name, names))`.",
                )
            )
            raise ValueError(f"`initializers` must be initializers of a layer. Received: {received}. {cure}")
    chosen = found[hp.Choice(name, list(found), default=default)]
    return chosen.clone() if isinstance(chosen, keras.initializers.Initializer) else chosen
