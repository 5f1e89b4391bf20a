"""Servers and loads as separate processes."""

import contextlib
import dataclasses
import functools
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from serve_proc import tree

HERE = pathlib.Path(__file__).parent
START_LIMIT = 60.0


class NotMeasuredError(Exception):
    """Raised if something that a row needs is missing."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer over HTTP, and its time."""

    status: int
    body: bytes
    seconds: float

    @property
    def error(self) -> str:
        """Returns the text of an error's JSON, or an empty text."""
        try:
            text = json.loads(self.body)["error"]
        except (ValueError, KeyError, TypeError):
            return ""
        return text if isinstance(text, str) else ""


def ask(
    port: int, path: str, body: str | None = None, host: str = "127.0.0.1", timeout: float = 10
) -> Answer:
    """Sends one request on a new connection."""
    started = time.monotonic()
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET" if body is None else "POST", path, body)
        response = connection.getresponse()
        return Answer(response.status, response.read(), time.monotonic() - started)
    finally:
        connection.close()


class Load:
    """A process of `serve_load.py`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def started(self) -> None:
        """Waits for the first answer."""
        self.process.stdout.readline()

    def stop(self) -> dict[str, Any]:
        """Ends the load early."""
        self.process.terminate()
        return self.result()

    def result(self) -> dict[str, Any]:
        text, _ = self.process.communicate(timeout=120)
        if self.process.returncode:
            raise RuntimeError("the load failed")
        return json.loads(text.splitlines()[-1])


@dataclasses.dataclass(frozen=True)
class Remote:
    """A server that somebody else started."""

    host: str
    rest: int
    grpc: int
    ended: bool = False


class Server:
    """A server as a process."""

    host = "127.0.0.1"

    def __init__(self, command: list[str], rest: int, grpc: int, log: pathlib.Path, **options: Any) -> None:
        self.rest, self.grpc, self.log = rest, grpc, log
        self.begun = time.monotonic()
        with log.open("w") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, cwd=HERE.parent, start_new_session=True, **options
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def wait(self, path: str = "/readyz") -> None:
        """Waits until the server says that it is ready."""
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            self.check()
            with contextlib.suppress(OSError, http.client.HTTPException):
                if ask(self.rest, path, timeout=2).status == 200:
                    return
            time.sleep(0.05)
        raise TimeoutError(f"not ready within {START_LIMIT:.0f} s")

    def check(self) -> None:
        if self.ended:
            last = self.log.read_text(errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"the server ended with {self.process.returncode}: {''.join(last)[:200]}")

    def stop(self) -> None:
        pids = [] if self.ended else tree(self.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.terminate()
            self.process.wait(10)
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)


class Bench:
    """The folder of models, the running servers, and the loads on them."""

    def __init__(self, folder: pathlib.Path, command: list[str], *, quick: bool, ray: bool) -> None:
        self.folder, self.command, self.quick, self.ray = folder, command, quick, ray
        self.servers: list[Server] = []
        self.loads: list[Load] = []
        self.shared: Any = None

    def prepare(self) -> None:
        """Writes the models and requests."""
        command = [sys.executable, str(HERE / "serve_models.py"), str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parent)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])

    @functools.cached_property
    def cases(self) -> dict[str, Any]:
        return json.loads((self.folder / "digits.json").read_text())

    @property
    def path(self) -> str:
        return f"/v1/models/{self.cases['model']}"

    def launch(self, command: list[str], rest: int = 0, grpc: int = 0, **options: Any) -> Server:
        log = self.folder / f"server-{len(self.servers)}.log"
        self.servers.append(Server(command, rest, grpc, log, **options))
        return self.servers[-1]

    def serve(self, *options: str, root: str = "models", **process: Any) -> Server:
        """Starts the server as a user does, and does not wait for it."""
        rest, grpc = free_port(), free_port()
        ports = "--rest-port", str(rest), "--grpc-port", str(grpc)
        command = [*self.command, str(self.folder / root), *ports, *options]
        return self.launch(command, rest, grpc, **process)

    def default(self) -> Server:
        """Returns a server without options that several rows share. Starts a new one if it has ended."""
        if self.shared is None or self.shared.ended:
            self.shared = self.serve()
            self.shared.wait()
        return self.shared

    def fastapi(self) -> Server:
        port = free_port()
        version = str(self.folder / "models" / "digits" / "1")
        server = self.launch([sys.executable, str(HERE / "serve_fastapi.py"), version, str(port)], port)
        server.wait()
        return server

    def echo(self) -> Server:
        port = free_port()
        server = self.launch([sys.executable, str(HERE / "serve_echo.py"), str(port)], grpc=port)
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return server
            time.sleep(0.05)
        raise TimeoutError("the echo server does not listen")

    def load(self, server: Server | Remote, kind: str = "rest", cases: str = "digits", **job: Any) -> Load:
        job |= {"cases": str(self.folder / f"{cases}.json"), "kind": kind, "host": server.host}
        job["port"] = server.rest if kind == "rest" else server.grpc
        command = [sys.executable, str(HERE / "serve_load.py"), json.dumps(job)]
        self.loads.append(Load(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)))
        return self.loads[-1]

    def end_loads(self) -> None:
        """Kills the servers that a failed measurement has left."""
        for load in self.loads:
            load.process.kill()
            load.process.communicate()
        self.loads.clear()

    def good(self, server: Server) -> Answer:
        """Asks for one prediction and returns the answer. Raises an error if the answer is wrong."""
        answer = ask(server.rest, f"{self.path}:predict", self.cases["rest"][0])
        if answer.status != 200 or self.version(answer) is None:
            raise RuntimeError(f"no right prediction: {answer.status} {answer.body[:200]!r}")
        return answer

    def version(self, answer: Answer) -> int | None:
        """Returns the version that answers the first request."""
        (row,) = json.loads(answer.body)["predictions"]
        for version, rows in enumerate(self.cases["expected"], 1):
            if all(abs(value - right) <= 1e-5 for value, right in zip(row, rows[0], strict=True)):
                return version
        return None

    def stop(self) -> None:
        for server in self.servers:
            server.stop()
