"""Calibration at the start of `fit`."""

import warnings
from typing import Any

import keras
from keras import ops

from keras_initx.calibration import CalibrationReport, calibrate

__all__ = ["Calibrate"]


class Calibrate(keras.callbacks.Callback):
    """Calibrates the model at the start of its first `fit`, on the weights that it then has.

    It does so once: before a `fit` that goes on with a model whose optimizer has made steps it leaves the
    weights as they are, and warns that it did. Put it after `keras.callbacks.BackupAndRestore`, which loads
    the weights of an interrupted run, and before what writes or logs weights.

    >>> import numpy as np
    >>> x, y = np.ones((8, 3)) * np.arange(8)[:, None], np.zeros(8)
    >>> model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> callback = Calibrate(x)
    >>> history = model.fit(x, y, verbose=0, callbacks=[callback])
    >>> print(f"{callback.report.rows[0].std_after:.3f}")
    1.000

    Args:
        data: As in `keras_initx.calibrate`. `fit` does not show its data to callbacks: give it here, too.
        initializer: As in `keras_initx.calibrate`.
        options: What else `keras_initx.calibrate` takes.

    Attributes:
        report: What `calibrate` returned; None before it ran, and when it did not.
    """

    def __init__(self, data: Any, initializer: Any = None, **options: Any) -> None:
        super().__init__()
        self.data, self.initializer, self.options = data, initializer, options
        self.report: CalibrationReport | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Calibrates a model that was not trained yet."""
        steps = int(ops.convert_to_numpy(self.model.optimizer.iterations))
        if steps:
            if self.report is None:
                warnings.warn(
                    f"Calibrate left `{self.model.name}` as it is: its optimizer has made {steps} steps.",
                    stacklevel=2,
                )
            return
        self.report = calibrate(self.model, self.data, self.initializer, **self.options)
