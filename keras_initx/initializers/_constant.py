"""Initializers that draw nothing."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_initx.initializers._base import PACKAGE, Shown, check_finite


@keras.saving.register_keras_serializable(package=PACKAGE)
class ConstantFill(Shown):
    """Every entry the same number.

    Law: W = value. All units of a layer then compute the same thing and get the same gradient, so that a
    layer of any width learns like one unit: choose it for biases and scales, or to see that symmetry stall a
    kernel. The default is not 0, with which a kernel passes no signal at all.

    >>> print(keras.ops.convert_to_numpy(ConstantFill(0.5)((2, 2))))
    [[0.5 0.5]
     [0.5 0.5]]

    Args:
        value: The finite number to fill with.

    Raises:
        ValueError: If `value` is not a finite number.

    Reference:
        Goodfellow, Bengio and Courville, 2016, "Deep Learning", section 8.4, on breaking symmetry.
    """

    def __init__(self, value: float = 0.05) -> None:
        self.value = check_finite("value", value)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Returns a tensor of the given shape and dtype (Keras' floatx when None), filled."""
        return keras.ops.full(shape, self.value, dtype or keras.config.floatx())

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"value": self.value}
