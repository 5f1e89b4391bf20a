"""Histograms of weights, gradients and activations in TensorBoard, from before the first step on."""

import os
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initx._types import Arrays, Data, Tensor
from keras_initx.callbacks._depth import number_layers
from keras_initx.callbacks._measurement import Measurement
from keras_initx.callbacks._stepped import Stepped
from keras_initx.checks import check_count
from keras_initx.gradients import to_numpy
from keras_initx.summaries import EventWriter

__all__ = ["WeightHistograms"]


class WeightHistograms(Stepped):
    """Writes histograms of weights, gradients and activations to TensorBoard, from before training on.

    Steps count finished epochs: step 0 is the initialization, step e the state after e epochs. With
    `every=n`, step k is the state after k batches. `keras.callbacks.TensorBoard` numbers differently: its
    step e is the state after epoch e + 1, and it never writes the initialization. Both callbacks may write
    under the same folder: Keras' files go into `train/` and `validation/`, these into the folder itself.

    A tag is `<kind>/<number>_<path of the layer>`, followed by the weight's name. Layers are numbered in the
    order in which they first run. A layer that runs several times has a tag for the output of each call, with
    `_2` and so on. NaN and Inf are left out of a histogram; the scalar `nonfinite_fraction/...` counts them.
    The callback works on all backends and imports no TensorFlow.

    Gradients and activations are measured on `data` with the weights of that step, without dropout and with
    the moving statistics of normalizations. Measuring does not change the model.

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
        log_dir: A local folder, which is made if it is missing, or a URL such as `gs://bucket/runs`. If
            `fit` goes on with a trained model (with an `initial_epoch`, after
            `keras.callbacks.BackupAndRestore`, or in a second `fit`), a new file goes on after the steps in
            the folder. TensorBoard then drops the steps that an interrupted run wrote after the step from
            which training resumes.
        weights: Whether to write all weights.
        gradients: Whether to write the gradient of the compiled loss with respect to each trainable weight.
        activations: Whether to write the outputs of each layer with kernels, and of each layer that is an
            activation.
        update_ratio: Whether to write a scalar for each trainable weight: the root mean square of its change
            since the last written step, divided by the root mean square of the weight. The callback then
            keeps a copy of these weights.
        data: Data for gradients and activations: an array; a dict, tuple or list of arrays; or a
            `tf.data.Dataset` or another iterable of batches. A pair (x, y) brings its targets. The first 256
            rows are used, the same at each step.
        targets: The targets for gradients, if `data` does not bring them.
        every: `"epoch"`, or a number of batches: how often to write.
        bins: Number of buckets of a histogram.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range, or `data` is missing. When training starts, if the
            data does not fit the model, or the model is not built and so has no initialization to write yet.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        *,
        weights: bool = True,
        gradients: bool = False,
        activations: bool = False,
        update_ratio: bool = False,
        data: Data | None = None,
        targets: Arrays | None = None,
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
            # The previous run wrote this state and its change: the next change is measured from here.
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

            def show(number: int, before: int, output: Tensor) -> None:
                call = f"_{before + 1}" if before else ""
                self._histogram(writer, f"activations/{shown[number].tag}{call}", output)

            self._measurement.activations([layer.layer for layer in shown], show)

    def _write_ratio(self, writer: EventWriter, tag: str, values: np.ndarray) -> None:
        if tag in self._before:
            change, size = _rms(values - self._before[tag]), _rms(values)
            writer.scalar(f"update_ratio/{tag}", change / size if size else change and np.inf, self._step)
        # A copy: some backends give a view of the variable, which would change with the next step.
        self._before[tag] = np.array(values)

    def _histogram(self, writer: EventWriter, tag: str, tensor: Tensor) -> None:
        writer.histogram(tag, _read(tensor), self._step, self._bins)


def _read(tensor: Tensor) -> np.ndarray:
    """The values of a tensor or variable, without the copies that Keras makes on TensorFlow."""
    if keras.backend.backend() == "tensorflow" and len(tensor.shape):
        return np.asarray(ops.copy(tensor))  # a variable's value is a handle; its copy is the buffer
    return to_numpy(tensor)


def _rms(values: np.ndarray) -> float:
    # Half precision overflows when it is squared: at least float32.
    flat = values.reshape(-1).astype(np.promote_types(values.dtype, np.float32), copy=False)
    return float(np.linalg.norm(flat)) / max(flat.size, 1) ** 0.5


def _check_kinds(kinds: dict[str, Any], data: Data | None) -> None:
    for name, value in kinds.items():
        if not isinstance(value, bool):
            raise TypeError(
                f"`{name}` must be True or False: whether to write {name}. Received: {name}={value!r}."
            )
    if not any(kinds.values()):
        raise ValueError(
            f"One of {sorted(kinds)} must be True. Received: {', '.join(f'{name}=False' for name in kinds)}."
        )
    measured = [name for name in ("gradients", "activations") if kinds[name]]
    if measured and data is None:
        raise ValueError(
            f"`data` must be given if `{measured[0]}` is True: Keras does not show the data of `fit` to "
            "callbacks. Received: data=None. Pass inputs, or a pair (x, y) for gradients."
        )
