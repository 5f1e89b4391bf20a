"""Faults under load: versions that come, good and bad, clients that leave, full queues, ends and kills."""

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

from serve_setup import ESTABLISHED, LISTEN, Bench, Server, ask, memory, sockets

# What a measurement found, and whether the bound is met.
Cell = tuple[str, bool]

CLIENTS = 8
SWAP_WORST = 250.0
GROWTH = 0.05
ABORTED = 1000
QUEUE = 8
FULL_P99 = 10.0
BACK = 10.0
LONG = 60.0


def told(result: dict[str, Any]) -> str:
    """Returns what went wrong, or what went well."""
    failed = sum(result["failures"].values()) + result["wrong"]
    reasons = "".join(f", {times} {reason}" for reason, times in result["failures"].items())
    wrong = f", {result['wrong']} wrong" if result["wrong"] else ""
    return f"{failed} failed of {result['answers'] + failed:,}{reasons}{wrong}"


def unharmed(result: dict[str, Any]) -> bool:
    return result["answers"] > 0 and not (result["failures"] or result["wrong"] or result["refused"])


def wait_for(condition: Any, seconds: float) -> float | None:
    """Waits until a condition holds; returns after how long, or None if it never did."""
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
    for load, kind in zip(loads, ("REST", "gRPC"), strict=True):
        result = load.stop()
        # A refusal that is an answer loses nothing: its client knows.
        lost = result["wrong"] + sum(
            times for reason, times in result["failures"].items() if not reason.startswith("status 503")
        )
        cells.append((lost, f"{kind} {told(result)}"))
    shown = "; ".join(text for _, text in cells)
    return [(f"{shown}; {ended}", server.ended and not any(lost for lost, _ in cells))]


def aborted_clients(bench: Bench) -> list[Cell]:
    server = bench.default()
    bench.load(server, clients=32, seconds=2).result()
    before = memory(server.pid)
    body = bench.cases["rest"][0].encode()
    head = f"POST {bench.path}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for group in range(ABORTED // 50):
        # Whole requests whose answers nobody waits for, and halves whose rest never comes.
        sent = head + (body if group % 2 else body[: len(body) // 2])
        clients = [socket.create_connection((server.host, server.rest), 10) for _ in range(50)]
        for client in clients:
            client.sendall(sent)
        time.sleep(0.001 * (group % 5))
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
    slowest = max(bench.good(server).seconds for _ in range(20))
    wait_for(lambda: not held(server), 5)
    growth = memory(server.pid) / before - 1
    waiting = pending(server)
    text = (
        f"{held(server)} connections held, {waiting:.0f} pending; next answers within {slowest * 1e3:.0f} ms"
    )
    met = growth <= GROWTH and not held(server) and not waiting and slowest < 1
    return [(f"{text}; memory {growth:+.1%}", met)]


def held(server: Server) -> int:
    return sum(s.port == server.rest and s.state != LISTEN for s in sockets(server.pid))


def pending(server: Server) -> float:
    """Sums what the metrics say is queued or in flight; their own request is the one in flight."""
    text = ask(server.rest, "/monitoring/prometheus/metrics").body.decode()
    found = re.findall(r"^[\w:]*(?:pending|queue|in_flight)(?!\w*_bucket)\S* (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))


def full_queue(bench: Bench) -> list[Cell]:
    server = bench.serve("--max-queue", str(QUEUE), root="slow")
    server.wait()
    before = memory(server.pid)
    load = bench.load(
        server, cases="slow", clients=64, seconds=3 if bench.quick else 6, warmup=1, allowed=[429], pause=0.1
    )
    load.started()
    peak = before
    while load.process.poll() is None:
        peak = max(peak, memory(server.pid))
        time.sleep(0.2)
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
    load = bench.load(server, clients=CLIENTS, seconds=LONG)
    load.started()
    wait_for(lambda: len(workers(server)) == 2, 15)
    known = workers(server)
    if len(known) != 2 or server.pid in known:
        raise RuntimeError(
            f"connections are held by {len(known)} processes, the first one among them or not two"
        )
    time.sleep(1)
    victim, connections = max(workers(server).items(), key=lambda item: item[1])
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    back = wait_for(lambda: renewed(bench, server, set(known)), 30)
    time.sleep(1)
    result = load.stop()
    server.stop()
    lost = sum(times for reason, times in result["failures"].items() if reason.startswith("lost"))
    until = result["last_failure"] - killed
    when = "never back to two" if back is None else f"two again after {back:.1f} s"
    only = lost == sum(result["failures"].values()) and lost <= connections and until < 1
    text = f"{told(result)}; {connections} connections on the killed; {result['refused']} refused; {when}"
    return [(text, only and not result["wrong"] and back is not None and back <= BACK)]


def workers(server: Server) -> dict[int, int]:
    """Returns the processes that hold clients' connections, with how many."""
    counts: dict[int, int] = {}
    for found in sockets(server.pid):
        if found.port == server.rest and found.state == ESTABLISHED:
            counts[found.pid] = counts.get(found.pid, 0) + 1
    return counts


def renewed(bench: Bench, server: Server, known: set[int]) -> bool:
    """Whether a process that was not known answers: of 16 connections made at once, it holds some."""
    request = f"GET {bench.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection((server.host, server.rest), 2)) for _ in range(16)
        ]
        for client in clients:
            client.settimeout(2)
            client.sendall(request)
        answers = [client.recv(16) for client in clients]
        return all(answer.split()[1:2] == [b"200"] for answer in answers) and bool(
            set(workers(server)) - known
        )


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
    termination: [("SIGTERM, 8 clients by REST and 8 by gRPC", "0 accepted requests lost")],
}
