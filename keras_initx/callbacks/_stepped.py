"""Callbacks that write into a folder of TensorBoard's, from before the first step on."""

import os
from typing import Any

import keras
from keras import ops

from keras_initx.callbacks._processes import Silent, is_first, of_first
from keras_initx.checks import is_whole
from keras_initx.summaries import EventWriter, check_log_dir, last_step

__all__ = ["Stepped"]


class Stepped(keras.callbacks.Callback):
    """Base of the callbacks that write a state before training and after each epoch or some batches.

    A class derived from it has `_write(writer)`, which writes the state of `self.model` at `self._step`, and
    may have `_prepare(again)`, called once before the first, and `_release()`, called after the last.

    Args:
        log_dir: As in `WeightHistograms`.
        every: `"epoch"`, or a number of batches.
    """

    def __init__(self, log_dir: str | os.PathLike[str], every: str | int) -> None:
        super().__init__()
        self.log_dir = check_log_dir(log_dir)
        if every != "epoch" and (not is_whole(every) or every < 1):
            raise ValueError(f'`every` must be a positive int or "epoch". Received: every={every!r}.')
        self._every = every if isinstance(every, str) else int(every)
        # Tells Keras that it need not wait for the results of each batch: by epochs, none is looked at.
        self.async_safe = self._every == "epoch"
        self._writer: Any = None
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
                self._write_state()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes the state after an epoch."""
        if self._every == "epoch":
            self._step += 1
            self._write_state()

    def on_train_end(self, logs: Any = None) -> None:
        """Closes the file, and lets go of what was kept."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None
        self._release()

    def _start(self, epoch: int) -> None:
        model = self.model
        if not model.weights:
            raise ValueError(
                f"`model` must be built before `fit` for step 0 to be written. Received: `{model.name}` "
                "without weights. Call it on one batch, or `model.build(input_shape)`, first."
            )
        batches = _count_batches(model)
        known = epoch if self._every == "epoch" else batches
        # A second `fit` counts its epochs from 0 again: the folder tells where the first has come to.
        held = self._last_step() if batches or epoch else None
        self._step = known or held or 0
        # The run before has written this state where it ended.
        again = held == self._step
        self._prepare(again)
        self._writer = EventWriter(self.log_dir, self._step + again) if is_first() else Silent()
        if not again:
            self._write_state()

    def _last_step(self) -> int | None:
        """The last step that the folder of the first process holds: others may have none."""
        held = last_step(self.log_dir) if is_first() else None
        found = of_first(-1 if held is None else held)
        return None if found < 0 else found

    def _write_state(self) -> None:
        self._write(self._writer)
        self._writer.flush()

    def _prepare(self, again: bool) -> None:
        """Gets ready for the first state; `again` is whether an earlier run has written it."""

    def _release(self) -> None:
        """Lets go of what was kept."""

    def _write(self, writer: EventWriter) -> None:
        raise NotImplementedError


def _count_batches(model: Any) -> int:
    """Returns the batches that a compiled model's optimizer has seen, also where it is replicated."""
    # A LossScaleOptimizer counts and accumulates in the one that it holds.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    # Not `iterations`: of accumulated gradients it counts the steps, and leaves out the batches since.
    count = next(variable for variable in optimizer.variables if variable.name == "iteration")
    return int(ops.convert_to_numpy(count))
