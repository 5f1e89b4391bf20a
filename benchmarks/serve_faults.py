"""Faults under load: good and bad new versions, clients that leave, full queues, stops and kills."""

import collections
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import time
from typing import Any

from serve_proc import ESTABLISHED, LISTEN, memory, sockets
from serve_setup import Bench, Server, ask

# The result of a measurement, and whether the bound is met.
Cell = tuple[str, bool]

CLIENTS = 8
SWAP_WORST = 250.0
GROWTH = 0.05
ABORTED = 1000
QUEUE = 8
FULL_P99 = 10.0
BACK = 10.0
LONG = 60.0
# A refusal loses nothing. But gRPC's client says UNAVAILABLE for ended connections, too.
REFUSAL = re.compile(r"status 503|UNAVAILABLE: (?!.*(?:[Ss]ocket|[Ss]tream|GOAWAY|reset|recvmsg))")


def told(result: dict[str, Any]) -> str:
    """Formats the number of failed requests of a load, and their reasons."""
    failed = sum(result["failures"].values()) + result["wrong"]
    reasons = "".join(f", {times} {reason}" for reason, times in result["failures"].items())
    wrong = f", {result['wrong']} wrong" if result["wrong"] else ""
    return f"{failed} failed of {result['answers'] + failed:,}{reasons}{wrong}"


def unharmed(result: dict[str, Any]) -> bool:
    return result["answers"] > 0 and not (result["failures"] or result["wrong"] or result["refused"])


