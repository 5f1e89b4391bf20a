"""The process that runs SavedModels for `export`: started once, asked often."""

import contextlib
import json
import os
import pathlib
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from keras_initx.saved_model import _worker

_lock = threading.RLock()
_running: dict[int, subprocess.Popen[str]] = {}  # by the process that started it: a fork must not share one


class WorkerError(Exception):
    """What another process raised, or how it ended."""


def start() -> None:
    """Starts the process if there is none; it imports TensorFlow while this one goes on."""
    with _lock:
        _started()


class Ask:
    """Asks the process about one SavedModel; see `opened`."""

    def __init__(self, saved: pathlib.Path, scratch: pathlib.Path) -> None:
        # The process has the working directory of when it was started, which may be another one than now.
        self._saved, scratch = saved.absolute(), scratch.absolute()
        self._files = scratch / "requests", scratch / "answers"

    def __call__(self, requests: Sequence[tuple[str, dict[str, Any]]]) -> list[tuple[Any, float]]:
        """Runs requests one after another, from the states that the former left.

        Args:
            requests: Names of signatures, each with its inputs by name.

        Returns:
            For each the outputs by name, or as a string what it raised; and the seconds that it took.

        Raises:
            WorkerError: If the SavedModel cannot be loaded there.
        """
        asked, answered = self._files
        asked.write_bytes(pickle.dumps(list(requests)))
        _send(str(self._saved), str(asked), str(answered))
        found: list[tuple[Any, float]] = pickle.loads(answered.read_bytes())
        return found


@contextlib.contextmanager
def opened(saved: pathlib.Path, scratch: pathlib.Path) -> Iterator[Ask]:
    """Yields what runs a SavedModel in the other process, where it is loaded from its file, as on a server.

    Args:
        saved: The version's folder.
        scratch: A folder for what is sent.
    """
    with _lock:
        _started()
        try:
            yield Ask(saved, scratch)
        finally:
            process = _running[os.getpid()]
            if process.poll() is None:
                with contextlib.suppress(WorkerError):
                    _send("", "", "")


def _send(folder: str, requests: str, answers: str) -> None:
    job = json.dumps({"folder": folder, "requests": requests, "answers": answers}) + "\n"
    for last in (False, True):
        process = _started()
        with contextlib.suppress(OSError):
            process.stdin.write(job)  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            if line := process.stdout.readline():  # type: ignore[union-attr]
                if error := json.loads(line).get("error"):
                    raise WorkerError(error)
                return
        ended = process.wait()
        # One that ended well had waited too long for work: there was no failure.
        if last or ended:
            raise WorkerError(f"the process that ran it ended with code {ended}")


def _started() -> subprocess.Popen[str]:
    process = _running.get(os.getpid())
    if process is None or process.poll() is not None:
        # Without a GPU, whose memory this process may hold.
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment["PYTHONPATH"] = os.pathsep.join(path or str(pathlib.Path.cwd()) for path in sys.path)
        process = _running[os.getpid()] = subprocess.Popen(
            [sys.executable, "-P", str(_worker.__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
    return process
