"""A process that runs SavedModels for `export` with TensorFlow alone, without Keras and this package.

It reads a JSON object a line from its standard input and answers each with one. It ends when the input does,
or when nothing came for a while. Run as a script, it may import nothing of this package.
"""

import contextlib
import json
import logging
import os
import pathlib
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

_IDLE = 120.0  # seconds


@contextlib.contextmanager
def load(folder: str | os.PathLike[str]) -> Iterator[Callable[[str, dict[str, Any]], dict[str, Any]]]:
    """Loads a SavedModel in a session, as TensorFlow Serving does; yields a function that runs a signature.

    Args:
        folder: The version's folder.
    """
    import tensorflow as tf

    logger = logging.getLogger("tensorflow")  # which calls the loader of servers deprecated
    level = logger.level
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        try:
            logger.setLevel(logging.ERROR)
            meta = tf.compat.v1.saved_model.load(session, ["serve"], os.fspath(folder))
        finally:
            logger.setLevel(level)

        def call(signature: str, feeds: dict[str, Any]) -> dict[str, Any]:
            definition = meta.signature_def[signature]
            named = {definition.inputs[name].name: value for name, value in feeds.items()}
            return session.run({name: info.name for name, info in definition.outputs.items()}, named)

        yield call


class _Worker:
    """Holds the SavedModel that was asked last, with the states that its runs left."""

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()
        self._folder = ""
        self._call: Callable[..., dict[str, Any]]

    def answer(self, job: dict[str, str]) -> dict[str, str]:
        """Does one job and returns what is said of it: nothing, or the error that it ended in."""
        try:
            if job["folder"] != self._folder:
                self._open.close()
                self._folder = ""
                if job["folder"]:
                    self._call = self._open.enter_context(load(job["folder"]))
                self._folder = job["folder"]
            if job["folder"]:
                requests = pickle.loads(pathlib.Path(job["requests"]).read_bytes())
                answers = [self._run(*request) for request in requests]
                pathlib.Path(job["answers"]).write_bytes(pickle.dumps(answers))
        except Exception as error:  # TensorFlow's have no base but this
            return {"error": f"{type(error).__name__}: {error}"}
        return {}

    def _run(self, signature: str, feeds: dict[str, Any]) -> tuple[Any, float]:
        start = time.perf_counter()
        try:
            found: Any = self._call(signature, feeds)
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        return found, time.perf_counter() - start


def main() -> None:
    """Answers until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    for name in ("keras", "keras_initx"):
        sys.modules[name] = None  # type: ignore[assignment]  # importing them fails
    with contextlib.suppress(Exception):  # else the first job says it
        import tensorflow  # noqa: F401
    worker = _Worker()
    while True:
        timer = threading.Timer(_IDLE, os._exit, [0])
        timer.daemon = True
        timer.start()
        line = sys.stdin.readline()
        timer.cancel()
        if not line:
            return
        answers.write(json.dumps(worker.answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
