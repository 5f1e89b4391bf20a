"""The REST side of the server: an ASGI application around the protocol, with a token, limits and counters.

Each request takes one of two ways:

    request --> token --> /v1/...: read the body, then `_rest.answer`            --> answer --> counters, log
                     +--> others:  page, health, metrics, description, OPTIONS   --> answer --> log
"""

import asyncio
import json
import logging
import sys
import time
import zlib
from collections.abc import Callable, Sequence

from keras_initx._types import Receive, Scope, Send
from keras_initx.serving._inference import Versions
from keras_initx.serving._json_write import encode_error
from keras_initx.serving._metrics import Metrics
from keras_initx.serving._options import Options, Token
from keras_initx.serving._page import page
from keras_initx.serving._rest import Answer, answer

__all__ = ["Application"]

_log = logging.getLogger(__name__)

_JSON = b"application/json"
_HTML = b"text/html; charset=utf-8"
_CORS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET"),
    (b"access-control-allow-headers", b"Content-Type, Authorization"),
)
_METRICS = b"/monitoring/prometheus/metrics"
_OPEN = (b"/", b"/healthz", b"/readyz", b"/openapi.json")  # these paths need no token
# The bodies that are held at the same time may together be this many times as large as the largest body.
_HELD = 32
# A body that is too large is read to its end, up to this many times the limit. See `_read`.
_DRAINED = 8


