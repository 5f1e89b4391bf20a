"""Histograms of weights, gradients and activations in TensorBoard, from before the first step on."""

import numbers
import os
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initx.callbacks._depth import number_layers
from keras_initx.callbacks._measurement import Measurement
from keras_initx.summaries import EventWriter, check_log_dir, last_step

__all__ = ["WeightHistograms"]


class WeightHistograms(keras.callbacks.Callback):
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

    >>> import tempfile
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
        super().__init__()
        self.log_dir = check_log_dir(log_dir)
        self._kinds = {
            "weights": weights,
            "gradients": gradients,
            "activations": activations,
            "update_ratio": update_ratio,
        }
        _check_kinds(self._kinds, data)
        self._every = every if isinstance(every, str) and every == "epoch" else _positive("every", every)
        self._bins = _positive("bins", bins)
        self._data, self._targets = data, targets
        self._writer: EventWriter | None = None
        self._measurement: Measurement | None = None
        self._before: dict[str, np.ndarray] = {}
        self._step = self._epoch_began = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Closes what an interrupted `fit`, which never ends its training, has left open."""
        self.on_train_end()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Writes the state before the first epoch that is trained."""
        if self._writer is None:
            self._start(epoch)
        self._epoch_began = self._step

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Writes the state after every so many batches."""
        if isinstance(self._every, int):
            before, self._step = self._step, self._epoch_began + batch + 1
            # Not each batch is told of where Keras runs several at a time.
            if self._step // self._every > before // self._every:
                self._write()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes the state after an epoch."""
        if self._every == "epoch":
            self._step += 1
            self._write()

    def on_train_end(self, logs: Any = None) -> None:
        """Closes the file, and lets go of what was kept."""
        if self._writer is not None:
            self._writer.close()
        self._writer, self._measurement, self._before = None, None, {}

    def _start(self, epoch: int) -> None:
        model = self.model
        if not model.weights:
            raise ValueError(
                f"`model` must be built before `fit` for step 0 to be written. Received: `{model.name}` "
                "without weights. Call it on one batch, or `model.build(input_shape)`, first."
            )
        self._layers = number_layers(model)
        self._weights = {tag: variable for layer in self._layers for tag, variable in layer.weights.items()}
        self._tag_of = {id(variable): tag for tag, variable in self._weights.items()}
        if self._kinds["gradients"] or self._kinds["activations"]:
            self._measurement = Measurement(model, self._data, self._targets, self._kinds["gradients"])
        optimizer = model.optimizer
        batches = int(optimizer.iterations) * (optimizer.gradient_accumulation_steps or 1)
        known = epoch if self._every == "epoch" else batches
        # A second `fit` counts its epochs from 0 again: the folder tells where the first has come to.
        held = last_step(self.log_dir) if batches or epoch else None
        self._step = known or held or 0
        again = held == self._step
        self._writer = EventWriter(self.log_dir, first_step=self._step + again)
        if not again:
            self._write()
        elif self._kinds["update_ratio"]:
            # The run before has written this state, and the change that led to it.
            for variable in model.trainable_variables:
                self._before[self._tag_of[id(variable)]] = np.array(ops.convert_to_numpy(variable.value))

    def _write(self) -> None:
        model, writer = self.model, self._writer
        assert writer is not None
        if self._kinds["weights"]:
            for tag, variable in self._weights.items():
                self._histogram(writer, f"weights/{tag}", variable.value)
        if self._kinds["update_ratio"]:
            for variable in model.trainable_variables:
                self._write_ratio(writer, self._tag_of[id(variable)], ops.convert_to_numpy(variable.value))
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
        writer.flush()

    def _write_ratio(self, writer: EventWriter, tag: str, values: np.ndarray) -> None:
        if tag in self._before:
            change, size = _rms(values - self._before[tag]), _rms(values)
            writer.scalar(f"update_ratio/{tag}", change / size if size else change and np.inf, self._step)
        self._before[tag] = np.array(values)  # not the view of the variable that some backends give

    def _histogram(self, writer: EventWriter, tag: str, tensor: Any) -> None:
        writer.histogram(tag, ops.convert_to_numpy(tensor), self._step, self._bins)


def _rms(values: np.ndarray) -> float:
    flat = values.reshape(-1).astype(np.promote_types(values.dtype, np.float32), copy=False)
    return float(np.linalg.norm(flat)) / max(flat.size, 1) ** 0.5


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        allowed = ' or "epoch"' if name == "every" else ""
        raise ValueError(f"`{name}` must be a positive int{allowed}. Received: {name}={value!r}.")
    return int(value)


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
