"""Layers that some schemes ask for."""

from typing import Any

import keras
from keras import ops

__all__ = ["ResidualScale"]


@keras.saving.register_keras_serializable(package="initx")
class ResidualScale(keras.layers.Layer):
    """Multiplies its input by a learned scale: the end of a residual branch, x + scale * f(x).

    With scale 0 each block is the identity before training, whatever its depth. `initialize` sets it under
    the strategies `ReZero` and `SkipInit` (0), `LayerScale`-like values come from `initial`.

    >>> layer = ResidualScale()
    >>> print(ops.convert_to_numpy(layer(ops.ones((1, 2)))))
    [[0. 0.]]

    Args:
        initial: Value of the scale before training.
        per_channel: Whether each channel of the last axis has a scale of its own.
        **kwargs: Arguments of `keras.layers.Layer`.

    Reference:
        Bachlechner et al., 2020, "ReZero is all you need", equation 1 (https://arxiv.org/abs/2003.04887); De
        and Smith, 2020, SkipInit (https://arxiv.org/abs/2002.10444); Touvron et al., 2021, LayerScale, for
        `per_channel` (https://arxiv.org/abs/2103.17239).
    """

    def __init__(self, initial: float = 0.0, per_channel: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial = float(initial)
        self.per_channel = bool(per_channel)
        self.scale_initializer = keras.initializers.Constant(self.initial)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Makes the scale."""
        shape = (input_shape[-1],) if self.per_channel else ()
        self.scale = self.add_weight(shape=shape, initializer=self.scale_initializer, name="scale")

    def call(self, inputs: Any) -> Any:
        """Returns scale * inputs."""
        return inputs * ops.cast(self.scale, inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"initial": self.initial, "per_channel": self.per_channel}
