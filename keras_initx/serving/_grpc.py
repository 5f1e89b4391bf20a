"""The gRPC side of the server: the protocol's methods behind grpc.aio, with a token, limits and counters.

    grpc.aio --> handle: token, "is the server leaving?", time limit --> method of `_rpc.py` --> answer
                   +--> counters, and the error as a gRPC status

Requests and answers pass grpc.aio as bytes. So the same handlers also serve Ray, and a message is parsed
once.
"""

import asyncio
import logging
import pathlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from keras_initx.serving._configs import ModelConfig
from keras_initx.serving._errors import ServingError
from keras_initx.serving._inference import Served, Versions
from keras_initx.serving._metrics import Metrics
from keras_initx.serving._options import Options, Token
from keras_initx.serving._rpc import METHODS
from keras_initx.serving._version import VersionStatus

if TYPE_CHECKING:
    import grpc

__all__ = ["Context", "Handler", "handlers", "services", "start_grpc"]

_log = logging.getLogger(__name__)


class Context(Protocol):
    """The part of a call's context that the handlers use: grpc.aio's context has it, and Ray's stand-in."""

    def invocation_metadata(self) -> Sequence[tuple[str, str]] | None:
        """Returns the metadata that the client sent."""

    async def abort(self, code: "grpc.StatusCode", details: str = "") -> None:
        """Ends the call with an error, by raising an exception."""


Handler = Callable[[bytes, Context], Awaitable[bytes]]


def handlers(
    models: Versions, options: Options, metrics: Metrics, is_leaving: Callable[[], bool] = lambda: False
) -> dict[str, Handler]:
    """Returns the protocol's methods by path, as grpc.aio calls them, with token, time limit and counters.

    Args:
        models: The served models.
        options: The server's options.
        metrics: Counts the requests.
        is_leaving: Tells whether the server is about to stop. New calls are then refused as UNAVAILABLE, so
            that clients ask another server. Calls that arrive during the stop itself would be lost.
    """
    token = Token(options.token_file)
    seconds = options.timeout_seconds
    return {
        path: _handler(method, path.rpartition("/")[2], models, metrics, token, seconds, is_leaving)
        for path, method in METHODS.items()
    }


def services(methods: Mapping[str, Callable[..., Awaitable[bytes]]]) -> "list[grpc.GenericRpcHandler]":
    """Returns one gRPC handler for each service in the paths.

    Args:
        methods: Functions from bytes to bytes, by paths such as
            `/tensorflow.serving.PredictionService/Predict`.
    """
    import grpc

    found: dict[str, dict[str, grpc.RpcMethodHandler]] = {}
    for path, method in methods.items():
        _, service, name = path.split("/")
        found.setdefault(service, {})[name] = grpc.unary_unary_rpc_method_handler(method)
    return [grpc.method_handlers_generic_handler(service, named) for service, named in found.items()]


async def start_grpc(
    models: Versions, options: Options, metrics: Metrics, is_leaving: Callable[[], bool]
) -> "tuple[grpc.aio.Server, int]":
    """Starts to answer gRPC in the running event loop.

    Args:
        models: The served models.
        options: The server's options.
        metrics: Counts the requests.
        is_leaving: Tells whether the server is about to stop; see `handlers`.

    Returns:
        The server and its port.

    Raises:
        ValueError: If the port is taken.
    """
    import grpc

    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", options.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_connection_idle_ms", min(int(options.keep_alive_seconds * 1000), 2**31 - 1)),
            # Several workers share the port. A single server must own it: a second server that shared it by
            # accident would answer half of the clients.
            ("grpc.so_reuseport", int(options.workers > 1)),
        ]
    )
    for service in services(handlers(models, options, metrics, is_leaving)):
        server.add_generic_rpc_handlers((service,))
    address = f"[{options.host}]" if ":" in options.host else options.host
    address = f"{address}:{options.grpc_port}"
    try:
        if options.tls_cert is None or options.tls_key is None:
            port = server.add_insecure_port(address)
        else:
            pair = tuple(pathlib.Path(path).read_bytes() for path in (options.tls_key, options.tls_cert))
            port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    except RuntimeError as error:
        raise ValueError(
            f"`grpc_port` must be free. Received: {address}, which cannot be used. Choose another port."
        ) from error
    await server.start()
    return server, port


def _handler(
    method: Callable[[bytes, Versions], Awaitable[bytes]],
    name: str,
    models: Versions,
    metrics: Metrics,
    token: Token,
    seconds: float,
    is_leaving: Callable[[], bool],
) -> Handler:
    """Returns one of the protocol's methods as grpc.aio calls it."""
    from grpc import StatusCode

    asks_token = not token.admits(b"")  # without a token, a call need not read its metadata

    async def handle(request: bytes, context: Context) -> bytes:
        started = time.perf_counter()
        code, told, found = "OK", "", b""
        asked = _Asked(models)
        try:
            if asks_token and not token.admits(_authorization(context)):
                raise ServingError("UNAUTHENTICATED", "The call needs the bearer token in its metadata.")
            if is_leaving():
                raise ServingError("UNAVAILABLE", "The server is stopping: ask another one.")
            async with asyncio.timeout(seconds):
                found = await method(request, asked)
        except ServingError as error:
            code, told = error.code, error.message
        except TimeoutError:
            code, told = "DEADLINE_EXCEEDED", "The model did not answer in time."
        except Exception:
            _log.exception("%s", name)
            code, told = "INTERNAL", "The server failed; its log says why."
        metrics.request(asked.known, name, "GRPC", code, time.perf_counter() - started)
        if code != "OK":  # last, because `abort` raises
            await context.abort(StatusCode[code], told)
        return found

    return handle


class _Asked:
    """The models, as one call sees them; it notes which model the call found.

    Metrics must not get the names that clients make up, so the note is made only if the model exists.
    """

    def __init__(self, models: Versions) -> None:
        self._models = models
        self.known = ""

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Served:
        found = self._models.find(name, version, label)
        self.known = name
        return found

    def statuses(self, name: str) -> Sequence[VersionStatus]:
        found = self._models.statuses(name)
        self.known = name if found else ""
        return found

    def reason(self, name: str) -> str:
        return self._models.reason(name)

    def names(self) -> Sequence[str]:
        return self._models.names()

    async def reload(self, configs: Sequence[ModelConfig]) -> None:
        await self._models.reload(configs)


def _authorization(context: Context) -> bytes:
    values = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    return values[0].encode() if values else b""
