"""The local server: REST by uvicorn and gRPC by grpc.aio over the same models, in one process or several."""

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from keras_initx.extras import require
from keras_initx.serving._configs import find_models, read_batching, read_models
from keras_initx.serving._grpc import start_grpc
from keras_initx.serving._http import Application
from keras_initx.serving._listener import LAME_DUCK, listen, turn_away
from keras_initx.serving._metrics import Metrics
from keras_initx.serving._models import Models
from keras_initx.serving._options import Options
from keras_initx.serving._workers import supervise

_log = logging.getLogger(__name__)

__all__ = ["check_installed", "choose", "import_messages", "make_models", "serve", "work"]

# Seconds in which connections that wait are accepted, and in which what they ask is read.
_LAST_CALL, _READ = 0.1, 0.2
_TWICE = 0.5  # seconds between a Ctrl-C and a second one: some senders signal a process and then its group


def serve(root: str | os.PathLike[str] | None = None, **options: Any) -> int:
    """Serves a folder's SavedModels by TensorFlow Serving's REST and gRPC protocols, until it is stopped.

    Args:
        root: The folder of the models, `root/<name>/<version>/`, as `keras_initx.export` writes them, or the
            folder of one model. New versions, and new models, are picked up while it runs.
        **options: As follows.

            - config: Instead of `root`, a TensorFlow Serving model config file: names, folders, version
              policies and labels. gRPC's HandleReloadConfigRequest may then replace it.
            - batching: A TensorFlow Serving batching parameters file, for the sizes of batches and queues.
              It does not choose what is batched.
            - host: The address to listen on (127.0.0.1). Any other needs `token_file`, or `insecure=True`.
            - rest_port, grpc_port: The ports (8501, 8500).
            - workers: Processes (1), which are started again when they die. Each holds all models.
            - token_file: A file with the secret that clients must send as `Authorization: Bearer ...`.
            - tls_cert, tls_key: PEM files, for both ports.
            - cors: Whether pages of other origins may ask (False).
            - access_log: Whether each REST request is a line of JSON on stderr (False).
            - poll_seconds: How often the folder is looked at (1).
            - timeout_seconds: How long a request may take (30).
            - keep_alive_seconds: How long a connection stays open on which nobody asks anything (75).
              Proxies close theirs after 60 seconds or so. This must be longer, or they send requests into
              connections that are being closed.
            - max_body_bytes: The largest request (32 MiB).
            - max_queue: Requests that may wait for a model; more are refused with 429.

    Returns:
        0, once it was stopped by SIGTERM or Ctrl-C: what had been accepted is answered before.

    Raises:
        ImportError: If the extra `serve` is not installed.
        ValueError: If an option is wrong, or a port is taken.
    """
    chosen = choose(root, options)
    check_installed()
    if chosen.root is not None:
        find_models(chosen.root)  # for its errors, before anything listens
    with listen(chosen.host, chosen.rest_port) as listener:
        if chosen.workers > 1:
            return supervise(chosen, listener)
        return work(chosen, listener)


def choose(root: str | os.PathLike[str] | None, options: dict[str, Any]) -> Options:
    """Returns the options of a server.

    Raises:
        TypeError: If there is none of a name.
        ValueError: If one is wrong.
    """
    known = sorted(field.name for field in dataclasses.fields(Options))
    for name in options:
        if name not in known:
            raise TypeError(f"`serve` has the options {known}. Received: {name!r}.")
    return Options(root=None if root is None else os.fspath(root), **options)


def work(options: Options, listener: socket.socket) -> int:
    """Serves in this process.

    Args:
        options: The server's options.
        listener: The socket of the REST interface.
    """
    import uvicorn

    _log_to_stderr()
    metrics = Metrics()
    models = make_models(options, metrics)
    running = _Running(models, options, metrics, listener)
    settings: dict[str, Any] = {"ssl_certfile": options.tls_cert, "ssl_keyfile": options.tls_key}
    config = uvicorn.Config(
        running,
        lifespan="on",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=options.keep_alive_seconds,  # type: ignore[arg-type]  # it takes fractions
        timeout_graceful_shutdown=int(options.timeout_seconds) + 1,
        **settings,
    )
    running.server = uvicorn.Server(config)
    # uvicorn raises the signals that it caught once more when it is done: they have done their work.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    with contextlib.suppress(SystemExit):  # what uvicorn says of a start that failed
        running.server.run([listener])
    if running.failed:
        raise ValueError(str(running.failed)) from running.failed
    return 0


