"""The other process, in which `export` runs a SavedModel as a server would.

This process has Keras, this package, and every Python function of the user's program, so a SavedModel that
needs them works here by accident. The other process has TensorFlow alone. It is started once and serves many
exports, because to import TensorFlow takes seconds. Arrays travel in files, and a line of JSON names them.
"""

import contextlib
import json
import os
import pathlib
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

import keras_initx.saved_model._worker as _worker

# The names of signatures, each with its inputs by name.
Requests: TypeAlias = Sequence[tuple[str, dict[str, np.ndarray]]]

# Two threads may export at once. The other process holds one SavedModel at a time, so they take turns.
_lock = threading.RLock()
# The other process, by the id of the process that started it. A fork copies this dict, but must not write
# into the pipes of its parent: it finds no entry for its own id, and starts another process.
_running: dict[int, subprocess.Popen[str]] = {}


class WorkerError(Exception):
    """The error that the other process raised, or the code with which it ended."""


def start() -> None:
    """Starts the other process if none runs. It imports TensorFlow while this process goes on."""
    with _lock:
        _started()


class Ask:
    """Sends requests for one SavedModel to the other process; made by `opened`.

    Args:
        saved: The version's folder.
        scratch: A folder for the files with requests and answers.
    """

    def __init__(self, saved: pathlib.Path, scratch: pathlib.Path) -> None:
        # The other process has the working directory of the moment when it was started. This process may have
        # changed its own since then.
        self._saved, scratch = saved.absolute(), scratch.absolute()
        self._files = scratch / "requests", scratch / "answers"

    def __call__(self, requests: Requests) -> list[tuple[Any, float]]:
        """Runs requests one after another. Each starts from the states that the one before left.

        Args:
            requests: The names of signatures, each with its inputs by name.

        Returns:
            For each request the outputs by name, or the error as a string; and the seconds that it took.

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
    """Yields an `Ask` for a SavedModel, which the other process loads from its file, as a server does.

    Args:
        saved: The version's folder.
        scratch: A folder for the files with requests and answers.
    """
    with _lock:
        _started()
        try:
            yield Ask(saved, scratch)
        finally:
            # Asks for no folder, so that the other process drops this SavedModel and frees its memory.
            process = _running[os.getpid()]
            if process.poll() is None:
                with contextlib.suppress(WorkerError):
                    _send("", "", "")


def _send(folder: str, requests: str, answers: str) -> None:
    """Sends one job and waits until it is done; raises WorkerError if it fails."""
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
        # Code 0 is the end after two minutes without work, which may come just before this job. So the job is
        # sent once more, to a new process. Any other code is a crash, which another try would repeat.
        if last or ended:
            raise WorkerError(f"the process that ran it ended with code {ended}")


def _started() -> subprocess.Popen[str]:
    """Returns the other process, and starts it if none runs."""
    process = _running.get(os.getpid())
    if process is None or process.poll() is not None:
        # It must not see the GPU: TensorFlow in this process may hold all of the GPU's memory.
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        # It finds TensorFlow where this process finds it. An empty entry is the working directory.
        environment["PYTHONPATH"] = os.pathsep.join(path or str(pathlib.Path.cwd()) for path in sys.path)
        process = _running[os.getpid()] = subprocess.Popen(
            # -P leaves the script's own folder out of the path: its modules must not hide others.
            [sys.executable, "-P", str(_worker.__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
    return process
