"""Reads the processes, memory and sockets of a process tree from /proc."""

import contextlib
import dataclasses
import ipaddress
import os
import pathlib
import sys
from collections.abc import Iterator

LISTEN, ESTABLISHED = "0A", "01"


@dataclasses.dataclass(frozen=True)
class Socket:
    """A socket of a process, as /proc/net shows it."""

    pid: int
    protocol: str
    state: str
    host: str
    port: int


def tree(root: int) -> list[int]:
    """Returns a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name in brackets may hold any characters.
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def resident(pid: int) -> float:
    """Returns the resident MiB of a process, or 0 if it is gone."""
    with contextlib.suppress(OSError):
        pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return 0.0


def memory(root: int) -> float:
    """Returns the resident MiB of a process tree."""
    return sum(map(resident, tree(root)))


def proportional(root: int) -> float:
    """Returns the PSS of a process tree in MiB: a page that n processes share counts as 1/n in each process.

    Processes outside of the tree matter, too: the number falls when any process starts TensorFlow from the
    same files.
    """
    kilobytes = 0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kilobytes += int(line.split()[1])
    return kilobytes / 1024


def sockets(root: int) -> list[Socket]:
    """Returns the Internet sockets that a process tree holds."""
    owners = [(inode, pid) for pid in tree(root) for inode in inodes(pid)]
    known = {}
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        for line in pathlib.Path(f"/proc/net/{protocol}").read_text().splitlines()[1:]:
            parts = line.split()
            address, port = parts[1].split(":")
            known[parts[9]] = protocol, parts[3], readable(address), int(port, 16)
    return [Socket(pid, *known[inode]) for inode, pid in owners if inode in known]


def inodes(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for path in pathlib.Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = os.readlink(path)  # noqa: PTH115
                if target.startswith("socket:["):
                    yield target[8:-1]


def readable(address: str) -> str:
    """Reads an address as /proc/net writes it: words of four bytes, each in the machine's order."""
    data = bytes.fromhex(address)
    words = [data[i : i + 4][:: 1 if sys.byteorder == "big" else -1] for i in range(0, len(data), 4)]
    host = ipaddress.ip_address(b"".join(words))
    return str(getattr(host, "ipv4_mapped", None) or host)