class Application:
    """The ASGI application for HTTP requests.

    Attributes:
        draining: Set it to True when the server is about to stop. Requests are still answered, but each
            answer asks its client to close the connection, and /readyz answers 503.

    Args:
        models: The served models.
        options: The server's options.
        metrics: Counts the requests.
        is_ready: Tells whether the models are loaded and at least one answers.
    """

    def __init__(
        self, models: Versions, options: Options, metrics: Metrics, is_ready: Callable[[], bool]
    ) -> None:
        self.draining = False
        self._models = models
        self._options = options
        self._metrics = metrics
        self._token = Token(options.token_file)
        self._is_ready = is_ready
        self._held = 0  # bytes of all bodies that are being read or answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        started = time.perf_counter()
        headers = dict(scope["headers"])
        # The raw path: in the decoded one, a model's name with an encoded slash would be two parts.
        path, method = scope["raw_path"].partition(b"?")[0], scope["method"]
        kind = _JSON
        more: tuple[tuple[bytes, bytes], ...] = ()
        if not (path in _OPEN or self._token.admits(headers.get(b"authorization", b""))):
            found: Answer | None = _refuse(401, "UNAUTHENTICATED", "The request needs the bearer token.")
            more = ((b"www-authenticate", b"Bearer"),)
        elif path[:4].lower() == b"/v1/" and method != "OPTIONS":
            found = await self._ask(method, path, headers, receive)
        else:
            found, kind = self._other(method, path, headers)
        if found is not None:  # None if the client has hung up
            await self._send(send, method, found, kind, more)
            self._note(scope, path, found, time.perf_counter() - started)

    async def _ask(
        self, method: str, path: bytes, headers: dict[bytes, bytes], receive: Receive
    ) -> Answer | None:
        """Reads the body and answers it by the protocol; None if the client has hung up."""
        body = None
        # A body of unknown length (chunked) counts as the largest one.
        size = int(headers.get(b"content-length", self._options.max_body_bytes))
        if self._held + size > _HELD * self._options.max_body_bytes:
            return _refuse(429, "RESOURCE_EXHAUSTED", "Too many bodies at once.")
        self._held += size
        try:
            async with asyncio.timeout(self._options.timeout_seconds):
                body = await self._read(headers, receive)
                if isinstance(body, Answer | None):
                    return body
                return await answer(method, path.decode("ascii", "replace"), body, self._models)
        except TimeoutError:
            if body is None:
                return _refuse(408, "DEADLINE_EXCEEDED", "The body did not arrive in time.")
            return _refuse(504, "DEADLINE_EXCEEDED", "The model did not answer in time.")
        except Exception:
            _log.exception("%s %s", method, path)
            return _refuse(500, "INTERNAL", "The server failed; its log says why.")
        finally:
            self._held -= size

    async def _read(self, headers: dict[bytes, bytes], receive: Receive) -> bytes | Answer | None:
        """Returns the body, unzipped; or an answer that refuses it; or None if the client has hung up."""
        most = self._options.max_body_bytes
        told = f"The body must have at most {most} bytes; gRPC carries more in less."
        too_large = int(headers.get(b"content-length", 0)) > most
        # With "Expect: 100-continue", the client has not sent the body yet: nothing needs to be read.
        if too_large and b"expect" in headers:
            return _refuse(413, "OUT_OF_RANGE", told)
        chunks, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            size += len(message["body"])
            too_large |= size > most
            if not too_large:
                chunks.append(message["body"])
            # If nobody read the body, the connection would be reset, and most clients would not see the
            # refusal.
            if not message.get("more_body") or size > _DRAINED * most:
                break
        if not too_large and headers.get(b"content-encoding", b"").lower() == b"gzip":
            return self._unzip(b"".join(chunks), told)
        return _refuse(413, "OUT_OF_RANGE", told) if too_large else b"".join(chunks)

    def _unzip(self, body: bytes, told: str) -> bytes | Answer:
        most = self._options.max_body_bytes
        # A few bytes of gzip may unzip to gigabytes, so this stops one byte after the limit.
        try:
            unzip = zlib.decompressobj(31)
            found = unzip.decompress(body, most + 1)
            if not unzip.eof and len(found) <= most:
                raise zlib.error("it ends early")
        except zlib.error as error:
            return _refuse(400, "INVALID_ARGUMENT", f"Content-Encoding is gzip, and the body is not: {error}")
        return _refuse(413, "OUT_OF_RANGE", told) if len(found) > most else found

    def _other(self, method: str, path: bytes, headers: dict[bytes, bytes]) -> tuple[Answer, bytes]:
        """Answers all paths outside of the protocol, and returns the answer with its content type."""
        if method == "OPTIONS":
            if not headers.get(b"origin", b"").startswith((b"http://", b"https://")):
                return _refuse(
                    400, "FAILED_PRECONDITION", "OPTIONS needs an Origin of http:// or https://."
                ), _JSON
            return Answer(200, b""), _JSON
        if path not in (*_OPEN, _METRICS):
            return _refuse(404, "NOT_FOUND", f"No such path: {path.decode('ascii', 'replace')}"), _JSON
        if method not in ("GET", "HEAD"):
            return _refuse(405, "UNIMPLEMENTED", f"Only GET is answered here, not {method}"), _JSON
        if path == b"/":
            return Answer(200, page()[0]), _HTML
        if path == _METRICS:
            return Answer(200, self._metrics.page()), b"text/plain; version=0.0.4; charset=utf-8"
        if path == b"/openapi.json":
            from keras_initx.serving._openapi import openapi

            return Answer(200, json.dumps(openapi()).encode()), _JSON
        if path == b"/readyz" and not (self._is_ready() and not self.draining):
            return _refuse(503, "UNAVAILABLE", self._unready()), _JSON
        return Answer(200, b'{"status": "ok"}'), _JSON

    def _unready(self) -> str:
        if self.draining:
            return "The server is stopping."
        # /readyz needs no token, and the reasons contain folders of this machine. So with a token, none are
        # told.
        known = [] if self._options.token_file else map(self._models.reason, self._models.names())
        return " ".join(["No model answers yet; /v1/models tells why.", *filter(None, known)])

    async def _send(
        self, send: Send, method: str, found: Answer, kind: bytes, more: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(found.body)), *more]
        if self._options.cors:
            headers += _CORS
        if kind == _HTML:
            headers += page()[1]
        if self.draining or found.status == 413:  # 413: the rest of the body may still be on its way
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": found.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else found.body})

    def _note(self, scope: Scope, path: bytes, found: Answer, seconds: float) -> None:
        """Counts a request, and writes its line into the access log."""
        route = found.route
        if route:
            # Clients can make up any number of names, so unknown models are counted under one name.
            model = route.model if route.model in self._models.names() else ""
            self._metrics.request(model, route.verb, "REST", found.code, seconds)
        if self._options.access_log:
            line = {
                "time": round(time.time(), 3),
                "client": (scope.get("client") or ("",))[0],
                "method": scope["method"],
                "path": path.decode("ascii", "replace"),
                "status": found.status,
                "bytes": len(found.body),
                "milliseconds": round(seconds * 1e3, 3),
            }
            print(json.dumps(line), file=sys.stderr, flush=True)  # noqa: T201 -- the log's lines


def _refuse(status: int, code: str, message: str) -> Answer:
    return Answer(status, encode_error(message), code)
