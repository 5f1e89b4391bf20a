"""Scale-out: the same models and the same protocol in replicas behind Ray Serve's HAProxy."""

import asyncio
import contextlib
import os
import pathlib
import secrets
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from keras_initx.extras import require_ray
from keras_initx.serving._configs import find_models
from keras_initx.serving._grpc import handlers, services
from keras_initx.serving._http import Application
from keras_initx.serving._metrics import Metrics
from keras_initx.serving._options import Options
from keras_initx.serving._rpc import METHODS
from keras_initx.serving._server import check_installed, choose, import_messages, make_models

__all__ = ["deploy", "environment", "kill_haproxies", "serve_on_ray"]

_APP = "initx"
# A configuration that is sent to a replica would be that replica's alone.
_PATHS = [path for path in METHODS if not path.endswith("/HandleReloadConfigRequest")]


def serve_on_ray(
    root: str | os.PathLike[str] | None = None,
    *,
    replicas: int = 2,
    max_replicas: int | None = None,
    ray_address: str | None = None,
    on_start: Callable[[], None] = lambda: None,
    **options: Any,
) -> int:
    """Serves as `serve` does, in replicas of Ray Serve, until it is stopped.

    Each replica is a process with all models, which watches the folder itself: a new version is taken by one
    replica after the other, within seconds.

    Args:
        root: The folder of the models, at the same path on every node.
        replicas: How many replicas there are, or at least where `max_replicas` is given.
        max_replicas: How many there are at most; as many as requests in flight ask for.
        ray_address: A running cluster's address, or `"auto"`; by default, a cluster of this machine's own.
        on_start: Called when all replicas answer.
        **options: Those of `serve`, but `workers`, `tls_cert` and `tls_key`. Files are read on every node.

    Returns:
        0, once it was stopped by SIGTERM or Ctrl-C: what had been accepted is answered before.

    Raises:
        ImportError: If the extra `ray` is missing or too old.
        ValueError: If an option is wrong.
    """
    for name in ("config", "batching", "token_file"):  # for replicas, which start in folders of their own
        options[name] = options.get(name) and os.path.abspath(options[name])  # noqa: PTH100
    chosen = choose(root and os.path.abspath(root), options)  # noqa: PTH100
    _check(chosen, replicas, max_replicas)
    if chosen.root is not None:
        find_models(chosen.root)
    stop = threading.Event()
    with _connected(ray_address) if ray_address else _own_cluster(chosen, max_replicas or replicas):
        for number in (signal.SIGTERM, signal.SIGINT):  # Ray, as it starts, takes them for itself
            signal.signal(number, lambda *_: stop.set())
        deploy(chosen, replicas, max_replicas)
        on_start()
        stop.wait()
    return 0


def _check(options: Options, replicas: int, max_replicas: int | None) -> None:
    check_installed()
    require_ray("`serve_on_ray`")
    if options.workers > 1 or options.tls_cert:
        raise ValueError(
            "`workers` and `tls_cert` are not for Ray. Received: "
            f"workers={options.workers}, tls_cert={options.tls_cert!r}. "
            "Give `replicas`, and put a proxy that ends TLS before it."
        )
    if options.keep_alive_seconds != Options.keep_alive_seconds:
        raise ValueError(
            "`keep_alive_seconds` is not for Ray, whose HAProxy closes idle connections after 5 seconds. "
            f"Received: keep_alive_seconds={options.keep_alive_seconds}. Leave it out."
        )
    if replicas < 1 or (max_replicas is not None and max_replicas < replicas):
        raise ValueError(
            "`replicas` must be at least 1, and `max_replicas` at least that. "
            f"Received: replicas={replicas}, max_replicas={max_replicas}."
        )


def environment(home: str | os.PathLike[str]) -> dict[str, str]:
    """Returns what Ray reads from the environment as it is imported and as a node starts.

    Args:
        home: A private folder with a path of at most 25 characters, for HAProxy's files: who may write to the
            socket in it commands HAProxy.
    """
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # A prediction changes nothing: one that a dying replica left unanswered is sent to another.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        # How long a replica that is told to go stays: HAProxy learns of it within a second.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
        # Ray's own are 8500, which is TensorFlow Serving's for gRPC, and 9500.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": os.environ.get("RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", "8502"),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": os.environ.get("RAY_SERVE_FALLBACK_PROXY_GRPC_PORT", "8503"),
        # A node that is gone is found out after five failures: of Ray's own three seconds each, too late.
        "RAY_health_check_period_ms": "1000",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{home}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{home}/admin.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": f"{home}",
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{home}/server-state",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{home}/metrics.sock",
    }


