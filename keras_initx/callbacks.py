"""Keras callbacks over the package's other rooms."""

import os
import warnings
from typing import Any

import keras

from keras_initx.calibration import CalibrationReport, calibrate
from keras_initx.summaries import EventWriter

__all__ = ["Calibrate", "WeightHistograms"]


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
        steps = int(self.model.optimizer.iterations)
        if steps:
            if self.report is None:
                warnings.warn(
                    f"Calibrate left `{self.model.name}` as it is: its optimizer has made {steps} steps.",
                    stacklevel=2,
                )
            return
        self.report = calibrate(self.model, self.data, self.initializer, **self.options)


class WeightHistograms(keras.callbacks.Callback):
    """Histograms of all weights in TensorBoard: at step 0, before training, and after each epoch.

    Steps count finished epochs: step 0 is the initialization, step e the state after e epochs.
    `keras.callbacks.TensorBoard` numbers differently, its step e is the state after epoch e + 1, and never
    writes the initialization. Both may write under the same folder: Keras' files go into `train/` and
    `validation/`, these into the folder itself.

    Tags are `weights/<number>_<path of the weight>`, numbered in the order of `model.weights`, so that
    TensorBoard sorts them as the model does. NaN and Inf are left out of a histogram and counted by a scalar,
    `nonfinite_fraction/...`. It works on all backends and imports no TensorFlow.

    >>> WeightHistograms("runs/he").log_dir
    'runs/he'

    Args:
        log_dir: A local folder; it is made when there is none. When `fit` is called with an
            `initial_epoch`, the new file goes on from there, and TensorBoard drops what an interrupted run
            had written from that epoch on.

    Raises:
        TypeError: If `log_dir` is not a path.
        ValueError: When training starts, if the model is not built: it has no initialization to write yet.
    """

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        super().__init__()
        if not isinstance(log_dir, str | os.PathLike):
            raise TypeError(f"`log_dir` must be a path. Received: log_dir={log_dir!r}.")
        self.log_dir = os.fspath(log_dir)
        self._writer: EventWriter | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Closes what an interrupted `fit`, which never ends its training, has left open."""
        self.on_train_end()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Writes the state before the first epoch that is trained."""
        if not self.model.weights:
            raise ValueError(
                f"`model` must be built before `fit` for step 0 to be written. Received: `{self.model.name}` "
                "without weights. Call it on one batch, or `model.build(input_shape)`, first."
            )
        if self._writer is None:
            self._writer = EventWriter(self.log_dir, first_step=epoch)
            self._log(epoch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes the state after an epoch."""
        self._log(epoch + 1)

    def on_train_end(self, logs: Any = None) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _log(self, step: int) -> None:
        assert self._writer is not None
        weights = self.model.weights
        digits = len(str(len(weights) - 1))
        for number, variable in enumerate(weights):
            path = variable.path.removeprefix(f"{self.model.name}/")
            values = keras.ops.convert_to_numpy(variable.value)
            self._writer.histogram(f"weights/{number:0{digits}d}_{path}", values, step)
