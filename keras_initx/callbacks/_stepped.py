"""The base of the callbacks that write TensorBoard files: when a state is written, and under which step."""

import os
from typing import Any

import keras
from keras import ops

from keras_initx._types import Model
from keras_initx.callbacks._processes import Silent, is_first, of_first
from keras_initx.checks import is_whole
from keras_initx.summaries import EventWriter, check_log_dir, last_step

__all__ = ["Stepped"]


class Stepped(keras.callbacks.Callback):
    """Writes the state of a model before training, and then after each epoch or after every n batches.

    A subclass defines `_write(writer)`, which writes the state of `self.model` at `self._step`. It may define
    `_prepare(again)`, called once before the first state, and `_release()`, called after the last state.

    Steps count finished epochs, or finished batches with `every=n`. A `fit` that goes on with a trained model
    goes on with the steps, too. The first step of a `fit` is the first of these that is not 0:

        every="epoch":  the epoch that `fit` begins with  ->  if the model was trained, the folder's last step
        every=n:        the optimizer's count of batches  ->  if `fit` begins later than epoch 0, the same
        else 0

    Args:
        log_dir: A local folder, which is made if it is missing, or a URL such as `gs://bucket/runs`.
        every: `"epoch"`, or a number of batches.
    """

    def __init__(self, log_dir: str | os.PathLike[str], every: str | int) -> None:
        super().__init__()
        self.log_dir = check_log_dir(log_dir)
        if every != "epoch" and (not is_whole(every) or every < 1):
            raise ValueError(f'`every` must be a positive int or "epoch". Received: every={every!r}.')
        self._every = every if isinstance(every, str) else int(every)
        # Keras reads this: by epochs no result of a batch is needed, so that Keras need not wait for one.
        self.async_safe = self._every == "epoch"
        self._writer: Any = None
        self._step = self._epoch_began = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the file that an interrupted `fit` left open; Keras calls no `on_train_end` for it."""
        self.on_train_end()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the state before the first epoch of this `fit`."""
        if self._writer is None:
            self._start(epoch)
        self._epoch_began = self._step

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the state after every n batches, if `every` is n."""
        if isinstance(self._every, int):
            before, self._step = self._step, self._epoch_began + batch + 1
            # With `steps_per_execution` Keras calls this once for several batches, so that a multiple of n
            # may be passed without being hit.
            if self._step // self._every > before // self._every:
                self._write_state()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the state after an epoch, if `every` is `"epoch"`."""
        if self._every == "epoch":
            self._step += 1
            self._write_state()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the file and releases memory."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None
        self._release()

    def _start(self, epoch: int) -> None:
        model = self.model
        if not model.weights:
            raise ValueError(
                "`model` must be built before `fit` starts: step 0 is its initialization. Received: "
                f"`{model.name}` without weights. Call it on one batch, or `model.build(input_shape)`, first."
            )
        batches = _count_batches(model)
        known = epoch if self._every == "epoch" else batches
        # A second `fit` counts its epochs from 0 again; the folder tells where the first `fit` ended.
        held = self._last_step() if batches or epoch else None
        self._step = known or held or 0
        # The previous run wrote this very state when it ended: the file would hold it twice.
        again = held == self._step
        self._prepare(again)
        self._writer = EventWriter(self.log_dir, self._step + again) if is_first() else Silent()
        if not again:
            self._write_state()

    def _last_step(self) -> int | None:
        """The last step in the folder, as the first process sees it: the others may have no such folder."""
        held = last_step(self.log_dir) if is_first() else None
        found = of_first(-1 if held is None else held)
        return None if found < 0 else found

    def _write_state(self) -> None:
        self._write(self._writer)
        self._writer.flush()

    def _prepare(self, again: bool) -> None:
        """Gets ready for the first state; `again` tells whether an earlier run has written that state."""

    def _release(self) -> None:
        """Releases memory after the last state."""

    def _write(self, writer: EventWriter) -> None:
        raise NotImplementedError


def _count_batches(model: Model) -> int:
    """Returns how many batches the optimizer of a compiled model has seen, on one replica."""
    # A LossScaleOptimizer counts and accumulates in the optimizer that it wraps.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    # Not `iterations`: with accumulated gradients it counts steps, and misses the batches since the last one.
    count = next(variable for variable in optimizer.variables if variable.name == "iteration")
    return int(ops.convert_to_numpy(count))
