"""The life of one server process: it loads, answers, drains and ends.

uvicorn runs `Running` as its ASGI application. The socket listens before the models are loaded. Until then,
requests are answered with 503. One of several workers does not accept requests before its models are loaded,
because another worker may answer already.

The end takes a few steps, so that no request is lost. Time runs from SIGTERM or Ctrl-C:

    0.0 s   draining: /readyz answers 503, and each answer asks its client to close the connection
    0.5 s   leaving:  new connections are dropped, and new gRPC calls are answered UNAVAILABLE
    0.6 s   the sockets close; connections that waited to be accepted have been accepted by now
    0.8 s   uvicorn stops; requests that were already on their way have been read by now
    then    REST and gRPC answer all requests that they hold, the models are unloaded, the process ends
"""

import asyncio
import contextlib
import logging
import signal
import socket
import time
from typing import TYPE_CHECKING

from keras_initx._types import Receive, Scope, Send
from keras_initx.serving._grpc import start_grpc
from keras_initx.serving._http import Application
from keras_initx.serving._listener import LAME_DUCK, turn_away
from keras_initx.serving._metrics import Metrics
from keras_initx.serving._models import Models
from keras_initx.serving._options import Options

if TYPE_CHECKING:
    import grpc
    import uvicorn

__all__ = ["Running", "import_messages"]

_log = logging.getLogger(__name__)

# Seconds to accept the connections that wait, and seconds to read the requests that they carry.
_LAST_CALL, _READ = 0.1, 0.2
# Seconds that separate a second Ctrl-C from the first. Some senders signal a process and then its group, so
# that one Ctrl-C arrives twice.
_TWICE = 0.5


class Running:
    """The ASGI application of a server, with everything that lives as long as the process.

    Attributes:
        server: uvicorn's server, which runs this application.
        failed: The error that ended the start; None while nothing failed.

    Args:
        models: The models, not yet loaded.
        options: The server's options.
        metrics: Counts the requests.
        listener: The socket of the REST interface.
    """

    server: "uvicorn.Server"

    def __init__(self, models: Models, options: Options, metrics: Metrics, listener: socket.socket) -> None:
        self.failed: Exception | None = None
        self._listener = listener
        self._models, self._options, self._metrics = models, options, metrics
        self._prepared = self._leaving = False
        self._asked = 0.0
        self._app = Application(models, options, metrics, lambda: self._prepared and models.ready)
        self._grpc: grpc.aio.Server
        self._grpc_port = 0
        self._loading: asyncio.Task[None]
        self._announcing: asyncio.Task[None]
        self._draining: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or follows the start and the end of the server."""
        if scope["type"] == "http":
            await self._app(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._start()
        except Exception as error:
            self.failed = error
            await send({"type": "lifespan.startup.failed"})
            return
        await send({"type": "lifespan.startup.complete"})
        try:
            await receive()
        except asyncio.CancelledError:  # by a second Ctrl-C
            return
        await self._stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._drain, number)
        self._loading = asyncio.create_task(self._load())
        # One of several workers must not accept before it can answer: a neighbour may answer already.
        if self._options.workers > 1:
            await self._loading
        self._grpc, self._grpc_port = await start_grpc(
            self._models, self._options, self._metrics, lambda: self._leaving
        )
        self._announcing = asyncio.create_task(self._announce())

    async def _load(self) -> None:
        try:
            # TensorFlow's messages import TensorFlow. That takes seconds, and the loop must go on meanwhile.
            await asyncio.gather(self._models.start(), asyncio.to_thread(import_messages))
            self._prepared = True
        except Exception as error:
            self.failed = error
            self.server.should_exit = True

    async def _announce(self) -> None:
        await asyncio.wait([self._loading])
        rest, grpc_port = self._listener.getsockname()[1], self._grpc_port
        scheme = "https" if self._options.tls_cert else "http"
        host = f"[{self._options.host}]" if ":" in self._options.host else self._options.host
        _log.info(
            "REST and a page to try it on %s://%s:%s/, gRPC on %s:%s", scheme, host, rest, host, grpc_port
        )
        if not self._models.ready:
            source = self._options.root or self._options.config
            told = "/v1/models tells why" if self._models.names() else "put one at NAME/1 in it"
            _log.warning("No model of %s answers; %s", source, told)

    def _drain(self, number: int) -> None:
        if self._draining is None:
            self._app.draining, self._asked = True, time.monotonic()
            self._draining = asyncio.create_task(self._leave())
        elif number == signal.SIGINT and time.monotonic() - self._asked > _TWICE:
            # The user has lost patience: end without waiting for requests.
            self.server.force_exit = self.server.should_exit = True

    async def _leave(self) -> None:
        """Closes the door in the steps that the module describes."""
        await asyncio.sleep(LAME_DUCK)
        self._leaving = True
        if self._options.workers == 1:  # for several workers, the supervisor does this once
            turn_away(self._listener)
        await asyncio.sleep(_LAST_CALL)
        # uvicorn has no `servers` yet while the models of a worker load.
        for server in getattr(self.server, "servers", ()):
            server.close()
        await asyncio.sleep(_READ)
        self.server.should_exit = True

    async def _stop(self) -> None:
        await self._grpc.stop(self._options.timeout_seconds)
        for task in (self._announcing, self._loading):
            task.cancel()
        await asyncio.gather(self._announcing, self._loading, return_exceptions=True)
        with contextlib.suppress(TimeoutError):  # a model that hangs must not keep the process alive
            await asyncio.wait_for(self._models.stop(), self._options.timeout_seconds)


def import_messages() -> None:
    """Imports the protocol's messages, so that the first requests do not wait seconds for the imports."""
    from tensorflow_serving.apis import (  # noqa: F401
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        inference_pb2,
        model_management_pb2,
        predict_pb2,
        regression_pb2,
    )
