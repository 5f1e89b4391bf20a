"""Layers that some strategies need in the model."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_initx._types import Tensor

__all__ = ["ResidualScale"]


@keras.saving.register_keras_serializable(package="initx")
class ResidualScale(keras.layers.Layer):
    """Multiplies its input by a learned scale. It ends a residual branch: `x + ResidualScale()(f(x))`.

    With the scale 0, which is the default, each residual block is the identity before training, at any depth.

    `initialize` sets the scale to 0 under the strategies `ReZero` and `SkipInit`. For LayerScale, pass
    `per_channel=True` and a small `initial`, such as 1e-5.

    >>> layer = ResidualScale()
    >>> print(ops.convert_to_numpy(layer(ops.ones((1, 2)))))
    [[0. 0.]]

    Args:
        initial: The value of the scale before training.
        per_channel: Whether each channel of the last axis has its own scale. If not, the layer has one scale.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Reference:
        Bachlechner et al., 2020, "ReZero is all you need", equation 1 (https://arxiv.org/abs/2003.04887); De
        and Smith, 2020, SkipInit (https://arxiv.org/abs/2002.10444); Touvron et al., 2021, LayerScale, for
        `per_channel` (https://arxiv.org/abs/2103.17239).
    """

    def __init__(self, initial: float = 0.0, per_channel: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial = float(initial)
        self.per_channel = bool(per_channel)
        # `keras_initx.walk` finds the initializer of the weight `scale` by the name of this attribute.
        self.scale_initializer = keras.initializers.Constant(self.initial)
        # A mask passes through: to scale a step does not change whether the step is padding.
        self.supports_masking = True

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Makes the scale: a scalar, or a vector with one entry for each channel."""
        shape = (input_shape[-1],) if self.per_channel else ()
        self.scale = self.add_weight(shape=shape, initializer=self.scale_initializer, name="scale")

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the scale times the inputs, in the dtype of the inputs."""
        # Under a mixed precision policy the scale is float32 and the inputs are half precision.
        return inputs * ops.cast(self.scale, inputs.dtype)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        """Returns the shape of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {"initial": self.initial, "per_channel": self.per_channel}
