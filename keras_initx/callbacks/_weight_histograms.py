"""Histograms of weights, gradients and activations in TensorBoard, from before the first step on."""

import os
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initx.callbacks._depth import number_layers
from keras_initx.callbacks._measurement import Measurement
from keras_initx.callbacks._stepped import Stepped
from keras_initx.checks import check_count
from keras_initx.gradients import to_numpy
from keras_initx.summaries import EventWriter

__all__ = ["WeightHistograms"]


class WeightHistograms(Stepped):
    """Histograms in TensorBoard: at step 0, before training, and after each epoch or some batches.

    Steps count what is finished: step 0 is the initialization, step e the state after e epochs, with
    `every=n` step k that after k batches. `keras.callbacks.TensorBoard` numbers differently, its step e is
    the state after epoch e + 1, and never writes the initialization. Both may write under the same folder:
    Keras' files go into `train/` and `validation/`, these into the folder itself.

    Tags are `<kind>/<number>_<path of the layer>`, followed by the weight's name; layers are numbered in the
    order in which they first run. What each call of a layer that runs several times returns has a tag of its
    own, with `_2` and so on. NaN and Inf are left out of a histogram and counted by a scalar,
    `nonfinite_fraction/...`. It works on all backends and imports no TensorFlow.

    Gradients and activations are measured on `data`, on the model as it is at that step, without dropout and
    with the moving statistics of normalizations; the model stays as it is.

    >>> import tempfile, keras
    >>> from keras_initx.summaries import last_step
    >>> x, y = np.ones((8, 3)), np.zeros((8, 1))
    >>> model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     callback = WeightHistograms(folder, gradients=True, activations=True, data=(x, y))
    ...     history = model.fit(x, y, epochs=2, verbose=0, callbacks=[callback])
    ...     last_step(folder)
    2

    Args:
        log_dir: A local folder, which is made when there is none, or a URL, as in
            `keras_initx.summaries.check_log_dir`. When `fit` goes on with a model that was trained, with an
            `initial_epoch`, after `keras.callbacks.BackupAndRestore` or called a second time, a new file goes
            on after the steps that are there, and TensorBoard drops what an interrupted run had written
            beyond the step that it is resumed from.
        weights: Whether to write all weights.
        gradients: Whether to write the gradient of the compiled loss by each trainable weight.
        activations: Whether to write what each layer with kernels, and each layer that is an activation,
            returns.
        update_ratio: Whether to write, as a scalar for each trainable weight, the root mean square of its
            change since the last step written, over that of the weight. It takes a copy of these weights.
        data: For gradients and activations, as in `keras_initx.data.take_pair`: its first 256 rows are used,
            the same at each step.
        targets: The targets of the gradients, where `data` does not bring them.
        every: `"epoch"`, or a number of batches.
        bins: Number of buckets of a histogram.

    Raises:
        TypeError: If an argument is not of its type.
        ValueError: If it has no meaning, or `data` is missing; when training starts, if the data does not fit
            the model, or the model is not built: it has no initialization to write yet.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        *,
        weights: bool = True,
        gradients: bool = False,
        activations: bool = False,
        update_ratio: bool = False,
        data: Any = None,
        targets: Any = None,
        every: str | int = "epoch",
        bins: int = 30,
    ) -> None:
        super().__init__(log_dir, every)
        self._kinds = {
            "weights": weights,
            "gradients": gradients,
            "activations": activations,
            "update_ratio": update_ratio,
        }
        _check_kinds(self._kinds, data)
        self._bins = check_count("bins", bins)
        self._data, self._targets = data, targets
        self._measurement: Measurement | None = None
        self._before: dict[str, np.ndarray] = {}

    def _prepare(self, again: bool) -> None:
        model = self.model
        self._layers = number_layers(model)
        self._weights = {tag: variable for layer in self._layers for tag, variable in layer.weights.items()}
        self._tag_of = {id(variable): tag for tag, variable in self._weights.items()}
        if self._kinds["gradients"] or self._kinds["activations"]:
            self._measurement = Measurement(model, self._data, self._targets, self._kinds["gradients"])
        if again and self._kinds["update_ratio"]:
            # The run before has written this state, and the change that led to it.
            for variable in model.trainable_variables:
                self._before[self._tag_of[id(variable)]] = np.array(_read(variable.value))

    def _release(self) -> None:
        self._measurement, self._before = None, {}

    def _write(self, writer: EventWriter) -> None:
        model = self.model
        if self._kinds["weights"]:
            for tag, variable in self._weights.items():
                self._histogram(writer, f"weights/{tag}", variable.value)
        if self._kinds["update_ratio"]:
            for variable in model.trainable_variables:
                self._write_ratio(writer, self._tag_of[id(variable)], _read(variable.value))
        if self._measurement and self._kinds["gradients"]:
            found = zip(model.trainable_variables, self._measurement.gradients(), strict=True)
            for variable, gradient in found:
                self._histogram(writer, f"gradients/{self._tag_of[id(variable)]}", gradient)
        if self._measurement and self._kinds["activations"]:
            shown = [layer for layer in self._layers if layer.is_shown]

            def show(number: int, before: int, output: Any) -> None:
                call = f"_{before + 1}" if before else ""
                self._histogram(writer, f"activations/{shown[number].tag}{call}", output)

            self._measurement.activations([layer.layer for layer in shown], show)

    def _write_ratio(self, writer: EventWriter, tag: str, values: np.ndarray) -> None:
        if tag in self._before:
            change, size = _rms(values - self._before[tag]), _rms(values)
            writer.scalar(f"update_ratio/{tag}", change / size if size else change and np.inf, self._step)
        self._before[tag] = np.array(values)  # not the view of the variable that some backends give

    def _histogram(self, writer: EventWriter, tag: str, tensor: Any) -> None:
        writer.histogram(tag, _read(tensor), self._step, self._bins)


def _read(tensor: Any) -> np.ndarray:
    """A tensor's or variable's values, without the copies that Keras makes of them on TensorFlow."""
    if keras.backend.backend() == "tensorflow" and len(tensor.shape):
        return np.asarray(ops.copy(tensor))  # of a handle: the buffer behind it
    return to_numpy(tensor)


def _rms(values: np.ndarray) -> float:
    flat = values.reshape(-1).astype(np.promote_types(values.dtype, np.float32), copy=False)
    return float(np.linalg.norm(flat)) / max(flat.size, 1) ** 0.5


def _check_kinds(kinds: dict[str, Any], data: Any) -> None:
    for name, value in kinds.items():
        if not isinstance(value, bool):
            raise TypeError(
                f"`{name}` must be True or False: whether to write that. Received: {name}={value!r}."
            )
    if not any(kinds.values()):
        raise ValueError(
            f"One of {sorted(kinds)} must be True. Received: {', '.join(f'{name}=False' for name in kinds)}."
        )
    measured = [name for name in ("gradients", "activations") if kinds[name]]
    if measured and data is None:
        raise ValueError(
            f"`data` must be given where `{measured[0]}` is True: `fit` does not show its data to callbacks. "
            "Received: data=None. Pass inputs, or a pair (x, y) for gradients."
        )
