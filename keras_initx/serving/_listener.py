"""The socket of the REST interface: it listens before models load, and closes without losing a request."""

import ctypes
import socket
import struct
import sys

__all__ = ["LAME_DUCK", "listen", "turn_away"]

# Seconds in which a stopping server asks its clients to leave, before it drops new connections.
LAME_DUCK = 0.5

_ATTACH_FILTER = 26  # SO_ATTACH_FILTER of Linux, which Python does not name
# A filter program of one instruction: "return 0", which keeps no byte of a packet.
_DROP = struct.pack("HBBI", 6, 0, 0, 0)


def listen(host: str, port: int) -> socket.socket:
    """Returns a listening socket that child processes may inherit.

    Raises:
        ValueError: If the port is taken, or if this machine does not have the address.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family)
    except OSError as error:
        raise _refused(host, port, error) from error
    try:
        # Without it, a restarted server would find its port taken for a minute by closed connections.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise _refused(host, port, error) from error
    listener.set_inheritable(True)
    return listener


def turn_away(listener: socket.socket) -> None:
    """Drops new connections silently; the server can still accept the connections that already wait.

    Closing the socket instead would reset the waiting connections, and lose requests that they carry. Only
    Linux has such filters. On other systems this function does nothing, and a request may be lost.
    """
    if not sys.platform.startswith("linux"):
        return
    code = ctypes.create_string_buffer(_DROP)
    program = struct.pack("HL", 1, ctypes.addressof(code))
    listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)


def _refused(host: str, port: int, error: OSError) -> ValueError:
    return ValueError(
        f"`rest_port` must be free and `host` an address of this machine. Received: host={host!r}, "
        f"rest_port={port}: {error.strerror}. Choose another one."
    )
