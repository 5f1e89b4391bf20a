"""Batches without a timer: a request runs at once if the model is free; waiting requests form the next batch.

Requests A, B and C arrive one after the other, and B and C may run together:

    event loop                                      thread "initx-run"
    --------------------------------------------    --------------------------------------------------
    run(A)    idle, so start [A]           -- A --> the model runs A
    run(B)    busy, so B waits in a group                 :
    run(C)    busy, so C joins B's group                  :
    _finish   answer A, start [B, C]      <-- A --  done
                                        -- B, C --> the model runs the rows of B and C as one tensor
    _finish   answer B and C            <-- B, C -- the outputs are cut back into rows of B and rows of C

So a lone request never waits for company, and under load the batches grow by themselves.

Requests are in one group if they have the same key: the same signature, the same outputs, and equal shapes
apart from the rows. A request that must run alone is its own key. Groups take turns: the oldest group runs
first, and if more of it waits than one batch holds, the rest goes to the end of the line.
"""

import asyncio
import contextlib
import dataclasses
import logging
import queue
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from keras_initx.serving._errors import ServingError
from keras_initx.serving._limits import Limits
from keras_initx.serving._loaded import LoadedModel, Signature

__all__ = ["Batcher"]

_log = logging.getLogger(__name__)
# Messages with these codes are about this machine and its code. They go to the log, not to the client.
_NOT_OF_THE_REQUEST = ("DATA_LOSS", "INTERNAL", "UNKNOWN")
_FAILED = "The model failed on this request; the server's log says why."


@dataclasses.dataclass(eq=False, slots=True)
class _Request:
    """A request on its way.

    Attributes:
        future: Where the caller waits for the outputs.
        signature: The signature to run.
        inputs: The inputs by name.
        outputs: The names of the outputs to compute.
        rows: The rows of the inputs; 1 where they cannot be counted.
        key: Requests with equal keys may run together.
        size: The bytes of the inputs, while the request waits.
    """

    future: asyncio.Future[dict[str, np.ndarray]]
    signature: Signature
    inputs: Mapping[str, np.ndarray]
    outputs: tuple[str, ...]
    rows: int = 1
    key: Hashable = None
    size: int = 0


# The outputs of a request, its error, or None for a request that was cancelled before it ran.
_Answer: TypeAlias = dict[str, np.ndarray] | ServingError | None


class _NotByRowsError(Exception):
    """The first dimension of an output does not count the rows of the inputs."""


