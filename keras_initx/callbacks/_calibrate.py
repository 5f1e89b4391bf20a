"""Calibration at the start of `fit`."""

import warnings
from typing import Any

import keras
from keras import ops

from keras_initx._types import Arrays, Data, Initializer, Loss, Patterns
from keras_initx.calibration import CalibrationReport, calibrate

__all__ = ["Calibrate"]


class Calibrate(keras.callbacks.Callback):
    """Calibrates the model once, at the start of its first `fit`.

    The callback runs `keras_initx.calibrate` on the weights that the model has when `fit` begins. If the
    optimizer has already made steps, the model was trained before: the callback then leaves the weights
    alone and warns. Put it after `keras.callbacks.BackupAndRestore`, which loads the weights of an
    interrupted run, and before callbacks that write or log weights.

    >>> import numpy as np
    >>> x, y = np.ones((8, 3)) * np.arange(8)[:, None], np.zeros(8)
    >>> model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> callback = Calibrate(x)
    >>> history = model.fit(x, y, verbose=0, callbacks=[callback])
    >>> print(f"{callback.report.rows[0].std_after:.3f}")
    1.000

    Args:
        data: Data to measure on; Keras does not show the data of `fit` to callbacks. An array; a dict, tuple
            or list of arrays; a `tf.data.Dataset` or another iterable of batches; or None to draw unit
            Gaussian inputs. From a tuple (x, y) the callback takes x, and y as targets.
        initializer: The law for all layers, for example `"initx>LSUV"`. None keeps the data-dependent law
            that a layer has as its own `kernel_initializer`; if no layer has one, all layers get LSUV.
        targets: Labels for the laws that use them, as `fit` takes them. None for the labels in `data`.
        loss: Loss for laws over the whole model, which take gradients, in a form that `compile` takes. None
            for the loss that the model was compiled with.
        include: Patterns of paths (`"block3"` with everything below it, `"*/query"`) or roles to calibrate.
            None for all.
        exclude: Patterns or roles to leave as they are. None for none.
        samples: Number of rows to measure on, from the start of the data. In a job of several processes, each
            process takes this many rows. None for 256, or for all rows if the law makes heads.
        training: Whether the model runs as in training. Normalizations then use the statistics of the batch;
            their moving statistics stay.
        frozen: Whether to calibrate layers that are not trainable, too.
        redraw: Whether to draw new weights before measuring. False rescales the weights that are there.
        tolerance: Largest accepted relative distance to the law's scale, for the gates of recurrent layers
            and for layers that run several times in one pass. All other layers reach the scale exactly.
        max_iterations: Largest number of passes, and of loops over a recurrent layer in each pass.
        seed: Seed of the redraw and of drawn inputs. None takes an unseeded one.

    Attributes:
        report: The `CalibrationReport`. None before `fit` began, and if the callback left the model alone.

    Raises:
        ValueError: When training starts, if an argument is out of its range, the data does not fit the model,
            or a pre-activation is not finite. The weights are then unchanged.
    """

    def __init__(
        self,
        data: Data | None = None,
        initializer: Initializer | None = None,
        *,
        targets: Arrays | None = None,
        loss: Loss | None = None,
        include: Patterns | None = None,
        exclude: Patterns | None = None,
        samples: int | None = None,
        training: bool = False,
        frozen: bool = False,
        redraw: bool = False,
        tolerance: float = 0.1,
        max_iterations: int = 10,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.data, self.initializer = data, initializer
        self.options: dict[str, Any] = {
            "targets": targets,
            "loss": loss,
            "include": include,
            "exclude": exclude,
            "samples": samples,
            "training": training,
            "frozen": frozen,
            "redraw": redraw,
            "tolerance": tolerance,
            "max_iterations": max_iterations,
            "seed": seed,
        }
        self.report: CalibrationReport | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Calibrates the model if its optimizer has made no step yet."""
        # A count of steps, not of calls of `fit`: BackupAndRestore brings trained weights into a first `fit`.
        steps = int(ops.convert_to_numpy(self.model.optimizer.iterations))
        if steps:
            # After a report, the user has called `fit` again on purpose: no warning then.
            if self.report is None:
                warnings.warn(
                    f"`Calibrate` left `{self.model.name}` as it is, since its optimizer has made {steps} "
                    "steps. To calibrate a trained model, call `calibrate` before `fit`.",
                    stacklevel=2,
                )
            return
        self.report = calibrate(self.model, self.data, self.initializer, **self.options)
