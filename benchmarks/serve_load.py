"""The clients of `serve.py`: closed loops over REST or gRPC that check every answer.

Run `python benchmarks/serve_load.py JOB`, where JOB is JSON with the fields of `Job`. It prints `started` at
the first answer, runs until its seconds are over or SIGTERM comes, and prints its result as JSON.
"""

import asyncio
import base64
import collections
import contextlib
import dataclasses
import json
import math
import random
import re
import signal
import statistics
import struct
import sys
import time
from typing import Any

import grpc
import uvloop
from serve_wire import prediction

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
TOLERANCE = 1e-5
# The seconds to wait for the last answers.
LIMIT = 10.0
RETRY = 0.02


@dataclasses.dataclass(frozen=True)
class Job:
    """A load to send.

    Attributes:
        cases: The file of requests and answers that `serve_models.py` writes.
        port: The port of the server.
        kind: `"rest"`, `"grpc"`, or `"echo"`: a gRPC server that returns its request.
        clients: The number of clients. Each sends its next request when it has the answer to the last one.
        seconds: The duration of the load.
        warmup: Seconds at the start in which answers are checked but not timed.
        allowed: Statuses other than 200 that do not count as failures.
        pause: The mean seconds that a client waits after such a status.
        host: The server's host.
    """

    cases: str
    port: int
    kind: str = "rest"
    clients: int = 8
    seconds: float = 3.0
    warmup: float = 0.5
    allowed: tuple[int, ...] = ()
    pause: float = 0.0
    host: str = "127.0.0.1"


class Run:
    """A running job: its requests and its results."""

    def __init__(self, job: Job) -> None:
        self.job = job
        with open(job.cases) as file:  # noqa: PTH123
            self.cases = json.load(file)
        bodies = self.cases["rest"] if job.kind == "rest" else map(base64.b64decode, self.cases["grpc"])
        self.requests = [self.http(body) if job.kind == "rest" else body for body in bodies]
        self.over = self.heard = False
        self.begun = self.ended = self.last = time.monotonic()
        self.busy: set[int] = set()
        self.bodies: collections.Counter[tuple[int, bytes]] = collections.Counter()
        self.latencies: list[float] = []
        self.others: dict[int, list[float]] = collections.defaultdict(list)
        self.failures: collections.Counter[str] = collections.Counter()
        self.first_failure = self.last_failure = 0.0
        self.refused = self.timed = 0
        self.stall = 0.0

    def http(self, body: str) -> bytes:
        head = f"POST /v1/models/{self.cases['model']}:predict HTTP/1.1\r\nHost: {self.job.host}\r\n"
        kind = "Content-Type: application/json\r\n"
        return f"{head}{kind}Content-Length: {len(body)}\r\n\r\n{body}".encode()

    def started(self) -> None:
        if not self.heard:
            self.heard = True
            print("started", flush=True)

    def finish(self) -> None:
        self.over = True
        self.ended = time.monotonic()
        self.stall = max(self.stall, self.ended - self.last)

    def answer(self, row: int, status: int, body: bytes, sent: float) -> None:
        now = time.monotonic()
        self.started()
        if status != 200 and status not in self.job.allowed:
            self.fail(f"status {status}: {body[:100].decode(errors='replace')}")
            return
        if status == 200:
            self.bodies[row, body] += 1
            self.stall = max(self.stall, now - self.last)
            self.last = now
        elif b'"error"' not in body:
            self.fail(f"status {status} without an error")
        if not self.over and now > self.begun + self.job.warmup:
            (self.latencies if status == 200 else self.others[status]).append(now - sent)

    def fail(self, reason: str) -> None:
        self.started()
        self.last_failure = time.monotonic()
        self.first_failure = self.first_failure or self.last_failure
        self.failures[reason] += 1

    def versions(self) -> list[int]:
        """Counts the answers by the version for which they are right. Wrong answers come last."""
        counts = [0] * (len(self.cases["expected"]) + 1)
        for (row, body), times in self.bodies.items():
            if self.job.kind == "echo":
                counts[0 if body == self.requests[row] else -1] += times
            else:
                counts[self.version(row, body)] += times
        return counts

    def version(self, row: int, body: bytes) -> int:
        try:
            values = json.loads(body)["predictions"][0] if self.job.kind == "rest" else prediction(body)
            for version, expected in enumerate(self.cases["expected"]):
                pairs = zip(values, expected[row], strict=True)
                if all(abs(value - right) <= TOLERANCE for value, right in pairs):
                    return version
        except (ValueError, KeyError, IndexError, TypeError, struct.error):
            pass
        return -1

    def result(self) -> dict[str, Any]:
        self.started()
        spent = max(self.ended - self.begun - self.job.warmup, 1e-9)
        *versions, wrong = self.versions()
        return {
            "rate": len(self.latencies) / spent,
            **milliseconds(self.latencies),
            "answers": sum(versions),
            "versions": versions,
            "wrong": wrong,
            "failures": dict(self.failures),
            "first_failure": self.first_failure,
            "last_failure": self.last_failure,
            "refused": self.refused,
            "stall": self.stall,
            "others": {
                status: {"count": len(times), **milliseconds(times)} for status, times in self.others.items()
            },
        }