def wait_for(condition: Any, seconds: float) -> float | None:
    """Waits until a condition holds. Returns the seconds, or None if it never held."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        with contextlib.suppress(OSError, ValueError, KeyError, RuntimeError):
            if condition():
                return time.monotonic() - begun
        time.sleep(0.1)
    return None


def version_swap(bench: Bench) -> list[Cell]:
    server = bench.default()
    versions = bench.folder / "models" / "digits"
    load = bench.load(server, clients=CLIENTS, seconds=LONG)
    load.started()
    time.sleep(1.5)
    (bench.folder / "next" / "1").rename(versions / "2")
    swapped = wait_for(lambda: bench.version(bench.good(server)) == 2, 20)
    time.sleep(1.5)
    result = load.stop()
    when = "new version never served" if swapped is None else f"new version after {swapped:.1f} s"
    return [
        (
            f"{told(result)}; worst {result['worst']:.0f} ms; {when}",
            unharmed(result) and result["worst"] <= SWAP_WORST and swapped is not None,
        )
    ]


def corrupt_version(bench: Bench) -> list[Cell]:
    server = bench.default()
    folder = bench.folder / "models" / "digits" / "99"
    load = bench.load(server, clients=CLIENTS, seconds=LONG)
    load.started()
    time.sleep(1)
    (bench.folder / "corrupt").rename(folder)
    try:
        states: dict[str, str] = {}

        def reported() -> bool:
            entries = json.loads(ask(server.rest, bench.path).body)["model_version_status"]
            states.update({entry["version"]: entry["state"] for entry in entries})
            return states.get("99") == "END"

        seen = wait_for(reported, 15)
        time.sleep(1.5)
        result = load.stop()
        bench.good(server)
    finally:
        shutil.rmtree(folder)
    known = "reported as END" if seen is not None else f"states {states}"
    served = "AVAILABLE" in states.values()
    return [(f"{told(result)}; {known}", unharmed(result) and seen is not None and served)]


def termination(bench: Bench) -> list[Cell]:
    server = bench.default()
    loads = [bench.load(server, kind, clients=CLIENTS, seconds=LONG) for kind in ("rest", "grpc")]
    for load in loads:
        load.started()
    time.sleep(1.5)
    server.process.terminate()
    begun = time.monotonic()
    with contextlib.suppress(Exception):
        server.process.wait(30)
    ended = f"ended after {time.monotonic() - begun:.1f} s" if server.ended else "never ended"
    time.sleep(0.3)
    cells = []
    for load in loads:
        result = load.stop()
        lost = sum(times for reason, times in result["failures"].items() if not REFUSAL.match(reason))
        met = server.ended and result["answers"] > 0 and not lost and not result["wrong"]
        cells.append((f"{told(result)}; {ended}", met))
    return cells


def aborted_clients(bench: Bench) -> list[Cell]:
    server = bench.default()
    bench.load(server, clients=32, seconds=2).result()
    before = memory(server.pid)
    body = bench.cases["rest"][0].encode()
    head = f"POST {bench.path}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for group in range(ABORTED // 50):
        # Whole requests without a client that waits, and half requests whose rest never comes.
        sent = head + (body if group % 2 else body[: len(body) // 2])
        clients = [socket.create_connection((server.host, server.rest), 10) for _ in range(50)]
        for client in clients:
            client.sendall(sent)
        time.sleep(0.001 * (group % 5))
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
    wait_for(lambda: not held(server), 5)
    slowest = max(bench.good(server).seconds for _ in range(20))
    growth = memory(server.pid) / before - 1
    text = f"{held(server)} connections held; next answers within {slowest * 1e3:.0f} ms"
    met = growth <= GROWTH and not held(server) and slowest < 1
    return [(f"{text}; memory {growth:+.1%}", met)]


def held(server: Server) -> int:
    return sum(s.port == server.rest and s.state != LISTEN for s in sockets(server.pid))


def full_queue(bench: Bench) -> list[Cell]:
    server = bench.serve("--max-queue", str(QUEUE), root="slow")
    server.wait()
    job = {"cases": "slow", "clients": 64, "allowed": [429], "pause": 0.1}
    bench.load(server, **job, seconds=2).result()
    before = memory(server.pid)
    load = bench.load(server, **job, seconds=3 if bench.quick else 6, warmup=1)
    load.started()
    peak = before
    while load.process.poll() is None:
        peak = max(peak, memory(server.pid))
        time.sleep(0.5)
    result = load.result()
    time.sleep(1)
    after = ask(server.rest, f"{bench.path}:predict", bench.cases["rest"][0])
    server.stop()
    full = result["others"].get("429", {"count": 0, "p99": float("inf"), "worst": float("inf")})
    growth = peak / before - 1
    text = f"{full['count']:,} of 429, p99 {full['p99']:.1f} ms, worst {full['worst']:.1f} ms"
    served = f"{result['answers']} served; {told(result)}; memory {growth:+.1%}"
    met = unharmed(result) and full["p99"] <= FULL_P99 and growth <= GROWTH and after.status == 200
    return [(f"{text}; {served}", met)]


def killed_worker(bench: Bench) -> list[Cell]:
    server = bench.serve("--workers", "2")
    server.wait()
    if wait_for(lambda: len(answering(bench, server)) == 2, 30) is None:
        raise RuntimeError(f"{len(answering(bench, server))} processes answer")
    load = bench.load(server, clients=CLIENTS, seconds=LONG)
    load.started()
    time.sleep(1)
    connections = holders(server)
    victim = max(connections.keys() - {server.pid}, key=lambda pid: connections[pid])
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    back = wait_for(lambda: len(answering(bench, server) - {victim}) == 2, 30)
    time.sleep(1)
    result = load.stop()
    server.stop()
    failed = sum(result["failures"].values())
    # The dying process accepts connections until its listener is closed, so some new connections are lost.
    kept, new = (result["failures"].get(f"lost on a {age} connection", 0) for age in ("kept", "new"))
    when = "never back to two" if back is None else f"two again after {back:.1f} s"
    only = failed == kept + new and kept <= connections[victim] and result["last_failure"] - killed < 0.5
    text = f"{told(result)}; {connections[victim]} connections on the killed; {result['refused']} refused"
    met = only and not result["wrong"] and back is not None and back <= BACK
    return [(f"{text}; {when}", met)]


def holders(server: Server) -> collections.Counter[int]:
    """Returns the processes that hold connections of clients, and the number of connections of each."""
    pids = [s.pid for s in sockets(server.pid) if s.port == server.rest and s.state == ESTABLISHED]
    return collections.Counter(pids)


def answering(bench: Bench, server: Server) -> set[int]:
    """Returns the processes that hold connections after 16 new ones have been answered."""
    request = f"GET {bench.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        address = server.host, server.rest
        clients = [stack.enter_context(socket.create_connection(address, 2)) for _ in range(16)]
        for client in clients:
            client.sendall(request)
        answers = [client.recv(16) for client in clients]
        if any(answer.split()[1:2] != [b"200"] for answer in answers):
            raise RuntimeError(f"answers: {answers}")
        return set(holders(server))


MEASURES = {
    version_swap: [("version swap, 8 clients", f"0 failed, worst {SWAP_WORST:.0f} ms")],
    corrupt_version: [("corrupt new version, 8 clients", "0 failed, the old keeps serving")],
    aborted_clients: [
        (f"{ABORTED:,} aborted clients", f"nothing pending, memory growth at most {GROWTH:.0%}")
    ],
    full_queue: [
        ("queue full, 64 clients", f"429, p99 {FULL_P99:.0f} ms; memory growth at most {GROWTH:.0%}")
    ],
    killed_worker: [
        ("worker killed -9 of two, 8 clients", f"only requests in flight fail; back within {BACK:.0f} s")
    ],
    termination: [
        (f"SIGTERM under load, 8 clients by {kind}", "0 accepted requests lost") for kind in ("REST", "gRPC")
    ],
}
