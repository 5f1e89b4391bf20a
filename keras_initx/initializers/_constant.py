"""Initializers that draw nothing."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_initx._types import Tensor
from keras_initx.checks import check_finite
from keras_initx.initializers._base import PACKAGE, Shown


@keras.saving.register_keras_serializable(package=PACKAGE)
class ConstantFill(Shown):
    """The same number in every entry.

    Law: W = value. All units of a layer then compute the same output and get the same gradient, so a layer of
    any width learns like one unit.

    Choose it for biases and scales, or to see this symmetry stall a kernel. Do not choose it for kernels that
    should learn. The default is not 0, because a kernel of zeros passes no signal at all.

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

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Returns a tensor of this shape and dtype (None: Keras' floatx), filled with the value."""
        # Nothing is drawn here, so integer dtypes are allowed, unlike in the random initializers.
        return keras.ops.full(shape, self.value, dtype or keras.config.floatx())

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"value": self.value}