@contextlib.contextmanager
def _own_cluster(options: Options, replicas: int) -> Iterator[None]:
    """A cluster on this machine, which ends when what is in flight has ended."""
    # HAProxy's sockets have long names already, of at most 108 characters with this folder's.
    with tempfile.TemporaryDirectory(prefix="initx-", dir="/tmp") as home:
        os.environ.update(environment(home))
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        import ray

        cpus = max(os.cpu_count() or 1, replicas)
        alone = {"include_dashboard": False, "log_to_driver": False, "_node_ip_address": "127.0.0.1"}
        ray.init("local", num_cpus=cpus, **alone)
        try:
            yield
            _drain(home, options.timeout_seconds + 5)
        finally:
            ray.shutdown()
            kill_haproxies(home, signal.SIGKILL)  # they outlive the processes that started them


@contextlib.contextmanager
def _connected(address: str) -> Iterator[None]:
    """A cluster of others, which goes on without what was deployed."""
    import ray
    from ray import serve

    ray.init(address, log_to_driver=False)
    try:
        yield
        serve.delete(_APP)  # each replica stays until HAProxy knows and its requests have ended
    finally:
        ray.shutdown()


def _drain(home: str, seconds: float) -> None:
    """Has HAProxy accept nothing more, and waits until all that it accepted is answered.

    `serve.shutdown` would kill HAProxy first.
    """
    end = time.monotonic() + seconds
    while kill_haproxies(home, signal.SIGUSR1) and time.monotonic() < end:  # its signal for a soft stop
        time.sleep(0.1)


def kill_haproxies(home: str, number: int) -> int:
    """Sends a signal to the HAProxy processes whose files are in a folder, and returns how many there are."""
    found = 0
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"haproxy") and any(word.startswith(f"{home}/".encode()) for word in words):
                os.kill(int(entry.name), number)
                found += 1
    return found


def deploy(options: Options, replicas: int = 2, max_replicas: int | None = None) -> None:
    """Starts the replicas on the cluster that this process is connected to, and waits until they answer.

    Args:
        options: The server's options.
        replicas: How many replicas there are, or at least where `max_replicas` is given.
        max_replicas: How many there are at most.
    """
    from ray import serve

    serve.start(
        proxy_location="HeadOnly",
        # Connections on which nobody asks anything end soon, or an end would wait for their clients.
        http_options={"host": options.host, "port": options.rest_port, "keep_alive_timeout_s": 5},
        grpc_options={
            "port": options.grpc_port,
            "grpc_servicer_functions": [f"{__name__}.add_services"],
            "enable_reflection": False,
        },
    )
    scaling: dict[str, Any] = {"num_replicas": replicas}
    if max_replicas is not None:
        bounds = {"min_replicas": replicas, "max_replicas": max_replicas}
        scaling = {"autoscaling_config": bounds | {"target_ongoing_requests": 16}}
    ingress: Any = serve.ingress()(_Replica)
    # More than the models' own queue takes: that one refuses with 429, Ray's with 500.
    deployment = serve.deployment(ingress, name="models", max_ongoing_requests=4096, **scaling)
    serve.run(deployment.bind(options), name=_APP, route_prefix="/")


def add_services(servicer: Any, server: Any) -> None:
    """Registers the methods with a gRPC server of Ray's as bytes to bytes: only replicas parse messages."""
    for service in services({path: getattr(servicer, path.rpartition("/")[2]) for path in _PATHS}):
        server.add_generic_rpc_handlers((service,))


class _Replica:
    """The models in one process of Ray's: an ASGI application, and below a method for each of gRPC's."""

    async def __init__(self, options: Options) -> None:  # type: ignore[misc]  # Ray awaits it
        metrics = Metrics()
        self._models = models = make_models(options, metrics)
        await asyncio.gather(models.start(), asyncio.to_thread(import_messages))
        if not models.ready:  # Ray tries again, and sends nothing to a replica that has not started
            states = [str(status) for name in models.names() for status in models.statuses(name)]
            raise ValueError(f"No model could be loaded. Received: {states}.")
        self._application = Application(models, options, metrics, lambda: models.ready)
        self.handlers = handlers(models, options, metrics)

    def __serve_build_asgi_app__(self) -> Any:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await self._application(scope, receive, send)
            elif scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await self._models.stop()
                await send({"type": "lifespan.shutdown.complete"})

        return application


class _Bytes(bytes):
    """A serialized message, for Ray to serialize."""

    def SerializeToString(self) -> bytes:  # noqa: N802 -- as messages have it
        """Returns the bytes."""
        return bytes(self)


class _AbortError(Exception):
    """A call has ended with its status."""


class _Context:
    """Ray's context of a call, with what grpc.aio's can do."""

    def __init__(self, context: Any) -> None:
        self.invocation_metadata = context.invocation_metadata
        self._context = context

    async def abort(self, code: Any, told: str) -> None:
        self._context.set_code(code)
        self._context.set_details(told)
        raise _AbortError


def _method(path: str) -> Any:
    async def method(self: _Replica, request: bytes, grpc_context: Any) -> _Bytes:
        with contextlib.suppress(_AbortError):
            return _Bytes(await self.handlers[path](request, _Context(grpc_context)))
        return _Bytes()

    method.__name__ = path.rpartition("/")[2]
    return method


for _path in _PATHS:
    setattr(_Replica, _path.rpartition("/")[2], _method(_path))
