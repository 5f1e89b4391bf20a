"""The options of a server, and the token that its clients send."""

import dataclasses
import hmac
import ipaddress
import os
import pathlib
import ssl

__all__ = ["Options", "Token"]


@dataclasses.dataclass(frozen=True)
class Options:
    """All options of a server in one value, already checked; `keras_initx.serving.serve` documents each.

    One value, because it travels: workers receive it as JSON, Ray's replicas receive it pickled.

    Raises:
        ValueError: If an option has a wrong type or value, if two options contradict each other, or if the
            server would listen beyond this machine without a token.
    """

    # The signatures of `serve` and `serve_on_ray` show the same defaults. tests/serving/test_options.py
    # compares all three.
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
                "Exactly one of `root` (the folder of the models) and `config` (a file that lists the "
                f"models) must be given. Received: root={self.root!r}, config={self.config!r}."
            )
        for name in ("rest_port", "grpc_port"):
            if not 0 <= getattr(self, name) < 2**16:
                raise ValueError(f"`{name}` must be from 0 to 65535. Received: {name}={getattr(self, name)}.")
        for name in ("workers", "timeout_seconds", "keep_alive_seconds", "max_body_bytes", "max_queue"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be positive. Received: {name}={getattr(self, name)}.")
        # Port 0 asks the system for any free port. Each worker would get another one for gRPC.
        if self.workers > 1 and 0 in (self.rest_port, self.grpc_port):
            raise ValueError(
                "`rest_port` and `grpc_port` must not be 0 for several workers. "
                f"Received: rest_port={self.rest_port}, grpc_port={self.grpc_port}, workers={self.workers}. "
                "Name the ports, or use one worker."
            )
        self._check_security()

    def _check_types(self) -> None:
        # A default tells the type: bool, int, float, or str where the default is None.
        for field in dataclasses.fields(self):
            value, default = getattr(self, field.name), field.default
            kinds = {bool: (bool,), int: (int,), float: (int, float)}.get(type(default), (str,))
            kinds = (int,) if field.name == "max_queue" else kinds
            # To Python a bool is an int: without the second half, `workers=True` would pass for 1.
            right = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
            if value is not default and not right:
                raise ValueError(f"`{field.name}` must be of type {kinds[0].__name__}. Received: {value!r}.")

    def _check_security(self) -> None:
        if not _is_loopback(self.host) and not (self.token_file or self.insecure):
            raise ValueError(
                f"`token_file` must be given to listen beyond this machine. Received: host={self.host!r}. "
                "Write a secret into a file and name that file here. If the network keeps strangers away, "
                "pass `insecure=True` instead."
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError(
                "`tls_cert` and `tls_key` must be given together. "
                f"Received: tls_cert={self.tls_cert!r}, tls_key={self.tls_key!r}."
            )
        for name in ("config", "batching", "token_file", "tls_cert", "tls_key"):
            path = getattr(self, name)
            if path is not None and not os.access(path, os.R_OK):
                raise ValueError(f"`{name}` must be a readable file. Received: {name}={path!r}.")
        # Token and certificate are read here only for their errors: before anything listens, in one process.
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
    # Any other name may resolve to an address that others reach.
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Token:
    """The secret that clients send as `Authorization: Bearer ...`.

    Args:
        path: A file that holds the secret on one line. Without a file, every client is admitted.

    Raises:
        ValueError: If the file does not hold one word of at least 16 ASCII characters.
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
        """Returns whether a client that sends this header is admitted.

        The comparison takes constant time, so a client cannot guess the secret letter by letter.
        """
        return not self._expected or hmac.compare_digest(self._expected, authorization)
