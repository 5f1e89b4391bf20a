"""Scale-out: the same models and the same protocol in replicas behind Ray Serve's HAProxy."""

import contextlib
import dataclasses
import hmac
import os
import pathlib
import secrets
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from keras_initx.serving._errors import ServingError
from keras_initx.serving._standin import METHODS, Models, answer

__all__ = ["RayOptions", "serve_on_ray"]

_APP = "initx"
_NEEDED = (2, 60)  # with HAProxy for gRPC, and token authentication
_MAX_BODY = 50 * 2**20


@dataclasses.dataclass(frozen=True)
class RayOptions:
    """How many replicas there are, and where they are reached.

    Attributes:
        host: Where HAProxy listens, for REST and gRPC.
        rest_port: Port of REST.
        grpc_port: Port of gRPC.
        replicas: How many replicas there are, or at least where `max_replicas` is more.
        max_replicas: How many there are at most; None for no autoscaling.
        address: A running cluster's address, or `"auto"`; None for a cluster of this machine's own.
        token: What clients must send as bearer token; None for none.
        drain_s: For how long requests in flight are waited for before the end.
    """

    host: str = "127.0.0.1"
    rest_port: int = 8501
    grpc_port: int = 8500
    replicas: int = 2
    max_replicas: int | None = None
    address: str | None = None
    token: str | None = None
    drain_s: float = 30.0


def serve_on_ray(
    folder: str | os.PathLike[str],
    options: RayOptions = RayOptions(),  # noqa: B008 - frozen
    started: Callable[[], None] = lambda: None,
) -> None:
    """Serves until SIGTERM or SIGINT, and then lets what is in flight end.

    Args:
        folder: The folder of the models' folders, the same path on every node.
        options: How many replicas there are, and where they are reached.
        started: Called when all replicas are up.

    Raises:
        ValueError: If Ray is missing or too old.
    """
    check_ray()
    stop = threading.Event()
    with _cluster(options):
        for number in (signal.SIGTERM, signal.SIGINT):  # Ray, as it starts, takes them for itself
            signal.signal(number, lambda *_: stop.set())
        deploy(folder, options)
        started()
        stop.wait()


def check_ray() -> None:
    """Refuses a Ray that is missing, or that is older than its security measures."""
    import importlib.metadata

    cure = "Install it with: pip install 'keras-initx[ray]'"
    try:
        found = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(f"`--ray` needs Ray >= 2.60. {cure}") from None
    if tuple(int(part) for part in found.split(".")[:2]) < _NEEDED:
        raise ValueError(f"`--ray` needs Ray >= 2.60, which has token authentication. Received: {found}. {cure}")