def milliseconds(latencies: list[float]) -> dict[str, float]:
    if not latencies:
        return {"p50": math.nan, "p99": math.nan, "worst": math.nan}
    ordered = sorted(latencies)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return {"p50": statistics.median(ordered) * 1e3, "p99": p99 * 1e3, "worst": ordered[-1] * 1e3}


class Client(asyncio.Protocol):
    """One client over HTTP/1.1. It connects again whenever its connection ends."""

    def __init__(self, run: Run, index: int) -> None:
        self.run, self.index = run, index
        self.row = index
        self.kept = False

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.run.over:
            try:
                await loop.create_connection(lambda: self, self.run.job.host, self.run.job.port)
                return
            except OSError:
                self.run.refused += 1
                await asyncio.sleep(RETRY)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.kept = False
        self.send()

    def send(self) -> None:
        if self.run.over or self.transport.is_closing():
            self.transport.close()
            return
        self.row = (self.row + 1) % len(self.run.requests)
        self.buffer = b""
        self.run.busy.add(self.index)
        self.sent = time.monotonic()
        self.transport.write(self.run.requests[self.row])

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head, body = self.buffer[:end], self.buffer[end + 4 :]
        length = LENGTH.search(head)
        if length and len(body) < int(length[1]):
            return
        if self.index not in self.run.busy or not length or len(body) > int(length[1]):
            self.run.fail(f"not one answer of its Content-Length: {self.buffer[:100]!r}")
            self.finish(drop=True)
            return
        status = int(head[9:12])
        self.run.answer(self.row, status, body, self.sent)
        self.finish(
            drop=b"connection: close" in head.lower(), pause=0 if status == 200 else self.run.job.pause
        )

    def finish(self, *, drop: bool, pause: float = 0) -> None:
        self.run.busy.discard(self.index)
        self.kept = True
        if drop:
            self.transport.close()
        elif pause:
            # Random, so that clients never come all at the same time.
            asyncio.get_running_loop().call_later(random.uniform(0.5, 1.5) * pause, self.send)
        else:
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self.index in self.run.busy:
            self.run.busy.discard(self.index)
            self.run.fail(f"lost on a {'kept' if self.kept else 'new'} connection")
        self.task = asyncio.get_running_loop().create_task(self.connect())


async def call(run: Run, method: Any, index: int) -> None:
    """One client over gRPC. All clients share a channel."""
    row = index
    while not run.over:
        row = (row + 1) % len(run.requests)
        run.busy.add(index)
        sent = time.monotonic()
        try:
            run.answer(row, 200, await method(run.requests[row], timeout=LIMIT), sent)
        except grpc.aio.AioRpcError as error:
            details = error.details() or ""
            if "refused" in details or "failed to connect" in details.lower():
                run.refused += 1
            else:
                run.fail(f"{error.code().name}: {details[:100]}")
            await asyncio.sleep(RETRY)
        run.busy.discard(index)


async def drive(run: Run) -> None:
    job = run.job
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    channel = None
    if job.kind == "rest":
        tasks = [loop.create_task(Client(run, index).connect()) for index in range(job.clients)]
    else:
        channel = grpc.aio.insecure_channel(
            f"{job.host}:{job.port}", [("grpc.max_reconnect_backoff_ms", 200)]
        )
        method = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        tasks = [loop.create_task(call(run, method, index)) for index in range(job.clients)]
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ended.wait(), job.seconds)
    run.finish()
    deadline = time.monotonic() + LIMIT
    while run.busy and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    for _ in run.busy:
        run.fail(f"no answer within {LIMIT:.0f} s")
    for task in tasks:
        task.cancel()
    if channel:
        await channel.close()


def main(text: str) -> None:
    run = Run(Job(**json.loads(text)))
    # gRPC brings its own poller for an event loop.
    (uvloop.run if run.job.kind == "rest" else asyncio.run)(drive(run))
    print(json.dumps(run.result()))


if __name__ == "__main__":
    main(sys.argv[1])
