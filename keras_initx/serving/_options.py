"""What a server is told: where the models are, where to listen, and what it may cost."""

import dataclasses
import hmac
import ipaddress
import os
import pathlib
import ssl

__all__ = ["Options", "Token"]


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a server; see `keras_initx.serving.serve`.

    Raises:
        ValueError: If two of them contradict each other, or what they ask for is not safe.
    """

    root: str | None = None
    config: str | None = None
    batching: str | None = None
    host: str = "127.0.0.1"
    rest_port: int = 8501
    grpc_port: int = 8500
    workers: int = 1
    token_file: str | None = None
    insecure: bool = False
    tls_cert: str | None = None
    tls_key: str | None = None
    cors: bool = False
    access_log: bool = False
    poll_seconds: float = 1.0
    timeout_seconds: float = 30.0
    keep_alive_seconds: float = 75.0
    max_body_bytes: int = 32 * 2**20
    max_queue: int | None = None

    def __post_init__(self) -> None:
        self._check_types()
        if (self.root is None) == (self.config is None):
            raise ValueError(
                "One of `root`, the folder of the models, and `config`, a file that lists them, must be "
                f"given, and not both. Received: root={self.root!r}, config={self.config!r}."
            )
        for name in ("rest_port", "grpc_port"):
            if not 0 <= getattr(self, name) < 2**16:
                raise ValueError(f"`{name}` must be from 0 to 65535. Received: {name}={getattr(self, name)}.")
        for name in ("workers", "timeout_seconds", "keep_alive_seconds", "max_body_bytes", "max_queue"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be positive. Received: {name}={getattr(self, name)}.")
        if self.workers > 1 and 0 in (self.rest_port, self.grpc_port):
            raise ValueError("`rest_port` and `grpc_port` must be given for several workers. Received: 0.")
        self._check_security()

    def _check_types(self) -> None:
        for field in dataclasses.fields(self):
            value, default = getattr(self, field.name), field.default
            kinds = {bool: (bool,), int: (int,), float: (int, float)}.get(type(default), (str,))
            kinds = (int,) if field.name == "max_queue" else kinds
            right = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
            if value is not default and not right:
                raise ValueError(f"`{field.name}` must be of type {kinds[0].__name__}. Received: {value!r}.")

    def _check_security(self) -> None:
        if not _is_loopback(self.host) and not (self.token_file or self.insecure):
            raise ValueError(
                f"`token_file` must be given to listen beyond this machine. Received: host={self.host!r}. "
                "Write a secret into a file and name it, or pass `insecure=True` where the network keeps "
                "others away."
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError(
                "`tls_cert` and `tls_key` must be given together. "
                f"Received: tls_cert={self.tls_cert!r}, tls_key={self.tls_key!r}."
            )
        for name in ("config", "batching", "token_file", "tls_cert", "tls_key"):
            path = getattr(self, name)
            if path is not None and not os.access(path, os.R_OK):
                raise ValueError(f"`{name}` must be a file that can be read. Received: {name}={path!r}.")
        Token(self.token_file)
        if self.tls_cert is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.tls_cert, self.tls_key)
            except (ssl.SSLError, OSError) as error:
                raise ValueError(
                    "`tls_cert` and `tls_key` must be a PEM certificate and its key, without a password. "
                    f"Received: tls_cert={self.tls_cert!r}, tls_key={self.tls_key!r}: {error}."
                ) from error


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Token:
    """The secret that clients send as `Authorization: Bearer ...`; without a file, none is asked for.

    Args:
        path: The file that holds it, on one line.

    Raises:
        ValueError: If it holds none, or one that a header cannot carry.
    """

    def __init__(self, path: str | None) -> None:
        self._expected = b""
        if path is None:
            return
        secret = pathlib.Path(path).read_bytes().strip()
        if len(secret) < 16 or not secret.isascii() or len(secret.split()) != 1:
            raise ValueError(
                "`token_file` must hold one word of 16 ASCII characters or more. "
                f"Received: token_file={path!r}, which holds {len(secret)} characters. "
                "`openssl rand -hex 32` makes one."
            )
        self._expected = b"Bearer " + secret

    def admits(self, authorization: bytes) -> bool:
        """Whether a client that sends this header may ask; the time it takes tells nothing of the secret."""
        return not self._expected or hmac.compare_digest(self._expected, authorization)
