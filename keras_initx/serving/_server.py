"""The local server: REST by uvicorn and gRPC by grpc.aio over the same models, in one process or several.

`serve` checks its options, opens the REST socket and hands the socket over:

    serve --> listen --+--> one worker:      `work` in this process
                       +--> several workers: `supervise` in this process, `work` in each worker process
"""

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence

from keras_initx.extras import require
from keras_initx.serving._configs import ModelConfig, find_models, read_batching, read_models
from keras_initx.serving._listener import listen
from keras_initx.serving._metrics import Metrics
from keras_initx.serving._models import Models
from keras_initx.serving._options import Options
from keras_initx.serving._running import Running
from keras_initx.serving._workers import supervise

__all__ = ["check_installed", "make_models", "serve", "work"]


def serve(
    root: str | os.PathLike[str] | None = None,
    *,
    config: str | None = None,
    batching: str | None = None,
    host: str = "127.0.0.1",
    rest_port: int = 8501,
    grpc_port: int = 8500,
    workers: int = 1,
    token_file: str | None = None,
    insecure: bool = False,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    cors: bool = False,
    access_log: bool = False,
    poll_seconds: float = 1.0,
    timeout_seconds: float = 30.0,
    keep_alive_seconds: float = 75.0,
    max_body_bytes: int = 32 * 2**20,
    max_queue: int | None = None,
) -> int:
    """Serves a folder of SavedModels by TensorFlow Serving's REST and gRPC protocols, until it is stopped.

    The call blocks. It needs the extra `serve`. A SavedModel is code that may read and write files: serve
    only folders that you trust.

    Args:
        root: The folder of the models, `root/<name>/<version>/`, as `keras_initx.export` writes it, or the
            folder of one model. The server picks up new versions and new models while it runs.
        config: A TensorFlow Serving model config file, instead of `root`. It lists names, folders, version
            policies and labels. gRPC's HandleReloadConfigRequest may then replace this configuration.
        batching: A TensorFlow Serving batching parameters file. It sets the sizes of batches and queues. It
            does not choose which signatures are batched.
        host: The address to listen on. Every address beyond this machine needs `token_file` or
            `insecure=True`.
        rest_port: The port of the REST interface. 0 takes any free port.
        grpc_port: The port of the gRPC interface. 0 takes any free port.
        workers: The number of processes behind the two ports. Each process holds all models. A process that
            dies is started again.
        token_file: A file with the secret that clients must send as `Authorization: Bearer ...`. None admits
            every client.
        insecure: Whether the server may listen beyond this machine without a token.
        tls_cert: The PEM file of a certificate, for both ports. It needs `tls_key`.
        tls_key: The PEM file of the certificate's key, without a password.
        cors: Whether web pages of other origins may send requests.
        access_log: Whether to write one line of JSON to stderr for each REST request.
        poll_seconds: Seconds between two looks at the folders. With 0, the server looks at the start only.
        timeout_seconds: Seconds that a request may take.
        keep_alive_seconds: Seconds after which an idle connection is closed. Keep it longer than your proxy
            keeps its connections, which is 60 seconds for many proxies. Otherwise the proxy sends requests
            into connections that are being closed.
        max_body_bytes: The largest request body in bytes (32 MiB).
        max_queue: The number of requests that may wait for a version of a model. The server refuses further
            requests with status 429. None takes the number from `batching`, or 1000.

    Returns:
        0, after SIGTERM or Ctrl-C. All requests that had been accepted are answered before.

    Raises:
        ImportError: If the extra `serve` is not installed.
        ValueError: If an option is wrong, or a port is taken.
    """
    options = Options(
        root=None if root is None else os.fspath(root),
        config=config,
        batching=batching,
        host=host,
        rest_port=rest_port,
        grpc_port=grpc_port,
        workers=workers,
        token_file=token_file,
        insecure=insecure,
        tls_cert=tls_cert,
        tls_key=tls_key,
        cors=cors,
        access_log=access_log,
        poll_seconds=poll_seconds,
        timeout_seconds=timeout_seconds,
        keep_alive_seconds=keep_alive_seconds,
        max_body_bytes=max_body_bytes,
        max_queue=max_queue,
    )
    check_installed()
    if options.root is not None:
        find_models(options.root)  # only for its errors: before anything listens
    with listen(options.host, options.rest_port) as listener:
        return supervise(options, listener) if options.workers > 1 else work(options, listener)


def work(options: Options, listener: socket.socket) -> int:
    """Serves in this process until it is stopped, and returns 0.

    Args:
        options: The server's options.
        listener: The socket of the REST interface.

    Raises:
        ValueError: If the start failed, for example because the gRPC port is taken.
    """
    import uvicorn

    _log_to_stderr()
    metrics = Metrics()
    running = Running(make_models(options, metrics), options, metrics, listener)
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
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
    )
    running.server = uvicorn.Server(config)
    # When uvicorn has stopped, it raises the signals that it caught once more. They have done their work, so
    # they must not end this process with an error.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    with contextlib.suppress(SystemExit):  # uvicorn exits when a start fails; `failed` holds the reason
        running.server.run([listener])
    if running.failed:
        raise ValueError(str(running.failed)) from running.failed
    return 0


def make_models(options: Options, metrics: Metrics) -> Models:
    """Returns the models that the options name, not yet loaded; `metrics` counts their batches."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns about our loader at every load
    limits = read_batching(options.batching) if options.batching else {}
    if options.max_queue:
        limits["max_queue"] = options.max_queue
    return Models(_configs(options), poll_seconds=options.poll_seconds, on_batch=metrics.batch, **limits)


def _configs(options: Options) -> Sequence[ModelConfig] | Callable[[], Sequence[ModelConfig]]:
    if options.config is not None:
        return read_models(options.config)
    root = options.root
    assert root is not None  # `Options` has checked that exactly one of the two is given
    # A function, because a folder may hold other models at the next look. A config file is read once.
    return lambda: find_models(root)


def _log_to_stderr() -> None:
    """Makes the server's log visible, unless the surrounding program has configured logging itself."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("keras_initx.serving").setLevel(logging.INFO)


def check_installed() -> None:
    """Checks that the packages of the extra `serve` are installed.

    Raises:
        ImportError: If one is missing, with the command that installs it.
    """
    modules = ("grpc", "prometheus_client", "tensorflow_serving", "uvicorn")
    require(*modules, extra="serve", purpose="`serve`")