def environment(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Returns what Ray and its children read from the environment, before Ray is imported.

    Args:
        folder: A private folder: whoever may write to the admin socket in it commands HAProxy.
    """
    home = pathlib.Path(folder)
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # A prediction changes nothing: one that a dying replica left unanswered is sent to another.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        # Ray's own is 8500, TensorFlow Serving's for gRPC.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": "8502",
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": "8503",
        # How long a HAProxy that is told to go leaves connections open on which nobody asks anything.
        "RAY_SERVE_HAPROXY_CLOSE_SPREAD_TIME_S": "2",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(home / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(home / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(home),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(home / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(home / "metrics.sock"),
        # How long a replica that is told to go stays: HAProxy learns of it within a second.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }


def deploy(folder: str | os.PathLike[str], options: RayOptions) -> None:
    """Starts the replicas on the cluster that this process is connected to, and waits until they are up."""
    from ray import serve

    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": options.host, "port": options.rest_port},
        grpc_options={
            "port": options.grpc_port,
            "grpc_servicer_functions": [f"{__name__}.add_services"],
            "enable_reflection": False,
        },
    )
    scaling: dict[str, Any] = {"num_replicas": options.replicas}
    if options.max_replicas is not None and options.max_replicas > options.replicas:
        scaling = {
            "autoscaling_config": {
                "min_replicas": options.replicas,
                "max_replicas": options.max_replicas,
                "target_ongoing_requests": 16,
            }
        }
    # More than the models' own queue takes: that one refuses with 429, Ray's would with 500.
    ingress: Any = serve.ingress()(Replica)
    deployment = serve.deployment(ingress, name="models", max_ongoing_requests=4096, **scaling)
    home = os.path.realpath(folder)
    serve.run(deployment.bind(home, options.token), name=_APP, route_prefix="/")


class Replica:
    """The models in one process of Ray's: an ASGI application, and a method for each of gRPC's."""

    async def __init__(self, folder: str, token: str | None) -> None:
        self._token = token
        self.models = Models(folder)
        await self.models.start()

    def __serve_build_asgi_app__(self) -> Any:  # noqa: N807 - Ray's name
        return _Application(self)

    async def rpc(self, method: str, request: bytes, context: Any) -> "_Bytes":
        """Answers a call; `context` takes its status."""
        import grpc

        try:
            if not self.may(dict(context.invocation_metadata()).get("authorization", "")):
                raise ServingError("UNAUTHENTICATED", "Missing or wrong bearer token")
            return _Bytes(await METHODS[method](request, self.models))
        except ServingError as error:
            context.set_code(grpc.StatusCode[error.code])
            context.set_details(error.message)
            return _Bytes()

    def may(self, authorization: str) -> bool:
        """Whether a client that sent this header is answered."""
        wanted = f"Bearer {self._token}"
        return self._token is None or hmac.compare_digest(authorization.encode(), wanted.encode())


class _Application:
    """REST over ASGI."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        headers = dict(scope["headers"])
        if not self._replica.may(headers.get(b"authorization", b"").decode("latin-1")):
            await _send(send, 401, b'{"error": "Missing or wrong bearer token"}')
            return
        body = bytearray()
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        path = scope.get("raw_path", scope["path"].encode()).decode("latin-1")
        found = await answer(scope["method"], path, bytes(body), self._replica.models)
        await _send(send, found.status, found.body)


class _Bytes(bytes):
    """A serialized message, for Ray to serialize."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - as messages have it
        return bytes(self)


def _method_of(path: str) -> Any:
    async def method(self: Replica, request: bytes, grpc_context: Any) -> _Bytes:
        return await self.rpc(path, request, grpc_context)

    method.__name__ = path.rpartition("/")[2]
    return method


for _path in METHODS:
    setattr(Replica, _path.rpartition("/")[2], _method_of(_path))


def add_services(servicer: Any, server: Any) -> None:
    """Registers the methods with Ray's gRPC servers as bytes to bytes: nothing but replicas parses messages."""
    import grpc

    services: dict[str, dict[str, Any]] = {}
    for path in METHODS:
        _, service, method = path.split("/")
        handler = grpc.unary_unary_rpc_method_handler(getattr(servicer, method))
        services.setdefault(service, {})[method] = handler
    for service, handlers in services.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))


async def _live(receive: Any, send: Any) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def _send(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextlib.contextmanager
def _cluster(options: RayOptions) -> Iterator[None]:
    """A cluster to deploy to; at the end, what is in flight ends before it does."""
    if options.address:
        with _connected(options):
            yield
        return
    with tempfile.TemporaryDirectory(prefix="initx-ray-") as home:
        os.environ.update(environment(home))
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        import ray

        cpus = max(os.cpu_count() or 1, options.max_replicas or 0, options.replicas)
        ray.init(
            num_cpus=cpus, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False
        )
        try:
            yield
            drain(home, options.drain_s)
        finally:
            ray.shutdown()
            for process in _haproxies(home):  # they outlive their parent
                os.kill(process, signal.SIGKILL)


@contextlib.contextmanager
def _connected(options: RayOptions) -> Iterator[None]:
    import ray
    from ray import serve

    ray.init(options.address, log_to_driver=False)
    try:
        yield
        serve.delete(_APP)  # each replica stays until HAProxy knows and its requests have ended
    finally:
        ray.shutdown()


def drain(home: str, seconds: float) -> None:
    """Stops HAProxy from accepting, and waits until all that it accepted is answered.

    `serve.shutdown` would kill HAProxy first.

    Args:
        home: The folder of HAProxy's files.
        seconds: For how long to wait at most.
    """
    for process in _haproxies(home):
        os.kill(process, signal.SIGUSR1)
    end = time.monotonic() + seconds
    while _haproxies(home) and time.monotonic() < end:
        time.sleep(0.05)


def _haproxies(home: str) -> list[int]:
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"haproxy" in words[0] and any(word.startswith(home.encode()) for word in words):
                found.append(int(entry.name))
    return found
