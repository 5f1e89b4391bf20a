"""Several server processes behind the same ports: started, watched, and started again when they die.

REST workers accept from one inherited socket. gRPC workers open their own sockets on the same port, and the
system spreads the clients.
"""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

from keras_initx.serving._listener import LAME_DUCK, turn_away
from keras_initx.serving._options import Options

__all__ = ["supervise"]

# A fresh interpreter, not a fork: TensorFlow's threads do not survive a fork.
_WORKER = """
import json, socket, sys
from keras_initx.serving._options import Options
from keras_initx.serving._server import work
from keras_initx.serving._workers import die_with_parent
die_with_parent(int(sys.argv[3]))
sys.exit(work(Options(**json.loads(sys.argv[1])), socket.socket(fileno=int(sys.argv[2]))))
"""
_LOOK = 0.1  # seconds between two looks at the workers
# Seconds at least between two starts of one worker: a worker that always fails must not take the machine.
_PAUSE = 1.0


def supervise(options: Options, listener: socket.socket) -> int:
    """Runs the workers until SIGTERM or Ctrl-C, lets them answer all accepted requests, and returns 0.

    Args:
        options: The server's options.
        listener: The socket of the REST interface. All workers accept from it.
    """
    stopping: list[int] = []
    before = {number: signal.signal(number, lambda got, _: stopping.append(got)) for number in _SIGNALS}
    with tempfile.TemporaryDirectory() as folder:
        workers = [_Worker(options, listener, folder) for _ in range(options.workers)]
        try:
            while not stopping:
                for worker in workers:
                    worker.keep()
                time.sleep(_LOOK)
            for worker in workers:
                worker.process.send_signal(signal.SIGTERM)
            time.sleep(LAME_DUCK)
            turn_away(listener)
            for worker in workers:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.process.wait(options.timeout_seconds + 5)
        finally:
            for worker in workers:
                worker.process.kill()
            for number, handler in before.items():
                signal.signal(number, handler)
    return 0


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Worker:
    """One worker process.

    Args:
        options: The server's options.
        listener: The socket of the REST interface.
        folder: Where the workers keep their counters, so that each can report the sum of all.
    """

    def __init__(self, options: Options, listener: socket.socket, folder: str) -> None:
        arguments = (json.dumps(dataclasses.asdict(options)), str(listener.fileno()), str(os.getpid()))
        self._command = [sys.executable, "-c", _WORKER, *arguments]
        self._listener = listener.fileno()
        self._environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": folder}
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self._started = time.monotonic()
        # In a process group of its own. Ctrl-C then reaches the supervisor alone, which passes it on once.
        return subprocess.Popen(
            self._command, pass_fds=[self._listener], env=self._environment, start_new_session=True
        )

    def keep(self) -> None:
        """Starts the process again if it has died."""
        if self.process.poll() is not None and time.monotonic() - self._started > _PAUSE:
            print(  # noqa: T201 -- a word to the operator
                f"initx: worker {self.process.pid} ended ({self.process.returncode}); starting another",
                file=sys.stderr,
                flush=True,
            )
            self.process = self._start()


def die_with_parent(parent: int) -> None:
    """Makes this process end soon after its supervisor, even if the supervisor was killed.

    Args:
        parent: The supervisor's process id.
    """
    import threading

    def watch() -> None:
        # An orphan is given another parent. No signal tells of that on every system, so this looks.
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