class Batcher:
    """Runs the requests of one version, one batch at a time, in a thread of its own.

    The rule is: no answer depends on other clients' requests. So two requests run together only if their
    signature is marked as `batched`, they ask for the same outputs, and their shapes are equal apart from the
    rows. A request runs alone if its inputs have different numbers of rows, or no rows. So does every request
    of a signature that once returned another number of rows than it was given.

    A batch that fails is run again in halves, and the halves in halves. So only the bad request fails.

    The thread runs `_work` and the methods that it calls. Everything else runs in the event loop, so no lock
    is needed.

    Args:
        model: The loaded model. Its owner closes it, after `close` and `join`.
        limits: The limits for batches and for the queue.
        observe: Called in the loop for every batch that starts, with its number of rows.
    """

    def __init__(
        self, model: LoadedModel, limits: Limits, observe: Callable[[int], None] | None = None
    ) -> None:
        self._model = model
        self._limits = limits
        self._observe = observe
        # Groups of waiting requests by key, in the order of their turns. The inner dicts are ordered sets, so
        # that a cancelled request leaves at once.
        self._waiting: dict[Hashable, dict[_Request, None]] = {}
        self._count = self._size = 0
        self._alone: set[str] = set()  # signatures that returned another number of rows
        self._batches: queue.SimpleQueue[list[_Request] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._asked = 0

    @property
    def waiting(self) -> int:
        """The number of requests that wait."""
        return self._count

    async def run(
        self, signature: Signature, inputs: Mapping[str, np.ndarray], outputs: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        """Runs a signature, perhaps in one batch with other requests; see `Version.run`."""
        if self._closed:
            raise ServingError("UNAVAILABLE", "The version is unloaded: ask again.")
        request = _Request(asyncio.get_running_loop().create_future(), signature, inputs, outputs)
        self._place(request)
        self._asked += 1
        if self._idle.is_set():
            self._start([request])
        else:
            self._enqueue(request)
        try:
            return await request.future
        except asyncio.CancelledError:
            self._forget(request)
            raise
        finally:
            # An error holds its traceback, which holds this frame, which would hold the request and its
            # inputs.
            del request

    async def drain(self, quiet: float) -> None:
        """Returns when nothing runs or waits, and no request came for `quiet` seconds."""
        asked = -1
        while asked != self._asked or not self._idle.is_set():
            asked = self._asked
            await self._idle.wait()
            await asyncio.sleep(quiet)

    def close(self) -> None:
        """Refuses all requests from now on, and ends the thread. Nothing may be running."""
        self._closed = True
        self._batches.put(None)

    def join(self) -> None:
        """Blocks until the thread has ended."""
        if self._thread:
            self._thread.join()

    def _place(self, request: _Request) -> None:
        """Sets the request's rows and key: its own key if it must run alone."""
        signature = request.signature
        shapes = [request.inputs[name].shape for name in signature.inputs]
        rows = {shape[0] if shape else 0 for shape in shapes}
        request.key = request
        if len(rows) == 1 and 0 not in rows:
            (request.rows,) = rows
            if signature.batched and signature.key not in self._alone:
                request.key = (signature.key, request.outputs, *(shape[1:] for shape in shapes))

    def _enqueue(self, request: _Request) -> None:
        """Adds a request to its group, or raises RESOURCE_EXHAUSTED."""
        limits = self._limits
        request.size = sum(map(_bytes_of, request.inputs.values()))
        full = self._count >= limits.max_queue
        if full or (self._count and self._size + request.size > limits.max_queue_bytes):
            raise ServingError("RESOURCE_EXHAUSTED", f"{self._count} requests wait already: try again later.")
        self._waiting.setdefault(request.key, {})[request] = None
        self._count += 1
        self._size += request.size

    def _forget(self, request: _Request) -> None:
        """Takes a request out of the queue, if it is there."""
        group = self._waiting.get(request.key, {})
        if request in group:
            del group[request]
            if not group:
                del self._waiting[request.key]
            self._count -= 1
            self._size -= request.size

    def _next(self) -> list[_Request]:
        """Takes the next batch out of the queue: from the first group, as many requests as fit."""
        key = next(iter(self._waiting))
        batch: list[_Request] = []
        rows = 0
        for request in self._waiting[key]:
            rows += request.rows
            if batch and rows > self._limits.max_batch_rows:  # the first request fits always, however large
                break
            batch.append(request)
        for request in batch:
            self._forget(request)
        if key in self._waiting:  # the rest goes to the end, so that other groups have their turn
            self._waiting[key] = self._waiting.pop(key)
        return batch

    def _start(self, batch: list[_Request]) -> None:
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._work, name="initx-run", daemon=True)
            self._thread.start()
        self._idle.clear()
        self._batches.put(batch)
        if self._observe:
            self._observe(sum(request.rows for request in batch))

    def _finish(self, batch: list[_Request], answers: Sequence[_Answer]) -> None:
        """Answers a batch that has run, and starts the next one; called in the loop."""
        for request, answer in zip(batch, answers, strict=True):
            if answer is None or request.future.done():  # cancelled before or during the run
                continue
            if isinstance(answer, ServingError):
                request.future.set_exception(answer)
            else:
                request.future.set_result(answer)
        if self._waiting:
            self._start(self._next())
        else:
            self._idle.set()

    def _work(self) -> None:
        while batch := self._batches.get():
            answers = self._answers(batch)
            with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits for answers
                self._loop.call_soon_threadsafe(self._finish, batch, answers)
            del batch, answers  # this thread now waits, perhaps for hours, and must not keep large arrays

    def _answers(self, batch: list[_Request]) -> Sequence[_Answer]:
        if len(batch) == 1:
            return [self._one(batch[0])]
        try:
            return self._together(batch)
        except _NotByRowsError:  # the mark was wrong: this signature never runs in batches again
            self._alone.add(batch[0].signature.key)
            return [self._one(request) for request in batch]
        except Exception as error:
            _log.info("A batch of %s requests is run in two halves: %s", len(batch), error)
            half = len(batch) // 2
            return [*self._answers(batch[:half]), *self._answers(batch[half:])]

    def _together(self, batch: list[_Request]) -> list[dict[str, np.ndarray]]:
        first = batch[0]
        inputs = {
            name: np.concatenate([request.inputs[name] for request in batch])
            for name in first.signature.inputs
        }
        ends = np.cumsum([request.rows for request in batch]).tolist()
        outputs = self._model.run(first.signature, inputs, first.outputs)
        if any(np.shape(value)[:1] != (ends[-1],) for value in outputs.values()):
            raise _NotByRowsError
        for value in outputs.values():
            value.flags.writeable = (
                False  # the answers are views of it: no client's code may change another's
            )
        return [
            {name: value[end - request.rows : end] for name, value in outputs.items()}
            for request, end in zip(batch, ends, strict=True)
        ]

    def _one(self, request: _Request) -> _Answer:
        if request.future.cancelled():
            return None
        try:
            return self._model.run(request.signature, request.inputs, request.outputs)
        except ServingError as error:
            if error.code not in _NOT_OF_THE_REQUEST:
                # A fresh error, without a traceback: its frames would keep the inputs in memory.
                return ServingError(error.code, error.message)
            _log.exception("A run of signature %r failed", request.signature.key)
            return ServingError(error.code, _FAILED)
        except Exception:
            _log.exception("A run of signature %r failed", request.signature.key)
            return ServingError("INTERNAL", _FAILED)


def _bytes_of(array: np.ndarray) -> int:
    # For objects, `nbytes` counts the pointers to the strings, not the strings.
    return array.nbytes + (sum(map(len, array.flat)) if array.dtype == object else 0)
