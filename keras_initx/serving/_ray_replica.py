"""The code inside a replica: REST and gRPC over models of its own, as Ray Serve calls them.

Ray Serve calls REST as an ASGI application, and each gRPC method as a method of the replica's class. It hands
over gRPC requests as bytes, so only replicas parse messages.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from keras_initx._types import Receive, Scope, Send
from keras_initx.serving._grpc import handlers, services
from keras_initx.serving._http import Application
from keras_initx.serving._metrics import Metrics
from keras_initx.serving._options import Options
from keras_initx.serving._rpc import METHODS
from keras_initx.serving._running import import_messages
from keras_initx.serving._server import make_models

if TYPE_CHECKING:
    import grpc
    from ray.serve.grpc_util import RayServegRPCContext

__all__ = ["Replica", "add_services"]

# Without the method that replaces the configuration: it would reach one replica, and the others would differ.
_PATHS = [path for path in METHODS if not path.endswith("/HandleReloadConfigRequest")]


def add_services(servicer: object, server: "grpc.aio.Server") -> None:
    """Registers the protocol's methods with one of Ray's gRPC servers, bytes to bytes.

    Args:
        servicer: Ray's object that forwards a call to a replica. It has one method for each of the
            protocol's.
        server: The gRPC server.
    """
    for service in services({path: getattr(servicer, path.rpartition("/")[2]) for path in _PATHS}):
        server.add_generic_rpc_handlers((service,))


class Replica:
    """All models in one process of Ray's: an ASGI application, and one method for each gRPC method.

    Args:
        options: The server's options.

    Raises:
        ValueError: If no model could be loaded. Ray then tries again, and sends no requests meanwhile.
    """

    async def __init__(self, options: Options) -> None:  # type: ignore[misc]  # Ray awaits it
        metrics = Metrics()
        self._models = models = make_models(options, metrics)
        await asyncio.gather(models.start(), asyncio.to_thread(import_messages))
        if not models.ready:
            states = [str(status) for name in models.names() for status in models.statuses(name)]
            raise ValueError(f"No model could be loaded. Received: {states}.")
        self._application = Application(models, options, metrics, lambda: models.ready)
        self.handlers = handlers(models, options, metrics)

    def __serve_build_asgi_app__(self) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await self._application(scope, receive, send)
            elif scope["type"] == "lifespan":
                await receive()  # the models are loaded already, by `__init__`
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await self._models.stop()
                await send({"type": "lifespan.shutdown.complete"})

        return application


class _Bytes(bytes):
    """A serialized answer. Ray serializes the answers of a replica, and this one is serialized already."""

    def SerializeToString(self) -> bytes:  # noqa: N802 -- the name that messages have
        """Returns the bytes."""
        return bytes(self)


class _AbortError(Exception):
    """A call has ended with its status."""


class _Context:
    """Ray's context of a call, with the methods that the handlers use from grpc.aio's context."""

    def __init__(self, context: "RayServegRPCContext") -> None:
        self._context = context

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        return self._context.invocation_metadata()

    async def abort(self, code: "grpc.StatusCode", details: str = "") -> None:
        self._context.set_code(code)
        self._context.set_details(details)
        raise _AbortError  # as grpc.aio's `abort`, it does not return


def _method(path: str) -> Callable[..., Awaitable[_Bytes]]:
    """Returns the method of `Replica` that answers the calls of a path."""

    # Ray finds the context by the name of this parameter.
    async def method(self: Replica, request: bytes, grpc_context: "RayServegRPCContext") -> _Bytes:
        with contextlib.suppress(_AbortError):
            return _Bytes(await self.handlers[path](request, _Context(grpc_context)))
        return _Bytes()

    method.__name__ = path.rpartition("/")[2]
    return method


for _path in _PATHS:
    setattr(Replica, _path.rpartition("/")[2], _method(_path))
