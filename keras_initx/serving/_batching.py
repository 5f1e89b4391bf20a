"""Batches without a timer: run at once when free; what arrives meanwhile is the next batch."""

import asyncio
import contextlib
import dataclasses
import logging
import queue
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_initx.serving._errors import ServingError
from keras_initx.serving._loaded import LoadedModel, Signature

__all__ = ["Batcher", "Limits"]

_log = logging.getLogger(__name__)
# What TensorFlow says with these codes is about the machine and the code, and of no use to a client.
_NOT_OF_THE_REQUEST = ("DATA_LOSS", "INTERNAL", "UNKNOWN")
_FAILED = "The model failed on this request; the server's log says why."


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one version takes at a time.

    Attributes:
        max_batch_rows: Rows that are run together; a request of more is run alone and whole.
        max_queue: Requests that wait behind the one that runs.
        max_queue_bytes: Bytes of their inputs.
    """

    max_batch_rows: int = 128
    max_queue: int = 1000
    max_queue_bytes: int = 256 * 2**20

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1. Received: {name}={value}. Leave it out.")


@dataclasses.dataclass(eq=False, slots=True)
class _Request:
    future: asyncio.Future[dict[str, np.ndarray]]
    signature: Signature
    inputs: Mapping[str, np.ndarray]
    outputs: tuple[str, ...]
    rows: int = 1
    key: Hashable = None
    size: int = 0


class _NotByRowsError(Exception):
    """An output whose first dimension does not count the rows of the inputs."""


class Batcher:
    """Runs the requests of one version, one batch at a time, in a thread of its own.

    An answer does not depend on what else is asked meanwhile. So only requests of a signature that is marked
    as `batched` are run together, and of those the ones with the same outputs and equal shapes but for the
    rows. All others run alone: also inputs of unequal or no rows, and every signature that once answered with
    another number of rows. A batch that fails is run again in halves, and so on, so that a bad request fails
    alone.

    All but `_work` and what it calls runs in the event loop, so nothing is locked.

    Args:
        model: Runs; closed by its owner, after `close`.
        limits: What is run together and what may wait.
        observe: Called in the loop with the rows of every batch that is started.
    """

    def __init__(
        self, model: LoadedModel, limits: Limits, observe: Callable[[int], None] | None = None
    ) -> None:
        self._model = model
        self._limits = limits
        self._observe = observe
        self._waiting: dict[Hashable, dict[_Request, None]] = {}
        self._count = self._size = 0
        self._alone: set[str] = set()
        self._batches: queue.SimpleQueue[list[_Request] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._asked = 0

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return self._count

    async def run(
        self, signature: Signature, inputs: Mapping[str, np.ndarray], outputs: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        """Runs a signature, perhaps together with other requests; see `Version.run`."""
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
            del request  # else an error, its traceback, this frame and the request would hold each other

    async def drain(self, quiet: float) -> None:
        """Returns when nothing runs or waits and nothing has been asked for `quiet` seconds."""
        asked = -1
        while asked != self._asked or not self._idle.is_set():
            asked = self._asked
            await self._idle.wait()
            await asyncio.sleep(quiet)

    def close(self) -> None:
        """Ends the thread; nothing may run, and what is asked from now on is refused."""
        self._closed = True
        self._batches.put(None)

    def join(self) -> None:
        """Blocks until the thread has ended."""
        if self._thread:
            self._thread.join()

    def _place(self, request: _Request) -> None:
        signature = request.signature
        shapes = [request.inputs[name].shape for name in signature.inputs]
        rows = {shape[0] if shape else 0 for shape in shapes}
        request.key = request
        if len(rows) == 1 and 0 not in rows:
            (request.rows,) = rows
            if signature.batched and signature.key not in self._alone:
                request.key = (signature.key, request.outputs, *(shape[1:] for shape in shapes))

    def _enqueue(self, request: _Request) -> None:
        limits = self._limits
        request.size = sum(map(_bytes_of, request.inputs.values()))
        full = self._count >= limits.max_queue
        if full or (self._count and self._size + request.size > limits.max_queue_bytes):
            raise ServingError("RESOURCE_EXHAUSTED", f"{self._count} requests wait already: try again later.")
        self._waiting.setdefault(request.key, {})[request] = None
        self._count += 1
        self._size += request.size

    def _forget(self, request: _Request) -> None:
        group = self._waiting.get(request.key, {})
        if request in group:
            del group[request]
            if not group:
                del self._waiting[request.key]
            self._count -= 1
            self._size -= request.size

    def _next(self) -> list[_Request]:
        key = next(iter(self._waiting))
        batch: list[_Request] = []
        rows = 0
        for request in self._waiting[key]:
            rows += request.rows
            if batch and rows > self._limits.max_batch_rows:
                break
            batch.append(request)
        for request in batch:
            self._forget(request)
        if key in self._waiting:  # the rest goes to the end, so that other keys have their turn
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

    def _finish(self, batch: list[_Request], answers: Sequence[Any]) -> None:
        for request, answer in zip(batch, answers, strict=True):
            if request.future.done():  # cancelled
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
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._finish, batch, answers)
            del batch, answers

    def _answers(self, batch: list[_Request]) -> Sequence[Any]:
        if len(batch) == 1:
            return [self._one(batch[0])]
        try:
            return self._together(batch)
        except _NotByRowsError:
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
            value.flags.writeable = False  # the answers are views of it: nobody may change another's
        return [
            {name: value[end - request.rows : end] for name, value in outputs.items()}
            for request, end in zip(batch, ends, strict=True)
        ]

    def _one(self, request: _Request) -> dict[str, np.ndarray] | ServingError | None:
        if request.future.cancelled():
            return None
        try:
            return self._model.run(request.signature, request.inputs, request.outputs)
        except ServingError as error:
            if error.code not in _NOT_OF_THE_REQUEST:
                return ServingError(error.code, error.message)  # without the frames that hold the inputs
            _log.exception("A run of signature %r failed", request.signature.key)
            return ServingError(error.code, _FAILED)
        except Exception:
            _log.exception("A run of signature %r failed", request.signature.key)
            return ServingError("INTERNAL", _FAILED)


def _bytes_of(array: np.ndarray) -> int:
    return array.nbytes + (sum(map(len, array.flat)) if array.dtype == object else 0)
