"""The socket that REST clients connect to: opened before models load, closed without losing a request."""

import ctypes
import socket
import struct
import sys

__all__ = ["LAME_DUCK", "listen", "turn_away"]

LAME_DUCK = 0.5  # seconds in which clients are told to go before new ones are turned away

_ATTACH_FILTER = 26  # SO_ATTACH_FILTER of Linux, which Python does not name
_DROP = struct.pack("HBBI", 6, 0, 0, 0)  # the filter that keeps nothing of a packet


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens, and that child processes may inherit.

    Raises:
        ValueError: If the port is taken, or the address is none of this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family)
    except OSError as error:
        raise _refused(host, port, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise _refused(host, port, error) from error
    listener.set_inheritable(True)
    return listener


def turn_away(listener: socket.socket) -> None:
    """Drops new connections before they are made; those that wait to be accepted still are.

    A socket that is closed resets those that wait, and with them requests that were sent already. Where the
    system knows no filters, nothing happens, and that is the risk.
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