def make_models(options: Options, metrics: Metrics) -> Models:
    """Returns the models that the options name, not yet loaded; their batches are counted."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns at each load of how we load
    configs = _configs(options)
    limits = read_batching(options.batching) if options.batching else {}
    if options.max_queue:
        limits["max_queue"] = options.max_queue
    return Models(configs, poll_seconds=options.poll_seconds, on_batch=metrics.batch, **limits)


class _Running:
    """The application with what lives as long as the process: models, gRPC, signals."""

    server: Any = None

    def __init__(self, models: Models, options: Options, metrics: Metrics, listener: socket.socket) -> None:
        self.failed: Exception | None = None
        self._listener = listener
        self._models, self._options, self._metrics = models, options, metrics
        self._prepared = self._leaving = False
        self._asked = 0.0
        self._app = Application(models, options, metrics, lambda: self._prepared and models.ready)
        self._grpc: Any = None
        self._grpc_port = 0
        self._loading: asyncio.Task[None]
        self._announcing: asyncio.Task[None]
        self._draining: asyncio.Task[None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self._app(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)

    async def _live(self, receive: Any, send: Any) -> None:
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
        if self._options.workers > 1:  # whose neighbours may answer already: only then does it accept
            await self._loading
        self._grpc, self._grpc_port = await start_grpc(
            self._models, self._options, self._metrics, lambda: self._leaving
        )
        self._announcing = asyncio.create_task(self._announce())

    async def _load(self) -> None:
        try:
            # TensorFlow's messages import TensorFlow: seconds, which the loop must not wait.
            await asyncio.gather(self._models.start(), asyncio.to_thread(import_messages))
            self._prepared = True
        except Exception as error:
            self.failed = error
            self.server.should_exit = True

    async def _announce(self) -> None:
        await asyncio.wait([self._loading])
        rest, grpc = self._listener.getsockname()[1], self._grpc_port
        scheme = "https" if self._options.tls_cert else "http"
        host = f"[{self._options.host}]" if ":" in self._options.host else self._options.host
        _log.info("REST and a page to try it on %s://%s:%s/, gRPC on %s:%s", scheme, host, rest, host, grpc)
        if not self._models.ready:
            source = self._options.root or self._options.config
            told = "/v1/models tells why" if self._models.names() else "put one at NAME/1 in it"
            _log.warning("No model of %s answers; %s", source, told)

    def _drain(self, number: int) -> None:
        if self._draining is None:
            self._app.draining, self._asked = True, time.monotonic()
            self._draining = asyncio.create_task(self._leave())
        elif number == signal.SIGINT and time.monotonic() - self._asked > _TWICE:  # waits for nobody
            self.server.force_exit = self.server.should_exit = True

    async def _leave(self) -> None:
        """Closes the door in steps: what was sent to a connection that was made is answered."""
        await asyncio.sleep(LAME_DUCK)
        self._leaving = True
        if self._options.workers == 1:  # or the supervisor does, for all
            turn_away(self._listener)
        await asyncio.sleep(_LAST_CALL)
        for server in getattr(self.server, "servers", ()):  # none while the models of a worker load
            server.close()
        await asyncio.sleep(_READ)
        self.server.should_exit = True

    async def _stop(self) -> None:
        await self._grpc.stop(self._options.timeout_seconds)
        for task in (self._announcing, self._loading):
            task.cancel()
        await asyncio.gather(self._announcing, self._loading, return_exceptions=True)
        with contextlib.suppress(TimeoutError):  # of a model that hangs
            await asyncio.wait_for(self._models.stop(), self._options.timeout_seconds)


def _log_to_stderr() -> None:
    """Has the server's log appear, unless the process that it runs in has a way of its own."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("keras_initx.serving").setLevel(logging.INFO)


def _configs(options: Options) -> Any:
    if options.config is not None:
        return read_models(options.config)
    root = options.root
    assert root is not None
    find: Callable[[], Any] = lambda: find_models(root)  # noqa: E731
    return find


def check_installed() -> None:
    """Refuses to go on without the extra `serve`."""
    modules = ("grpc", "prometheus_client", "tensorflow_serving", "uvicorn")
    require(*modules, extra="serve", purpose="`serve`")


def import_messages() -> None:
    """Imports what every call needs, which takes seconds."""
    from tensorflow_serving.apis import (  # noqa: F401
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        inference_pb2,
        model_management_pb2,
        predict_pb2,
        regression_pb2,
    )
